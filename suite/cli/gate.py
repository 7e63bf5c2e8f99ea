"""``levelfield gate``: is head still as good and as fast as base?"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.cli.run import EXIT_INTERRUPTED, interrupt, split
from suite.cli.show import print_json

if TYPE_CHECKING:
    from suite.gate.report import Report
    from suite.gate.sides import Stored, Tree

Summary = Annotated[Path | None, typer.Option(help="Append the Markdown summary to this file.")]
JUnit = Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")]
Annotations = Annotated[
    bool, typer.Option("--annotations", help="Print GitHub annotations on standard error; on by itself in an Action.")
]


def gate(
    base: Annotated[str, typer.Option(help="What was: a git revision, a source tree or a results folder.")] = "",
    head: Annotated[str, typer.Option(help="What is: the same kinds; default: the working tree.")] = "",
    against: Annotated[str, typer.Option(help="Results folder that holds what was; the same as --base.")] = "",
    tasks: Annotated[str, typer.Option(help="Only these tasks, comma-separated.")] = "",
    methods: Annotated[str, typer.Option(help="Only these methods; default: those whose code differs.")] = "",
    tier: Annotated[str, typer.Option(help="Only this tier; default: quick, or every stored one.")] = "",
    seeds: Annotated[int, typer.Option(help="Seeds of the first batch, at most.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Keep the runs here; default: a temporary folder.")] = None,
    summary: Summary = None,
    junit: JUnit = None,
    annotations: Annotations = False,
    workers: Annotated[int, typer.Option(help="Runs at once; default: one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda[:n].")] = "cpu",
    cost: Annotated[float, typer.Option(help="Seconds to measure a step time; 0 leaves wall time out.")] = 3.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run base and head in this job, each by its own code, and compare.

    Exit codes: 0 PASS, 1 FAIL, 4 INCONCLUSIVE, 2 nothing to compare, 130 interrupted.
    """
    from suite.gate.compare import Gate

    if bool(base) == bool(against):
        raise ValueError("gate takes one of --base (a revision, a source tree or results) and --against (results)")
    if seeds < 1:
        raise ValueError(f"--seeds takes a count of at least 1, got {seeds}")
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        with ExitStack() as stack:
            folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="levelfield-gate-")))
            count = workers or os.cpu_count() or 1
            was = side(base or against, "base", folder.resolve() / "base", count, stack)
            now = side(head, "head", folder.resolve() / "head", count, stack)
            report = Gate(was, now, seeds, cost, say=_quiet if json else _tell).report(
                split(tasks), split(methods), tier, device
            )
    except KeyboardInterrupt:
        sys.stderr.write("levelfield: interrupted; what the gate had checked out is removed\n")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
    emit(report, summary=summary, junit=junit, annotated=annotations, json=json)


def side(name: str, label: str, folder: Path, workers: int, stack: ExitStack) -> Tree | Stored:
    """What a side's name stands for; a revision is checked out until `stack` closes.

    Parameters
    ----------
    name : a folder (source tree or results) or a git revision; "" for the working tree.
    folder : where a tree's runs go.
    """
    import suite
    from suite.gate.sides import Stored, Tree, checkout, holds_suite, working_tree

    path = Path(name) if name else working_tree()
    if path.is_dir() and not holds_suite(path):
        return Stored(suite.load_results(path), label)
    root = path.resolve() if path.is_dir() else stack.enter_context(checkout(working_tree(), name))
    return Tree(root, folder, label, workers)


def emit(report: Report, *, summary: Path | None, junit: Path | None, annotated: bool, json: bool) -> None:
    """Print and write a report in every form asked for, and end with its exit code."""
    from suite.gate import report as forms

    text = forms.markdown(report)
    if summary is not None:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(text)
    if junit is not None:
        junit.parent.mkdir(parents=True, exist_ok=True)
        junit.write_text(forms.junit(report), encoding="utf-8")
    if annotated or os.environ.get("GITHUB_ACTIONS") == "true":
        sys.stderr.writelines(f"{line}\n" for line in forms.github(report))
    if json:
        print_json(forms.as_json(report))
    else:
        sys.stdout.write(text)
    raise typer.Exit(report.exit_code)


def _tell(text: str) -> None:
    sys.stderr.write(f"gate: {text}\n")
    sys.stderr.flush()


def _quiet(text: str) -> None:
    """Progress is not shown beside JSON."""
