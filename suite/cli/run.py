"""``levelfield run`` and ``run-one``: plan, train in worker processes, resume."""

from __future__ import annotations

import ast
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import suite
from suite.cli.show import print_json
from suite.registry import registry
from suite.trust.sandbox import HELP, choose

if TYPE_CHECKING:
    from suite.runner.pool import Progress
    from suite.runner.spec import RunSpec

DEFAULT_SEEDS = "3"
EXIT_FAILED, EXIT_NO_DATA, EXIT_INTERRUPTED = 1, 3, 130
BackendName = Annotated[
    str, typer.Option("--backend", help="local; ray or slurm: the same runs as jobs of a cluster (no step costs).")
]


def run(
    methods: Annotated[str, typer.Option(help="Names, comma-separated; default: all that fit.")] = "",
    tasks: Annotated[str, typer.Option(help="Names, comma-separated; default: every task with the tier.")] = "",
    slot: Annotated[str, typer.Option(help="All methods of this slot, in place of --methods.")] = "",
    tier: Annotated[str, typer.Option(help="smoke, quick, standard or full.")] = "quick",
    seeds: Annotated[str, typer.Option(help="A count (3: seeds 0 to 2) or a list (0,4,7).")] = DEFAULT_SEEDS,
    out: Annotated[Path, typer.Option(help="Results folder.")] = Path("runs"),
    workers: Annotated[int, typer.Option(help="Runs at once; default: one a core.")] = 0,
    hp: Annotated[list[str] | None, typer.Option("--set", help="Hyper-parameter, name=value; may be repeated.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda[:n].")] = "cpu",
    memory: Annotated[float, typer.Option(help="Memory limit of a run, GiB.")] = 8.0,
    limit: Annotated[float, typer.Option(help="Wall-clock limit of a run, seconds; default: the tier's.")] = 0.0,
    cost: Annotated[float, typer.Option(help="Seconds to measure each method's step cost; 0: don't.")] = 1.5,
    budget: Annotated[
        str, typer.Option(help="steps: the same steps for all; seconds: the reference's device time for all.")
    ] = "steps",
    checkpoint: Annotated[
        float, typer.Option(help="Seconds between checkpoints inside a run; 0: at every evaluation; -1: none.")
    ] = -1.0,
    backend: BackendName = "local",
    retry: Annotated[
        bool, typer.Option("--retry", help="Run failed runs again, and those whose file is damaged.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List what is missing and what it takes, cheapest tasks first; run nothing."),
    ] = False,
    hours: Annotated[
        float | None,
        typer.Option(min=0, help="Processor hours to spend, cheapest tasks and methods first; default: all it takes."),
    ] = None,
    until_separated: Annotated[
        bool, typer.Option("--until-separated", help="Add seeds only where the order against the reference is open.")
    ] = False,
    sandbox: Annotated[str, typer.Option(help=HELP)] = "off",
    max_seeds: Annotated[int, typer.Option(help="Most seeds a cell gets with --until-separated.")] = 20,
    alpha: Annotated[float, typer.Option(help="Its chance, a cell, of a difference that is not there.")] = 0.05,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON summary.")] = False,
) -> None:
    """Train methods on tasks at equal budgets; the same command resumes."""
    from suite.cli import separate
    from suite.runner.spec import plan

    chosen = split(methods) or [m.name for m in suite.methods(slot or None)]
    where = split(tasks) or [t.name for t in suite.tasks() if tier in t.tiers]
    for name in [part for m in chosen if m != "reference" for part in m.split("+")]:
        registry().method(name)
    if until_separated and seeds != DEFAULT_SEEDS:
        raise ValueError("--until-separated chooses the seeds itself; give --max-seeds in place of --seeds")
    indices = list(range(max_seeds)) if until_separated else parse_seeds(seeds)
    settings = parse_settings(hp or [])
    specs, notes = plan(where, chosen, tier, indices, hp=settings, device=device)
    named = {*split(methods), *split(tasks)}
    for note in notes:
        if note.partition(" ")[0] in named:  # of all methods, those that don't fit need no word
            sys.stderr.write(f"levelfield: {note}\n")
    if not specs:
        raise ValueError("nothing to run: no chosen method fits a chosen task at this tier")
    if budget not in ("steps", "seconds"):
        raise ValueError(f"--budget takes steps or seconds, got {budget!r}")
    if dry_run or hours is not None:
        if dry_run and hours is not None:
            raise ValueError("--hours says how much to run, --dry-run to run nothing: give one of them")
        if until_separated or budget == "seconds":
            raise ValueError("--dry-run and --hours know what equal steps of given seeds take: leave them out here")
        from suite.cli.missing import Missing

        missing = Missing.of(specs, out, retry)
        if hours is None:
            missing.show(json)
            return
        specs = missing.within(hours, quiet=json)
    if retry:
        _forget_failures(out, {spec.run_id for spec in specs})

    def train(todo: list[RunSpec]) -> tuple[Progress, list[RunSpec]]:
        return launch(
            todo,
            out,
            workers,
            memory=int(memory * 2**30),
            limit=limit or None,
            cost=cost,
            quiet=json,
            seconds_board=budget == "seconds",
            checkpoint=checkpoint if checkpoint >= 0 else None,
            backend=backend,
            sandbox=sandbox,
            again=retry,
        )

    started = time.monotonic()
    if until_separated:
        wanted = separate.Plan(chosen, where, tier, max_seeds, alpha, settings, device)
        outcome = separate.separate(wanted, train, out)
        if not json:
            separate.report(outcome, wanted)
        facts = separate.as_json(outcome)
        _finish(outcome.progress, out, time.monotonic() - started, json, outcome.planned, facts)
    else:
        progress, specs = train(specs)
        _finish(progress, out, time.monotonic() - started, json, specs)


