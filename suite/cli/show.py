"""Printing for people and for programs: rich tables on a terminal, JSON on request."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.plain import finite
from suite.registry import Method, TaskInfo
from suite.space import describe

if TYPE_CHECKING:
    import pyarrow as pa

    from suite.effort import ProcessorTime
    from suite.runner.spec import RunSpec


def print_json(value: Any) -> None:
    """JSON that every reader takes: a number that is not finite is null."""
    sys.stdout.write(json.dumps(finite(value), indent=2, default=str, allow_nan=False) + "\n")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], title: str = "") -> None:
    """A table of the named columns; `columns` maps keys to headings. Plain columns where there is no terminal."""
    if not sys.stdout.isatty():
        _print_columns(rows, columns, title)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for key, heading in columns.items():
        numeric = bool(rows) and all(isinstance(r.get(key), int | float) for r in rows)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(row.get(key))) for key in columns))
    Console().print(table)


def _print_columns(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], title: str) -> None:
    """Left-aligned columns as wide as their content, two spaces apart: for pipes and files."""
    lines = [list(columns.values()), *([_cell(row.get(key)) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    text = "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
    sys.stdout.write((f"{title}\n" if title else "") + text + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    return " ".join(str(value).split())


def interval_text(low: float, high: float) -> str:
    """``0.12 to 0.34``; "-" where there is no interval."""
    return f"{low:.4g} to {high:.4g}" if math.isfinite(low) and math.isfinite(high) else "-"


def method_facts(method: Method) -> dict[str, Any]:
    """A method's metadata, JSON-ready."""
    return {
        "name": method.name,
        "slot": method.slot,
        "summary": method.summary,
        "families": list(method.families),
        "defaults": dict(method.defaults),
        "space": {k: describe(v) for k, v in method.space.items()},
        "paper": asdict(method.paper) if method.paper else None,
        "confidence": method.confidence,
        "requires": method.requires,
        "source": f"{method.path}:{method.line}",
    }


def task_facts(task: TaskInfo) -> dict[str, Any]:
    """A task's metadata, JSON-ready."""
    return {
        "name": task.name,
        "title": task.title,
        "family": task.family,
        "version": task.version,
        "summary": task.summary,
        "metric": asdict(task.metric),
        "slots": list(task.slots),
        "recipe": dict(task.recipe),
        "tiers": {k: asdict(v) for k, v in task.tiers.items()},
        "unit": task.unit,
        "noise": {k: asdict(v) for k, v in task.noise.items()},
        "data": task.data,
        "requires": task.requires,
        "paper": asdict(task.paper) if task.paper else None,
        "source": f"{task.path}:{task.line}",
    }


def amount_text(specs: Sequence[RunSpec], times: ProcessorTime) -> str:
    """``20 runs, about 12 min of processor time``."""
    seconds, unknown = times.total(specs)
    runs = f"{len(specs)} run{'s' * (len(specs) != 1)}"
    if unknown == len(specs):
        return f"{runs}, processor time unknown" if specs else "no run"
    rest = f", {unknown} of them left out of that" if unknown else ""
    return f"{runs}, about {time_text(seconds)} of processor time{rest}"


def time_text(seconds: float) -> str:
    """``42 s``, ``12 min``, ``3.1 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def stored_rows(folders: Sequence[Path]) -> pa.Table:
    """All rows of the folders that exist; what cannot be read is told."""
    from suite.store.files import read

    found = read([folder for folder in folders if folder.exists()])
    for problem in found.problems:
        sys.stderr.write(f"levelfield: set aside: {problem}\n")
    return found.table
