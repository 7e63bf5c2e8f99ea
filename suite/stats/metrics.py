"""The board's columns: one registered metric each, with what a reader needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from suite.stats.aggregate import iqm, profile_area, profiles, win_rates
from suite.stats.board import Board, as_board, others
from suite.stats.elo import elo_ratings
from suite.stats.intervals import wilson_interval
from suite.stats.ranks import mean_ranks, rank_intervals, tie_letters
from suite.stats.speedup import suite_speedups
from suite.stats.stability import rank_agreement

Compute = Callable[[Board], pd.DataFrame]


@dataclass(frozen=True)
class BoardMetric:
    """A column of the board.

    Attributes
    ----------
    name : key, as in the tables.
    title : heading.
    unit : what one unit of it is.
    direction : "max" when larger is better, else "min".
    formula : what it is, in words.
    compute : board -> DataFrame with columns method, value, low, high.
    source : where the definition comes from; "" for this project's own.
    needs_ladder : whether it exists only with the reference ladder.
    depends_on_pool : whether adding a method can move another's value.
    """

    name: str
    title: str
    unit: str
    direction: str
    formula: str
    compute: Compute
    source: str = ""
    needs_ladder: bool = False
    depends_on_pool: bool = False


def _columns(table: pd.DataFrame, value: str, low: str = "low", high: str = "high") -> pd.DataFrame:
    names = {"method": "method", "value": value, "low": low, "high": high}
    return pd.DataFrame({name: table[column].array for name, column in names.items()})


def _plain(board: Board, values: np.ndarray) -> pd.DataFrame:
    """A metric without an interval."""
    return pd.DataFrame({"method": list(board.cells.methods), "value": values, "low": np.nan, "high": np.nan})


def _speedup(board: Board) -> pd.DataFrame:
    return _columns(suite_speedups(board), "speedup")


def _speedup_seeds(board: Board) -> pd.DataFrame:
    table = suite_speedups(board).drop(columns=["low", "high"])
    return _columns(table, "speedup", "seeds_low", "seeds_high")


def _iqm(board: Board) -> pd.DataFrame:
    table = iqm(board)
    if board.rungs is not None:
        table[["iqm", "low", "high"]] = np.exp2(table[["iqm", "low", "high"]])
    return _columns(table, "iqm")


def _profile_area(board: Board) -> pd.DataFrame:
    wide = profiles(board).pivot(index="method", columns="tau", values="share").reindex(list(board.cells.methods))
    return _plain(board, profile_area(wide.to_numpy(), wide.columns.to_numpy(dtype=np.float64)))


def _coverage(board: Board) -> pd.DataFrame:
    return _plain(board, board.covered.mean(axis=1))


def _failed(board: Board) -> pd.DataFrame:
    finished, failed = (count.sum(axis=1) for count in board.counts)
    found = [wilson_interval(int(k), int(k + n), board.level) for n, k in zip(finished, failed, strict=True)]
    rows = [(name, x.value, x.low, x.high) for name, x in zip(board.cells.methods, found, strict=True)]
    return pd.DataFrame(rows, columns=["method", "value", "low", "high"])


_ALL = (
    BoardMetric(
        name="speedup",
        title="effective speedup",
        unit="factor",
        direction="max",
        formula="Budget the frozen reference needs to reach the method's final score, over the method's budget; "
        "geometric mean over tasks, clipped to [1/4, 4]; a failed run counts 1/4. Interval over tasks and seeds. "
        "Ladders bend at the reference: a method that equals it reads 1.02 to 1.04 on average at 5 to 3 seeds.",
        compute=_speedup,
        needs_ladder=True,
    ),
    BoardMetric(
        name="speedup_seeds",
        title="effective speedup, these tasks",
        unit="factor",
        direction="max",
        formula="The effective speedup with its interval over seeds only: these tasks, other seeds.",
        compute=_speedup_seeds,
        needs_ladder=True,
    ),
    BoardMetric(
        name="iqm",
        title="interquartile mean",
        unit="factor; reference sd without a ladder",
        direction="max",
        formula="Mean of the middle half of all runs' values over all tasks, each task weighing the same. A run's "
        "value is log2 of its effective speedup, turned back into a factor at the end; without a ladder its "
        "difference to the reference in the reference's seed sd. Interval over seeds.",
        compute=_iqm,
        source="Agarwal et al. 2021, arXiv 2108.13264",
    ),
    BoardMetric(
        name="win_rate",
        title="win rate",
        unit="share",
        direction="max",
        formula="Share of runs better than the reference's run of the same task and seed, ties a half, a failed run "
        "a loss; each task weighing the same.",
        compute=lambda board: _columns(win_rates(board), "win_rate"),
    ),
    BoardMetric(
        name="elo",
        title="Elo",
        unit="points",
        direction="max",
        formula="Bradley-Terry strength from all pairs of runs of the same task and seed, on the Elo scale with the "
        "reference at 1000. Moves when a method is added.",
        compute=lambda board: _columns(elo_ratings(board), "elo"),
        source="Bradley and Terry 1952",
        depends_on_pool=True,
    ),
    BoardMetric(
        name="mean_rank",
        title="mean rank",
        unit="rank",
        direction="min",
        formula="Rank of the method's mean score on each task, as it stands to the reference's on the same seeds, "
        "failed cells last, averaged over tasks. Moves when a method is added.",
        compute=lambda board: _columns(mean_ranks(board), "mean_rank"),
        depends_on_pool=True,
    ),
    BoardMetric(
        name="profile_area",
        title="profile area",
        unit="share",
        direction="max",
        formula="Area under the performance profile: the share of tasks on which the method is within a factor tau "
        "of the best method's effective speedup, averaged over tau from 1 to 16. Moves when a method is added.",
        compute=_profile_area,
        source="Dolan and More 2002; Dahl et al. 2023, arXiv 2306.07179",
        needs_ladder=True,
        depends_on_pool=True,
    ),
    BoardMetric(
        name="coverage",
        title="coverage",
        unit="share",
        direction="max",
        formula="Share of the board's tasks that the method was run on.",
        compute=_coverage,
    ),
    BoardMetric(
        name="failed",
        title="failed runs",
        unit="share",
        direction="min",
        formula="Share of the attempted runs that did not finish, with Wilson's interval over all of them.",
        compute=_failed,
    ),
)
METRICS: dict[str, BoardMetric] = {metric.name: metric for metric in _ALL}
NOT_QUALITY = ("speedup_seeds", "coverage", "failed")


def available(board: Board, names: Iterable[str] | None = None) -> list[BoardMetric]:
    """The metrics of these names, in order (all that the board can give, where None).

    Raises
    ------
    KeyError : no such metric. ValueError : it needs a ladder that the board lacks.
    """
    if names is None:
        return [m for m in METRICS.values() if board.rungs is not None or not m.needs_ladder]
    chosen = []
    for name in names:
        if name not in METRICS:
            raise KeyError(f"no metric {name!r}; there are {', '.join(METRICS)}")
        if METRICS[name].needs_ladder and board.rungs is None:
            raise ValueError(f"metric {name!r} needs the reference ladder")
        chosen.append(METRICS[name])
    return chosen


def board_table(
    runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None, names: Iterable[str] | None = None
) -> pd.DataFrame:
    """The whole board: every metric of every method, ranks with intervals, and tie letters.

    Returns
    -------
    DataFrame with one row a method, best first: method, rank, rank_low,
    rank_high, letters (over tasks on a board of several; see `compare_all`) and
    for each metric its name, name_low and name_high. Methods that were never attempted
    come last, without a rank.
    """
    board = as_board(runs, ladder)
    ranks = rank_intervals(board).rename(columns={"low": "rank_low", "high": "rank_high"})
    letters = tie_letters(board)
    never = [name for name in board.cells.methods if name not in letters]
    out = pd.concat(
        [ranks.astype({"rank": "Int64", "rank_low": "Int64", "rank_high": "Int64"}), pd.DataFrame({"method": never})],
        ignore_index=True,
    )
    out["letters"] = [letters.get(name, "") for name in out["method"]]
    for metric in available(board, names):
        found = metric.compute(board)
        found.columns = pd.Index(["method", metric.name, f"{metric.name}_low", f"{metric.name}_high"])
        out = out.merge(found, on="method", how="left")
    return out


def metric_agreement(runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None) -> pd.DataFrame:
    """Kendall's tau-b between the board's quality metrics (see `rank_agreement`).

    The reference is left out where a metric does not score it.
    """
    board = as_board(runs, ladder)
    wanted = [m for m in available(board) if m.name not in NOT_QUALITY]
    compared = {board.cells.methods[m] for m in others(board)}
    scores = {}
    for metric in wanted:
        sign = 1.0 if metric.direction == "max" else -1.0
        rows = metric.compute(board)
        values = zip(rows["method"], rows["value"], strict=True)
        scores[metric.name] = {str(name): sign * float(value) for name, value in values if name in compared}
    return rank_agreement(scores)