def launch(
    specs: list[RunSpec],
    out: Path,
    workers: int = 0,
    *,
    memory: int = 8 * 2**30,
    limit: float | None = None,
    cost: float = 0.0,
    quiet: bool = False,
    seconds_board: bool = False,
    checkpoint: float | None = None,
    attempt: int = 1,
    backend: str = "local",
    sandbox: str = "off",
    again: bool = False,
) -> tuple[Progress, list[RunSpec]]:
    """Run a plan with a progress display; Ctrl-C and SIGTERM leave a resumable folder.

    Parameters
    ----------
    workers : runs at once here, or jobs at once on a cluster; 0 takes the backend's default.
    sandbox : "auto", "require" or "off": what holds the training processes of this machine.
    again : as of `suite.runner.pool.Pool`.

    Returns
    -------
    progress : counts; its phase is "stopped" after an interruption.
    specs : the plan, with the budgets that a seconds board gave.
    """
    from suite.runner.backends import backend as scheduler
    from suite.runner.cluster import Cluster
    from suite.runner.pool import Pool, Progress

    progress = Progress()
    if sandbox != "off" and backend != "local":
        raise ValueError("--sandbox holds the processes of this machine; leave it off with another --backend")
    held = choose(sandbox)
    if seconds_board and backend != "local":
        raise ValueError(
            "--budget seconds needs --backend local: step costs are measured on a machine that does nothing else"
        )
    common: dict[str, Any] = {"memory": memory, "limit": limit, "checkpoint": checkpoint, "again": again}
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        with _display(quiet) as report:
            if backend == "local":
                pool = Pool(out, workers or os.cpu_count() or 1, attempt=attempt, sandbox=held, report=report, **common)
                progress = pool.progress
                specs = pool.charge(specs, max(cost, 3.0)) if seconds_board else specs
                pool.run(specs, cost)
            else:
                jobs = Cluster(out, scheduler(backend, out / ".jobs"), workers, report=report, **common)
                progress = jobs.progress
                jobs.run(specs)
    except KeyboardInterrupt:
        progress.phase = "stopped"
    finally:
        signal.signal(signal.SIGTERM, previous)
    return progress, specs


def finished(launched: tuple[Progress, list[RunSpec]]) -> list[RunSpec]:
    """The specs of a plan that was made to its end; ends the command where it was stopped."""
    progress, specs = launched
    if progress.phase == "stopped":
        sys.stderr.write("stopped: the same command goes on where this one ended\n")
        raise typer.Exit(EXIT_INTERRUPTED)
    return specs


def run_one(
    specs: Annotated[list[Path], typer.Argument(help="Run specifications (JSON); of several, one after the other.")],
    out: Annotated[Path, typer.Option(help="Results folder.")] = Path("runs"),
    memory: Annotated[float, typer.Option(help="Memory limit of a run, GiB.")] = 8.0,
    limit: Annotated[float, typer.Option(help="Wall-clock limit of a run, seconds; default: the tier's.")] = 0.0,
    checkpoint: Annotated[
        float, typer.Option(help="Seconds between checkpoints inside a run; 0: at every evaluation; -1: none.")
    ] = -1.0,
    attempt: Annotated[int, typer.Option(help="Which attempt this is, where a scheduler starts lost jobs again.")] = 1,
) -> None:
    """Make single runs, each in a process of its own under its limits; one that is done stays as it is."""
    from suite.api import checked
    from suite.runner.spec import RunSpec
    from suite.runner.stored import standing

    planned = [checked(RunSpec.from_json(spec.read_text())) for spec in specs]
    progress, _ = launch(
        planned,
        out,
        1,
        memory=int(memory * 2**30),
        limit=limit or None,
        quiet=True,
        checkpoint=checkpoint if checkpoint >= 0 else None,
        attempt=attempt,
    )
    if progress.phase == "stopped":
        raise typer.Exit(EXIT_INTERRUPTED)
    known = standing(out, planned)
    for status, path in known.values():
        sys.stdout.write(f"{status} {path}\n")
    found = {status for status, _ in known.values()}
    raise typer.Exit(EXIT_NO_DATA if "skipped" in found else EXIT_FAILED if found != {"ok"} else 0)


