"""Aggregates side by side: do they agree, and does the order hang on one task?"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pandas as pd

from leaderboard.standings import SlotTable, ladder_frame
from leaderboard.model import NOT_RUN, Sheet, stats_frame
from suite.recipe import REFERENCE
from suite.stats import Board as StatsBoard
from suite.stats import METRICS, BoardMetric, board_table, leave_one_task_out, metric_agreement, pairing_gain, stability_summary

SHOWN = ("speedup", "iqm", "win_rate", "elo", "mean_rank", "profile_area", "failed")


class Value(NamedTuple):
    """An aggregate of one method with its interval; nan where there is none."""

    value: float
    low: float
    high: float


class Moves(NamedTuple):
    """Range of a method's rank when each task is left out in turn, and the task that moves it most."""

    best: float
    worst: float
    decisive: str


class Aggregates(NamedTuple):
    """One slot's aggregates.

    Attributes
    ----------
    metrics : the columns.
    rows : method -> one value a metric, best first.
    agreement : Kendall's tau between the metrics: (name, one tau a metric).
    moves : method -> how its place depends on single tasks.
    """

    table: SlotTable
    metrics: tuple[BoardMetric, ...]
    rows: dict[str, tuple[Value, ...]]
    agreement: list[tuple[BoardMetric, list[float]]]
    moves: dict[str, Moves]


def aggregates(table: SlotTable) -> Aggregates | None:
    """Aggregates of a slot's table; None on fewer than two tasks or methods, where they say nothing."""
    sheets = [s for s in table.sheets if s.usable and s.reference is not None and (s.rungs or s.reference.n > 1)]
    laddered = bool(sheets) and all(s.rungs for s in sheets)
    sheets = [s for s in sheets if laddered or (s.reference is not None and s.reference.n > 1)]
    methods = [r.method for r in table.rows if r.method != REFERENCE]
    if len(sheets) < 2 or len(methods) < 2:
        return None
    board = _board(sheets, [REFERENCE, *methods], laddered)
    metrics = tuple(METRICS[n] for n in SHOWN if laddered or not METRICS[n].needs_ladder)
    found = board_table(board, names=[m.name for m in metrics])
    rows = {
        str(row["method"]): tuple(Value(*(float(row[m.name + end]) for end in ("", "_low", "_high"))) for m in metrics)
        for row in found.to_dict("records")
        if any(row["method"] == r.method for r in table.rows)
    }
    tau = metric_agreement(board)
    agreement = [(METRICS[str(name)], [float(v) for v in tau.loc[name]]) for name in tau.index]
    moved = stability_summary(leave_one_task_out(board)).to_dict("records")
    moves = {str(r["method"]): Moves(r["best"], r["worst"], str(r["decisive"])) for r in moved}
    return Aggregates(table, metrics, rows, agreement, moves)


def _board(sheets: list[Sheet], methods: list[str], ladder: bool) -> StatsBoard:
    cells = [s.cells[m] for s in sheets for m in methods if m in s.cells]
    runs = stats_frame(r for c in cells for r in c.runs if r.status != NOT_RUN)
    return StatsBoard.of(runs, ladder_frame(sheets) if ladder else None)


def pairing(sheets: list[Sheet]) -> dict[str, float]:
    """Task -> spread of the differences when seeds are paired, over what it would be unpaired; nan where unknown."""
    usable = [s for s in sheets if s.reference is not None and s.reference.n > 1]
    runs = [r for s in usable for c in s.cells.values() for r in c.runs if r.status != NOT_RUN]
    if not runs:
        return {}
    frame: pd.DataFrame = pairing_gain(stats_frame(runs))
    known = zip(frame["task"], frame["ratio"], strict=True)
    return {str(task): float(ratio) for task, ratio in known if math.isfinite(ratio)}


def describe(value: Value, metric: BoardMetric) -> tuple[str, str]:
    """(value, interval) of an aggregate as text."""
    from leaderboard.text import factor, fixed, number

    def text(x: float) -> str:
        if metric.unit == "share":
            return f"{100 * x:.0f}%"
        if metric.name == "elo":
            return f"{x:.0f}"
        if metric.unit.startswith("factor") and metric.name == "speedup":
            return factor(x)
        return fixed(x, 2)

    if not math.isfinite(value.value):
        return number(value.value), ""
    bounds = f"{text(value.low)} to {text(value.high)}" if math.isfinite(value.low) else ""
    return text(value.value), bounds


def legend(metrics: tuple[BoardMetric, ...]) -> list[dict[str, Any]]:
    """What each column is."""
    return [{"title": m.title, "formula": m.formula, "source": m.source} for m in metrics]
