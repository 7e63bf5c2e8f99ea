"""``levelfield bench``: hold micro-benchmarks against each other, and keep their values over time."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer

from suite.cli.gate import Annotations, JUnit, Summary, emit

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Hold micro-benchmarks against each other; keep their values."
)


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(help="pytest-benchmark JSON of what was.")],
    head: Annotated[list[Path], typer.Argument(help="JSON of what is; a second one confirms the times.")],
    margin: Annotated[float, typer.Option(help="Growth of a time ratio that counts.")] = 0.10,
    summary: Summary = None,
    junit: JUnit = None,
    annotations: Annotations = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold exact counters (5%) and time ratios against what was; the ids of base are pinned.

    Exit codes: 0 PASS, 1 FAIL, 4 INCONCLUSIVE, 2 a file that is not pytest-benchmark's.
    """
    from suite.gate import bench

    report = bench.compare(bench.read(base), [bench.read(path) for path in head], margin)
    emit(report, summary=summary, junit=junit, annotated=annotations, json=json)


@app.command()
def trend(
    values: Annotated[Path, typer.Argument(help="pytest-benchmark JSON.")],
    into: Annotated[Path, typer.Option(help="CSV that the values are appended to; made when missing.")] = Path(
        "trend.csv"
    ),
) -> None:
    """Append every number of every benchmark to a CSV, a line each; nothing is judged."""
    from suite.gate import bench

    rows = bench.trend_rows(values)
    fresh = not into.exists() or not into.stat().st_size
    with open(into, "a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([bench.COLUMNS, *rows] if fresh else rows)
    sys.stdout.write(f"{len(rows)} values appended to {into}\n")
