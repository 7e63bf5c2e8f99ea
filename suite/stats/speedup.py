"""Effective speedup: the headline, per cell and over the suite."""

from __future__ import annotations

import numpy as np
import pandas as pd

from suite.stats.board import Board, as_board
from suite.stats.intervals import Interval, exact_mean, mean_interval, sample_sd, satterthwaite, t_half_width
from suite.stats.ladder import LOG2_CLIP, effective_speedup
from suite.stats.resample import FloatArray

__all__ = ["cell_speedups", "effective_speedup", "ladder_report", "seed_interval", "suite_speedups"]


def _speedup_board(runs: pd.DataFrame | Board, ladder: pd.DataFrame | None) -> Board:
    board = as_board(runs, ladder)
    if board.rungs is None:
        raise ValueError("an effective speedup needs the reference ladder")
    return board


def cell_speedups(runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None) -> pd.DataFrame:
    """Effective speedup of every (task, method) with its interval over seeds.

    The mean final score of the finished runs is read on the reference ladder
    (monotone, log budget, clipped to [1/4, 4]); a failed run counts 1/4 with its
    share of the attempts, in log2. The interval draws method and ladder
    together by the Student multiplier bootstrap, so that for normal scores and
    a locally linear ladder it is the paired t-interval.

    Returns
    -------
    DataFrame with columns task, method, speedup, low, high (factors), n
    (finished), failed, ladder_seeds (fewest runs of a rung; with 1 the ladder's
    own noise is not in the interval). Bounds are nan below two finished runs.
    """
    board = _speedup_board(runs, ladder)
    value, bounds = np.exp2(board.values), np.exp2(board.cell_bounds())
    finished, failed = board.counts
    names, tasks = board.cells.methods, board.cells.tasks
    fewest = [min(len(arm.utility) for arm in scale.arms) for scale in board.scales]
    keep = [(t, m) for t in range(len(tasks)) for m in range(len(names)) if np.isfinite(value[m, t])]
    t_index, m_index = (np.array([pair[i] for pair in keep], dtype=np.int64) for i in (0, 1))
    return pd.DataFrame(
        {
            "task": [tasks[t] for t in t_index],
            "method": [names[m] for m in m_index],
            "speedup": value[m_index, t_index],
            "low": bounds[m_index, t_index, 0],
            "high": bounds[m_index, t_index, 1],
            "n": finished[m_index, t_index],
            "failed": failed[m_index, t_index],
            "ladder_seeds": [fewest[t] for t in t_index],
        }
    )


def seed_interval(values: FloatArray, variances: FloatArray, freedom: FloatArray, level: float) -> Interval:
    """Interval of a mean over fixed tasks, from each task's value, its variance over seeds and their df.

    All (T,). mean +- t_df sqrt(sum v) / T with df by `satterthwaite`; nan
    bounds where a task's variance is unknown.
    """
    mean, count = exact_mean(values), len(values)
    total = float(np.sum(variances))
    if not np.isfinite(total):
        return Interval(mean, np.nan, np.nan, count, "none")
    half = float(t_half_width(np.sqrt(total), count**2, level, df=satterthwaite(variances, freedom)))
    return Interval(mean, mean - half, mean + half, count, "t")


def _factor(value: float) -> float:
    return float(np.exp2(np.clip(value, -LOG2_CLIP, LOG2_CLIP)))


def suite_speedups(runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None) -> pd.DataFrame:
    """Geometric mean of the effective speedups over tasks, with two intervals.

    - low, high: over tasks **and** seeds. Whole tasks are resampled with the
      seeds in them: the spread of the tasks' values is between-task variance
      plus seed variance / n already, and drawing seeds again inside a drawn task
      would count the seeds twice (Davison and Hinkley 1997, section 3.8; Rao
      and Wu 1988). Student-t for up to 10 tasks, expanded BCa above
      (`mean_interval`); nan for one task.
    - seeds_low, seeds_high: over seeds only, for exactly these tasks
      (`seed_interval`).

    A row depends on its own runs, the reference's and the ladder only: adding a
    method leaves the other rows bit-equal.

    Returns
    -------
    DataFrame with columns method, speedup, low, high, seeds_low, seeds_high
    (factors in [1/4, 4]), tasks (counted in the mean), coverage (share of the board's tasks
    attempted), failed (runs).
    """
    board = _speedup_board(runs, ladder)
    rows = []
    for m, method in enumerate(board.cells.methods):
        counted = np.isfinite(board.values[m])
        values = board.values[m, counted]
        if len(values) == 0:
            continue
        both = mean_interval(values, board.level, board.rounds, board.seed)
        seeds = seed_interval(values, board.variances[m, counted], board.freedom[m, counted].astype(float), board.level)
        bounds = [_factor(x) for x in (both.value, both.low, both.high, seeds.low, seeds.high)]
        share = float(np.mean(board.covered[m]))
        rows.append((method, *bounds, len(values), share, int(board.counts[1][m].sum())))
    columns = ["method", "speedup", "low", "high", "seeds_low", "seeds_high", "tasks", "coverage", "failed"]
    return pd.DataFrame(rows, columns=columns)


def ladder_report(runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None) -> pd.DataFrame:
    """How well each task's ladder resolves a speedup.

    Returns
    -------
    DataFrame with columns task, rungs, ladder_seeds (fewest runs of a rung),
    monotone (the rung means already increase with budget), span (gain from the
    lowest to the highest rung in the reference's seed standard deviations),
    resolution (factor that one such standard deviation below the reference reads:
    1 is sharp, 1/4 means that noise alone spans the whole scale) and sharp
    (`Board.sharp`: whether the task should count in an effective speedup).
    """
    board = _speedup_board(runs, ladder)
    rows = []
    for t, scale in enumerate(board.scales):
        means = np.array([arm.mean for arm in scale.arms])
        reference = board.arms[t][board.cells.reference]
        sd = sample_sd(reference.utility) if len(reference.utility) > 1 else np.nan
        one_down = scale.read(np.array(reference.mean - sd), means)
        span = float(means[-1] - means[0]) / sd if sd > 0 else np.nan
        fewest = min(len(arm.utility) for arm in scale.arms)
        monotone = bool(np.all(np.diff(means) >= 0))
        sharp = bool(board.sharp[t])
        rows.append((board.cells.tasks[t], len(means), fewest, monotone, span, float(np.exp2(one_down)), sharp))
    return pd.DataFrame(rows, columns=["task", "rungs", "ladder_seeds", "monotone", "span", "resolution", "sharp"])
