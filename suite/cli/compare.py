"""``levelfield compare``: methods side by side on the same seeds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suite.cli.run import EXIT_FAILED, EXIT_NO_DATA, finished, launch, parse_seeds, reasons, split
from suite.cli.show import interval_text, print_json, print_table
from suite.recipe import REFERENCE
from suite.registry import registry

if TYPE_CHECKING:
    import pandas as pd

    from suite.runner.spec import RunSpec

COLUMNS = {
    "task": "task", "method": "method", "score": "score", "interval": "95% interval", "n": "n", "failed": "failed",
    "difference": "difference", "bounds": "95% interval", "pairs": "pairs", "t": "t", "p": "p",
    "detectable": "detectable", "verdict": "verdict",
}  # fmt: skip


def compare(
    methods: Annotated[list[str], typer.Argument(help="The first is what the others are compared with.")],
    tasks: Annotated[str, typer.Option(help="Names, comma-separated.")],
    tier: Annotated[str, typer.Option(help="smoke, quick, standard or full.")] = "quick",
    seeds: Annotated[str, typer.Option(help="A count (5: seeds 0 to 4) or a list (0,4,7).")] = "5",
    out: Annotated[Path, typer.Option(help="Results folder; what it has is not run again.")] = Path("runs"),
    workers: Annotated[int, typer.Option(help="Runs at once; default: one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda[:n].")] = "cpu",
    cost: Annotated[float, typer.Option(help="Seconds to measure each method's step cost; 0: don't.")] = 1.5,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare methods with the first of them, paired by seed; runs what is missing.

    Exit code 1 when a method has no finished run on a task, 3 when one could not be run here.
    """
    specs, notes = wanted_specs(methods, split(tasks), tier, parse_seeds(seeds), device)
    for note in notes:
        sys.stderr.write(f"levelfield: {note}\n")
    finished(launch(specs, out, workers, cost=cost, quiet=json))
    table = compared(out, specs, list(dict.fromkeys(methods)))
    _report(table, methods[0], reasons(out, specs), json)
    if (table["verdict"] == "failed").any():
        raise typer.Exit(EXIT_FAILED)
    if set(methods) - set(table["method"]):
        raise typer.Exit(EXIT_NO_DATA)


def wanted_specs(
    methods: Sequence[str], tasks: Sequence[str], tier: str, seeds: Sequence[int], device: str = "cpu"
) -> tuple[list[RunSpec], list[str]]:
    """The runs of a comparison: tasks that the first method and another one fit.

    Returns
    -------
    specs : the runs; notes : one sentence for each task or method that was left out.

    Raises
    ------
    UnknownName : no such method or task. ValueError : nothing is left to compare.
    """
    from suite.runner.spec import plan

    if len(set(methods)) < 2:
        raise ValueError("a comparison needs two methods: levelfield compare A B --tasks ...")
    for name in [part for m in methods if m != REFERENCE for part in m.split("+")]:
        registry().method(name)
    planned, notes = plan(tasks, methods, tier, seeds, device=device)
    specs = [s for s in planned if s.method in methods]
    by_task = {task: {s.method for s in specs if s.task == task} for task in {s.task for s in specs}}
    left_out = sorted(t for t, found in by_task.items() if methods[0] not in found or len(found) < 2)
    notes += [f"{task} is left out: it takes no two methods of which {methods[0]} is one" for task in left_out]
    specs = [s for s in specs if s.task not in left_out]
    if not specs:
        raise ValueError("nothing to compare: " + ("; ".join(notes) or "name tasks with --tasks"))
    return specs, notes


def compared(out: Path, planned: Sequence[RunSpec], methods: Sequence[str]) -> pd.DataFrame:
    """`suite.stats.comparison_table` of planned runs in a results folder, of the methods that could be run there.

    Raises
    ------
    ValueError : the first method could not, or no other.
    """
    from suite.runner.stored import load_plan
    from suite.stats import comparison_table

    frame = load_plan(out, planned)
    frame = frame[frame["status"] != "skipped"]
    there = [m for m in methods if m in set(frame["method"])]
    if methods[0] not in there or len(there) < 2:
        raise ValueError("nothing to compare: " + "; ".join(reasons(out, planned)))
    return comparison_table(frame, there)


def _report(table: pd.DataFrame, base: str, why: list[str], json: bool) -> None:
    if json:
        print_json({"base": base, "rows": table.to_dict("records"), "failures": why})
        return
    print_table([_row(row) for row in table.to_dict("records")], COLUMNS)
    count = int((table["verdict"] != "").sum())
    sys.stdout.write(
        f"\nDifference to {base}, paired by seed, + is better; detectable: the true difference that these pairs show "
        "with 80% power.\n"
        f"Each of the {count} verdicts holds by itself at 5%"
        + (f": of {count} equal methods about {count * 0.05:.1g} would look different.\n" if count > 1 else ".\n")
    )
    for reason in why:
        sys.stdout.write(f"not finished: {reason}\n")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table as text."""
    shown = {k: v for k, v in row.items() if k in COLUMNS}
    shown["interval"] = interval_text(row["score_low"], row["score_high"])
    shown["failed"] = f"{row['failed']} of {row['failed'] + row['n']}" if row["failed"] else ""
    if row["verdict"] == "":
        return shown | dict.fromkeys(("difference", "bounds", "pairs", "t", "p", "detectable"), "")
    return shown | {"bounds": interval_text(row["low"], row["high"])}
