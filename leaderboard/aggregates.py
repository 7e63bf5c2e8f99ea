"""Aggregates side by side: do they agree, and does the order hang on one task or one method?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from leaderboard.charts import Series, line_chart
from leaderboard.figures import CURVES, PALETTE, Figure
from leaderboard.model import NOT_RUN, Sheet, stats_frame
from leaderboard.standings import SlotTable
from leaderboard.text import factor, fixed, number, slot_words
from suite.recipe import REFERENCE
from suite.stats import (
    METRICS,
    BoardMetric,
    leave_one_method_out,
    leave_one_task_out,
    pairing_gain,
    profiles,
    rank_agreement,
    score_profiles,
    stability_summary,
)
from suite.stats import Board as StatsBoard
from suite.stats.metrics import NOT_QUALITY

ROUNDS = 400  # bootstrap rounds of these intervals; a thousand of Elo's take a quarter gigabyte at fifty methods
PAIRS = 8  # methods a task whose differences say what pairing saves
SHOWN = ("speedup", "iqm", "win_rate", "elo", "mean_rank", "profile_area", "failed")


class Value(NamedTuple):
    """An aggregate of one method with its interval; nan where there is none."""

    value: float
    low: float
    high: float


class Moves(NamedTuple):
    """Range of a method's rank when each task (or method) is left out in turn, and the one that moves it most."""

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
    moves : method -> how its place by the headline depends on single tasks.
    pool : method -> how its place by mean rank depends on single other methods.
    profile : chart of the performance profiles.
    """

    table: SlotTable
    metrics: tuple[BoardMetric, ...]
    rows: dict[str, tuple[Value, ...]]
    agreement: list[tuple[BoardMetric, list[float]]]
    moves: dict[str, Moves]
    pool: dict[str, Moves]
    profile: Figure


def aggregates(table: SlotTable) -> Aggregates | None:
    """Aggregates of a slot's table; None on fewer than two tasks or methods, where they say nothing."""
    methods = {r.method for r in table.rows}
    if table.stats is None or len(table.stats.cells.tasks) < 2 or len(methods - {REFERENCE}) < 2:
        return None
    board = table.stats.at_rounds(ROUNDS)
    metrics = tuple(METRICS[n] for n in SHOWN if board.rungs is not None or not METRICS[n].needs_ladder)
    values = {m.name: _values(m, board) for m in metrics}
    absent = Value(math.nan, math.nan, math.nan)
    rows = {r.method: tuple(values[m.name].get(r.method, absent) for m in metrics) for r in table.rows}
    moves, pool = _moves(leave_one_task_out(board)), _moves(leave_one_method_out(board))
    quality = [m for m in metrics if m.name not in NOT_QUALITY]
    return Aggregates(table, metrics, rows, _agreement(quality, values), moves, pool, profile_chart(table, board))


def _moves(changes: pd.DataFrame) -> dict[str, Moves]:
    """Range of every method's rank over the boards with one left out."""
    moved = stability_summary(changes).to_dict("records")
    return {str(r["method"]): Moves(r["best"], r["worst"], str(r["decisive"])) for r in moved}


def profile_chart(table: SlotTable, board: StatsBoard) -> Figure:
    """Performance profiles of the reference and the best methods; score profiles where there is no ladder."""
    names = [r.method for r in table.rows if r.method != REFERENCE][:CURVES]
    shown = [n for n in (REFERENCE, *names) if n in board.attempted.cells.methods]
    title = f"profiles of {slot_words(table.slot).title.lower()}"
    if board.rungs is None:
        found = score_profiles(board.only(methods=shown))
        x_label, y_label = "difference to the reference, seed sd", "share of runs above it"
        caption = "Score profiles: the share of runs better than the reference by more than x, averaged over tasks."
    else:
        found = profiles(board)
        found = found.assign(tau=np.log2(found["tau"]))
        x_label, y_label = "doublings of the budget from the best", "share of tasks"
        caption = "Performance profiles: the share of tasks on which a method is within 2^x of the best one's speed."
    series = []
    for name, kind in zip(shown, ["reference", *PALETTE][REFERENCE not in shown :], strict=False):
        part = found[found["method"] == name]
        series.append(Series(name, part["tau"].tolist(), part["share"].tolist(), kind=kind))
    return Figure(Markup(line_chart(series, x_label, y_label, title)), caption)


def _values(metric: BoardMetric, board: StatsBoard) -> dict[str, Value]:
    found = metric.compute(board)
    rows = zip(*(found[name].tolist() for name in ("method", "value", "low", "high")), strict=True)
    return {str(method): Value(float(v), float(low), float(high)) for method, v, low, high in rows}


def _agreement(
    metrics: list[BoardMetric], values: dict[str, dict[str, Value]]
) -> list[tuple[BoardMetric, list[float]]]:
    """Kendall's tau between the orders of the methods, the reference left out."""
    signs = {m.name: 1.0 if m.direction == "max" else -1.0 for m in metrics}
    scores = {n: {m: s * v.value for m, v in values[n].items() if m != REFERENCE} for n, s in signs.items()}
    tau = rank_agreement(scores)
    return [(m, [float(v) for v in tau.loc[m.name]]) for m in metrics]


def pairing(sheets: Iterable[Sheet]) -> dict[str, float]:
    """Task -> spread of the differences when seeds are paired, over what it would be unpaired.

    From the reference and the `PAIRS` best methods of each task, which is
    enough for a ratio and bounds the time; tasks where it is unknown are left out.
    """
    usable = [s for s in sheets if s.reference is not None and s.reference.n > 1]
    cells = [c for s in usable for c in [s.reference, *[o for o in s.ranked if o is not s.reference][:PAIRS]] if c]
    runs = [r for c in cells for r in c.runs if r.status != NOT_RUN]
    if not runs:
        return {}
    frame: pd.DataFrame = pairing_gain(stats_frame(runs))
    known = zip(frame["task"], frame["ratio"], strict=True)
    return {str(task): float(ratio) for task, ratio in known if math.isfinite(ratio)}


def describe(value: Value, metric: BoardMetric) -> tuple[str, str]:
    """(value, interval) of an aggregate as text."""

    def text(x: float) -> str:
        if metric.unit == "share":
            return f"{100 * x:.0f}%"
        if metric.name == "elo":
            return fixed(x, 0)
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
