"""``levelfield reference``: the reference's ladder, and the noise that follows from it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import suite
from suite.cli.run import BackendName, finished, launch, parse_seeds, split
from suite.cli.show import print_json, print_table
from suite.recipe import REFERENCE
from suite.registry import TaskInfo, registry

LADDER = (0.25, 0.5, 1.0, 2.0, 4.0)


def reference(
    tasks: Annotated[str, typer.Argument(help="Task names, comma-separated.")] = "",
    all_tasks: Annotated[bool, typer.Option("--all", help="Every task with the tier.")] = False,
    tier: Annotated[str, typer.Option(help="Tier.")] = "quick",
    seeds: Annotated[str, typer.Option(help="A count or a list.")] = "5",
    out: Annotated[Path, typer.Option(help="Results folder.")] = Path("runs"),
    workers: Annotated[int, typer.Option(help="Runs at once; default: one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda[:n].")] = "cpu",
    backend: BackendName = "local",
    write: Annotated[bool, typer.Option("--write", help="Write the noise into the tasks' sources.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train the frozen reference at 1/4, 1/2, 1, 2 and 4 budgets; derive the tasks' noise."""
    from suite.runner.stored import load_plan

    chosen = _tasks(split(tasks), all_tasks, tier)
    planned = [spec for task in chosen for spec in ladder(task, tier, parse_seeds(seeds), device)]
    finished(launch(planned, out, workers, quiet=json, backend=backend))
    frame = load_plan(out, planned)
    facts = [_derive(task, tier, frame[frame["task"] == task.name], write) for task in chosen]
    if json:
        print_json(facts)
    else:
        for task, found in zip(chosen, facts, strict=True):
            _print(task, found)


def _tasks(names: list[str], all_tasks: bool, tier: str) -> list[TaskInfo]:
    if bool(names) == all_tasks:
        raise ValueError("name the tasks, comma-separated, or take --all")
    chosen = suite.tasks() if all_tasks else [registry().task(name) for name in names]
    without = [t for t in chosen if tier not in t.tiers]
    if without and not all_tasks:
        raise suite.UnknownName(f"task {without[0].name!r} has no tier {tier!r}; it has: {', '.join(without[0].tiers)}")
    return [t for t in chosen if tier in t.tiers]


def ladder(task: TaskInfo, tier: str, seeds: list[int], device: str) -> list[Any]:
    """The reference at each share of the tier's budget, seeds outermost."""
    from suite.runner.spec import RunSpec

    budget = task.tiers[tier].budget
    units = [None if share == 1 else float(round(budget * share)) for share in LADDER]
    return [RunSpec(task.name, REFERENCE, tier, seed, budget=u, device=device) for seed in seeds for u in units]


def _derive(task: TaskInfo, tier: str, rows: Any, write: bool) -> dict[str, Any]:
    from suite.noise import noise_facts, write_noise

    stated = task.noise.get(tier, suite.Noise(0.0))
    found = noise_facts(rows, task.tiers[tier].budget, task.metric.sign, stated.floor)
    noise = found["noise"]
    written = write and noise is not None and write_noise(task, tier, noise)
    facts = {"task": task.name, "tier": tier, **found, "written": written}
    return facts | {"noise": asdict(noise) if noise else None}


def _print(task: TaskInfo, found: dict[str, Any]) -> None:
    columns = {"share": "budget", "mean": task.metric.name, "sd": "sd", "n": "n", "failed": "failed"}
    print_table(found["ladder"], columns, task.name)
    noise = found["noise"]
    if noise is None:
        sys.stdout.write("noise: fewer than two runs at the full budget ended well\n\n")
        return
    worth = "not measured" if noise["per_doubling"] is None else f"{noise['per_doubling']:g} {task.metric.unit}"
    detectable = ", ".join(f"{n}: {value:.3g}" for n, value in found["detectable"].items())
    sys.stdout.write(
        f"noise: sd {noise['sd']:g} over {noise['n']} seeds; a doubling of the budget is worth {worth}\n"
        f"smallest difference that n paired seeds show with 80% power: {detectable}\n"
    )
    sys.stdout.write(f"written to {task.path}\n\n" if found["written"] else "\n")
