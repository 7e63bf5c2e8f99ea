"""Which scores changed between two result folders, and whether by more than their noise."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leaderboard.model import Board, Cell, Sheet, Slice
from leaderboard.text import number
from suite.recipe import REFERENCE
from suite.stats import NO_VALUES, Interval, t_interval
from suite.stats.intervals import mean_and_error, t_half_width

BEYOND, WITHIN, UNKNOWN, EQUAL = "beyond the interval", "within the interval", "one run a side", "unchanged"
ADDED, REMOVED, RESCORED = "added", "removed", "task changed"
ORDER = (BEYOND, RESCORED, ADDED, REMOVED, UNKNOWN, WITHIN, EQUAL)


@dataclass(frozen=True)
class Change:
    """One cell in the old and the new folder.

    Attributes
    ----------
    old, new : the cells; None where a folder has none.
    difference : new - old, signed so that + is better, with its 95% interval
        (paired by seed where both have two seeds in common, else Welch's).
    kind : one of `ORDER`.
    """

    slice: Slice
    task: str
    method: str
    old: Cell | None
    new: Cell | None
    difference: Interval
    kind: str

    @property
    def better(self) -> bool:
        return self.difference.value > 0

    @property
    def failures(self) -> tuple[int, int]:
        """Failed runs, old and new."""
        return (self.old.failed if self.old else 0, self.new.failed if self.new else 0)


def changes(old: Board, new: Board) -> list[Change]:
    """Every cell of either board, the most notable first."""
    found = [_change(*pair) for pair in _pairs(old, new)]
    return sorted(found, key=lambda c: (ORDER.index(c.kind), c.slice.order, c.task, c.method != REFERENCE, c.method))


def _pairs(old: Board, new: Board) -> Iterator[tuple[Slice, str, str, Sheet | None, Sheet | None]]:
    for part, task in sorted({*old.sheets, *new.sheets}, key=lambda k: (k[0].order, k[1])):
        before, after = old.sheets.get((part, task)), new.sheets.get((part, task))
        names = {m for sheet in (before, after) if sheet for m in sheet.cells}
        for method in sorted(names):
            yield part, task, method, before, after


def _change(part: Slice, task: str, method: str, before: Sheet | None, after: Sheet | None) -> Change:
    old = before.cells.get(method) if before else None
    new = after.cells.get(method) if after else None
    if old is None or new is None:
        return Change(part, task, method, old, new, NO_VALUES, REMOVED if new is None else ADDED)
    if old.first.task_hash != new.first.task_hash:
        return Change(part, task, method, old, new, NO_VALUES, RESCORED)
    difference = _difference(old, new)
    return Change(part, task, method, old, new, difference, _kind(old, new, difference))


def _kind(old: Cell, new: Cell, difference: Interval) -> str:
    if [(r.seed, r.status, r.digest) for r in old.runs] == [(r.seed, r.status, r.digest) for r in new.runs]:
        return EQUAL
    if (old.n == 0) != (new.n == 0) or (old.failed == 0) != (new.failed == 0):
        return BEYOND
    if not difference.n:
        return EQUAL
    if not math.isfinite(difference.low):
        return UNKNOWN
    return WITHIN if difference.low <= 0 <= difference.high else BEYOND


def _difference(old: Cell, new: Cell) -> Interval:
    """new - old, + is better."""
    sign = 1.0 if new.first.direction == "max" else -1.0
    before = {r.seed: sign * r.score for r in old.runs if r.ok}
    after = {r.seed: sign * r.score for r in new.runs if r.ok}
    common = sorted(before.keys() & after.keys())
    if len(common) > 1 or (common and min(len(before), len(after)) == 1):
        return t_interval([after[s] - before[s] for s in common])
    if not before or not after:
        return NO_VALUES
    x, y = (np.array([values[s] for s in sorted(values)]) for values in (after, before))
    if min(len(x), len(y)) < 2:
        return Interval(float(x.mean() - y.mean()), math.nan, math.nan, 1, "none")
    mean, error, df = mean_and_error(x, y)
    half = float(t_half_width(error, 1, df=df))
    return Interval(mean, mean - half, mean + half, min(len(x), len(y)), "welch")


def summary(found: list[Change]) -> str:
    """Counts by kind, in a sentence."""
    kinds = Counter(c.kind for c in found)
    return ", ".join(f"{kinds[kind]} {kind}" for kind in ORDER if kinds[kind]) or "no cells"


def score(cell: Cell | None) -> str:
    """A cell's mean score, or why it has none."""
    if cell is None:
        return "none"
    return number(cell.score.value) if cell.n else (cell.trouble.status if cell.trouble else "none")