def split(text: str) -> list[str]:
    """Names of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_seeds(text: str) -> list[int]:
    """Seed indices of ``"3"`` (a count) or ``"0,4,7"`` (a list)."""
    try:
        numbers = [int(part) for part in text.split(",") if part]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or (len(numbers) == 1 and "," not in text and numbers[0] < 1):
        raise ValueError(f"--seeds takes a count (3) or a list of indices (0,4,7), got {text!r}")
    return list(range(numbers[0])) if len(numbers) == 1 and "," not in text else numbers


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Hyper-parameters of ``name=value`` words; values are Python literals or plain words."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"--set takes name=value, got {setting!r}")
        try:
            parsed[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed[name] = value
    return parsed


def _forget_failures(out: Path, planned: set[str]) -> None:
    """Have failed runs with files of their own made again; a damaged file is kept under another name, which is told."""
    from suite.runner.stored import DAMAGED, read_status, row_path, single_ids

    for run_id in single_ids(out) & planned:
        status = read_status(out, run_id)
        path = row_path(out, run_id, status)
        if status == DAMAGED:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            sys.stderr.write(f"levelfield: {path} is damaged: kept as {aside.name}, and made again\n")
        elif status != "ok":
            path.unlink()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _display(quiet: bool) -> AbstractContextManager[Callable[[Progress], None]]:
    """A live progress bar on a terminal, a line every ten seconds elsewhere."""
    if quiet:
        return nullcontext(lambda progress: None)
    return _Bar() if sys.stderr.isatty() else nullcontext(_Lines())


class _Lines:
    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.last > 10:
            self.last = now
            sys.stderr.write(f"{progress.phase}: {describe(progress)}\n")
            sys.stderr.flush()


class _Bar:
    """Runs done, failed, and the time left."""

    def __enter__(self) -> Callable[[Progress], None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("failed {task.fields[failed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[now]}", style="dim"),
            console=Console(stderr=True),
        )
        self.bar.start()
        self.row = self.bar.add_task("starting", total=None, failed=0, now="")
        return self.update

    def update(self, progress: Progress) -> None:
        now = "; ".join(progress.running.values())
        total = progress.planned - progress.cached
        self.bar.update(
            self.row, description=progress.phase, total=total, completed=progress.done, failed=progress.failed, now=now
        )

    def __exit__(self, *error: object) -> None:
        self.bar.stop()


def describe(progress: Progress) -> str:
    """The counts in words."""
    parts = [f"{progress.done} of {progress.planned - progress.cached} runs done"]
    for count, word in (
        (progress.cached, "already there"),
        (progress.failed, "failed"),
        (progress.skipped, "skipped"),
        (progress.retried, "restarted"),
        (progress.elsewhere, "held by another launcher"),
    ):
        if count:
            parts.append(f"{count} {word}")
    return ", ".join(parts)


def _finish(
    progress: Progress,
    out: Path,
    seconds: float,
    json: bool,
    planned: Sequence[RunSpec],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print the counts (`more` beside them as JSON) and end with the exit code that they give."""
    stopped = progress.phase == "stopped"
    if json:
        facts = {k: v for k, v in vars(progress).items() if k not in ("running", "phase")}
        print_json({**facts, "stopped": stopped, "seconds": round(seconds, 1), "out": str(out), **(more or {})})
    else:
        sys.stdout.write(f"{describe(progress)} in {seconds:.0f} s; results in {out}\n")
        for note in progress.notes:
            sys.stdout.write(f"  {note}\n")
        for reason in reasons(out, planned) if progress.failed or progress.skipped else []:
            sys.stdout.write(f"  {reason}\n")
        if stopped:
            sys.stdout.write("stopped: the same command goes on where this one ended\n")
    if stopped:
        raise typer.Exit(EXIT_INTERRUPTED)
    if progress.skipped:
        raise typer.Exit(EXIT_NO_DATA)
    if progress.failed:
        raise typer.Exit(EXIT_FAILED)


def reasons(out: Path, planned: Sequence[RunSpec]) -> list[str]:
    """Why planned runs did not finish: each distinct reason once a task, with the runs it took."""
    from collections import Counter

    from suite.runner.stored import sources
    from suite.store.files import read

    ids = {spec.run_id for spec in planned}
    rows = read(sources(out, planned)).table.select(["run_id", "task", "method", "status", "message"]).to_pylist()
    bad = [r for r in rows if r["status"] != "ok" and r["run_id"] in ids]
    seen: dict[tuple[str, str, str], Counter[str]] = {}
    for r in bad:
        seen.setdefault((r["task"], r["status"], r["message"].split("\n")[0]), Counter())[r["method"]] += 1
    return [
        f"{task}, {sum(by.values())} runs ({', '.join(by)}): {status}: {why}"
        for (task, status, why), by in seen.items()
    ]
