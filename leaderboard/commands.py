"""Commands that make runs again, ready to paste."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from leaderboard.model import Cell, Run, Sheet
from leaderboard.text import command, seed_words
from suite.recipe import REFERENCE


def cell_commands(sheet: Sheet, cell: Cell) -> Iterator[tuple[Sheet, str]]:
    """The commands that make a cell's runs, and the reference's ladder, again."""
    yield sheet, cell_command(sheet, cell)
    if cell.method == REFERENCE and sheet.ladder:
        seeds = seed_words({r.seed for _, r in sheet.ladder})
        words = ["levelfield", "reference", sheet.task, "--tier", sheet.slice.tier, "--seeds", seeds]
        yield sheet, command([*words, *_device(cell.first)])


def cell_command(sheet: Sheet, cell: Cell) -> str:
    """The command that makes a cell's runs again."""
    return _run_command(sheet, [cell.method], cell.runs)


def task_command(sheet: Sheet) -> str:
    """The command that makes every run of a task again."""
    methods = [m for m in sheet.cells if m != REFERENCE]
    return _run_command(sheet, methods or [REFERENCE], [r for c in sheet.cells.values() for r in c.runs])


def _run_command(sheet: Sheet, methods: Sequence[str], runs: Sequence[Run]) -> str:
    part, seeds = sheet.slice, seed_words({r.seed for r in runs})
    where = ["--tasks", sheet.task, "--methods", ",".join(methods), "--tier", part.tier, "--seeds", seeds]
    more = _device(runs[0])
    if part.trials and methods != [REFERENCE]:
        return command(["levelfield", "tune", *where, "--trials", part.trials, *more])
    return command(["levelfield", "run", *where, *(["--budget", "seconds"] if part.kind == "seconds" else []), *more])


def _device(run: Run) -> list[str]:
    device = json.loads(run.environment or "{}").get("device", "cpu")
    return ["--device", "cuda"] if str(device).startswith("cuda") else []
