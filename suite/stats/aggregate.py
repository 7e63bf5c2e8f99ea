"""Aggregates beside the headline: IQM, performance and score profiles, win rates."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri, stdtrit

from suite.stats.board import Board, as_board, others
from suite.stats.intervals import Interval, exact_mean, satterthwaite, wilson_interval
from suite.stats.resample import BoolArray, FloatArray, resample_counts

DEFAULT_TAUS = 2.0 ** np.linspace(0.0, 4.0, 65)  # ratios of speedups in [1/4, 4] lie in [1, 16]


def interquartile_mean(values: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> FloatArray:
    """Mean of the middle half of the values, the quarters cut exactly (a value on the cut counts in part).

    Agarwal et al. (2021), "Deep reinforcement learning at the edge of the
    statistical precipice"; for equal weights and a count divisible by 4 this is
    the 25% trimmed mean.

    Parameters
    ----------
    values : (n,) finite values.
    weights : (..., n) non-negative weights; equal unless given.

    Returns
    -------
    (...,) interquartile means, one for each row of weights.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    if x.size == 0 or not np.all(np.isfinite(x)):
        raise ValueError("an interquartile mean needs finite values: failed runs must have been given theirs")
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    order = np.argsort(x, kind="stable")
    upto = np.cumsum(w[..., order], axis=-1)
    total = upto[..., -1:]
    inside = np.clip(upto, 0.25 * total, 0.75 * total)
    share = np.diff(inside, axis=-1, prepend=0.25 * total)
    return np.asarray((share / (0.5 * total)) @ x[order], dtype=np.float64)


def _task_blocks(values: FloatArray) -> list[FloatArray]:
    """Run values of each task that has any, from (T, S) with nan where there is no run."""
    return [row[np.isfinite(row)] for row in values if np.isfinite(row).any()]


@lru_cache(maxsize=8)
def _stratified_weights(sizes: tuple[int, ...], rounds: int, seed: int) -> FloatArray:
    """Resampled weights (rounds, sum n_t): n_t - 1 draws in each task, every task with total weight 1; read-only."""
    parts = [resample_counts(rounds, n, n - 1, seed, "stratum", t, n) / (n - 1) for t, n in enumerate(sizes)]
    weights = np.concatenate(parts, axis=1)
    weights.flags.writeable = False
    return weights


def iqm_interval(blocks: list[FloatArray], level: float = 0.95, rounds: int = 1000, seed: int = 0) -> Interval:
    """Interquartile mean over the runs of all tasks, each task with the same weight, with its interval over seeds.

    The hull of two intervals, each stratified by task: a bootstrap that draws
    n - 1 of a task's n runs (n of n, as usual, has (n - 1) / n of the variance)
    with its percentiles stretched to Student's t; and the jackknife's t-interval.
    The first is short where tasks have two runs, the second where there are few
    runs in all; the hull holds its level at both (simulated in the tests).

    Parameters
    ----------
    blocks : run values of each task, (n_t,) each; bounds are nan where an n_t is 1.
    """
    sizes = [len(block) for block in blocks]
    values = np.concatenate(blocks)
    weights = np.concatenate([np.full(n, 1.0 / n) for n in sizes])
    value = float(interquartile_mean(values, weights))
    if min(sizes) < 2:
        return Interval(value, np.nan, np.nan, len(values), "none")
    tail = float(stdtrit(sum(sizes) - len(sizes), 0.5 + 0.5 * level))
    stretch = tail / float(ndtri(0.5 + 0.5 * level))
    draws = interquartile_mean(values, _stratified_weights(tuple(sizes), rounds, seed))
    bounds = value + stretch * (np.quantile(draws, [0.5 - 0.5 * level, 0.5 + 0.5 * level]) - value)
    half = _jackknife_half_width(values, sizes, level)
    low, high = min(float(bounds[0]), value - half), max(float(bounds[1]), value + half)
    return Interval(value, low, high, len(values), "percentile")


def _jackknife_half_width(values: FloatArray, sizes: list[int], level: float) -> float:
    """Half width of the jackknife's t-interval of the IQM, one run left out of its task at a time."""
    weights = np.tile(np.concatenate([np.full(n, 1.0 / n) for n in sizes]), (len(values), 1))
    starts = np.cumsum([0, *sizes])
    for start, n in zip(starts, sizes, strict=False):
        weights[start : start + n, start : start + n] = (1.0 - np.eye(n)) / (n - 1)
    left_out = interquartile_mean(values, weights)
    parts = [left_out[start : start + n] for start, n in zip(starts, sizes, strict=False)]
    variances = [(len(part) - 1) ** 2 / len(part) * float(np.var(part, ddof=1)) for part in parts]
    df = float(satterthwaite(variances, [n - 1 for n in sizes]))
    return float(stdtrit(df, 0.5 + 0.5 * level)) * float(np.sqrt(np.sum(variances)))


def iqm(runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None) -> pd.DataFrame:
    """IQM of every method over the runs of all its tasks, on the board's scale.

    Each run's value is `Board.run_values` (log2 speedup with a ladder, failed
    runs at the floor), so no run is dropped and no other method matters.

    Returns
    -------
    DataFrame with columns method, iqm, low, high (log2 speedup, or reference sd) and n (runs).
    """
    board = as_board(runs, ladder)
    rows = []
    for m, method in enumerate(board.cells.methods):
        blocks = _task_blocks(board.run_values[m])
        if blocks:
            found = iqm_interval(blocks, board.level, board.rounds, board.seed)
            rows.append((method, found.value, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=["method", "iqm", "low", "high", "n"])


def performance_profile(costs: npt.ArrayLike, taus: npt.ArrayLike = DEFAULT_TAUS) -> FloatArray:
    """Share of tasks that each method does within a factor tau of the best: rho(tau).

    Dolan and More (2002), "Benchmarking optimization software with performance
    profiles": r = cost / (lowest cost on the task), rho(tau) = share of r <= tau.

    Parameters
    ----------
    costs : (M, T) positive costs, smaller is better; inf for a failed cell, which is within no factor.
    taus : (K,) factors, >= 1.

    Returns
    -------
    (M, K). A task where every method failed counts as done by none.
    """
    cost, tau = np.asarray(costs, dtype=np.float64), np.asarray(taus, dtype=np.float64)
    if cost.ndim != 2 or not np.all(cost > 0):
        raise ValueError("costs must be positive, (methods, tasks); nan is not a cost")
    with np.errstate(invalid="ignore"):
        ratio = cost / cost.min(axis=0)
    ratio = np.where(np.isfinite(cost), ratio, np.inf)
    return np.asarray((ratio[:, :, None] <= tau * (1 + 1e-12)).mean(axis=1), dtype=np.float64)


def profile_area(profile: npt.ArrayLike, taus: npt.ArrayLike = DEFAULT_TAUS) -> FloatArray:
    """Area under a profile over [tau_1, tau_K] divided by its width: (..., K) -> (...,) in [0, 1].

    Dahl et al. (2023), "Benchmarking neural network training algorithms".
    """
    rho, tau = np.asarray(profile, dtype=np.float64), np.asarray(taus, dtype=np.float64)
    middle = 0.5 * (rho[..., 1:] + rho[..., :-1])
    return np.asarray(np.sum(middle * np.diff(tau), axis=-1) / (tau[-1] - tau[0]), dtype=np.float64)


def profiles(
    runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None, taus: npt.ArrayLike = DEFAULT_TAUS
) -> pd.DataFrame:
    """Performance profile of every method, its cost on a task being 1 / effective speedup.

    A cell with no finished run, or never attempted, is within no factor.

    Returns
    -------
    DataFrame with columns method, tau, share.
    """
    board = as_board(runs, ladder).attempted
    if board.rungs is None:
        raise ValueError("performance profiles need a ratio scale: give the reference ladder")
    finished = board.counts[0] > 0
    costs = np.where(finished, np.exp2(-np.nan_to_num(board.values)), np.inf)
    return _long(board, np.asarray(taus, dtype=np.float64), performance_profile(costs, taus))


def _long(board: Board, taus: FloatArray, shares: FloatArray) -> pd.DataFrame:
    names = np.repeat(np.array(board.cells.methods, dtype=object), len(taus))
    return pd.DataFrame({"method": names, "tau": np.tile(taus, len(shares)), "share": shares.ravel()})


def score_profiles(
    runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None, taus: npt.ArrayLike | None = None
) -> pd.DataFrame:
    """Share of runs whose value exceeds tau, averaged over tasks, with a pointwise band over seeds.

    The run-score distribution of Agarwal et al. (2021) on the board's scale; the
    band is the stratified bootstrap's, n - 1 draws a task.

    Returns
    -------
    DataFrame with columns method, tau (log2 speedup, or reference sd), share, low, high;
    the band is nan where a task has one run.
    """
    board = as_board(runs, ladder)
    floor = min(scale.floor for scale in board.scales)
    grid = np.linspace(floor, -floor, 65) if taus is None else np.asarray(taus, dtype=np.float64)
    tails = [0.5 - 0.5 * board.level, 0.5 + 0.5 * board.level]
    frames = []
    for m, method in enumerate(board.cells.methods):
        blocks = _task_blocks(board.run_values[m])
        if not blocks:
            continue
        sizes = [len(block) for block in blocks]
        above = (np.concatenate(blocks)[:, None] > grid).astype(np.float64)
        share = np.concatenate([np.full(n, 1.0 / n) for n in sizes]) @ above / len(sizes)
        band = np.full((2, len(grid)), np.nan)
        if min(sizes) > 1:
            draws = _stratified_weights(tuple(sizes), board.rounds, board.seed) @ above / len(sizes)
            band = np.quantile(draws, tails, axis=0)
        frames.append(pd.DataFrame({"method": method, "tau": grid, "share": share, "low": band[0], "high": band[1]}))
    return pd.concat(frames, ignore_index=True)


def paired_outcomes(
    first: FloatArray, first_tried: BoolArray, second: FloatArray, second_tried: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Who beats whom, run by run; all arguments broadcast.

    Parameters
    ----------
    first, second : utilities, larger is better, nan where a run did not finish.
    first_tried, second_tried : whether the run was attempted.

    Returns
    -------
    wins : 1 where `first` is better, 1/2 for a tie, else 0; a failed run loses
        to a finished one and ties with a failed one.
    played : 1 where both were attempted, else 0 (and wins is 0).
    """
    a, b = np.where(np.isnan(first), -np.inf, first), np.where(np.isnan(second), -np.inf, second)
    played = first_tried & second_tried
    wins = np.where(played, (a > b) + 0.5 * (a == b), 0.0)
    return wins, played.astype(np.float64)


def outcomes(board: Board) -> tuple[FloatArray, FloatArray]:
    """`paired_outcomes` of every method (rows) against every other (columns): two (M, M, T, S)."""
    u, tried = board.cells.utility, board.cells.attempted
    return paired_outcomes(u[:, None], tried[:, None], u[None, :], tried[None, :])


def _task_rates(wins: FloatArray, played: FloatArray) -> FloatArray:
    """Win rate by task, (..., T, S) -> (..., T); nan where nothing was played."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(wins.sum(axis=-1) / played.sum(axis=-1), dtype=np.float64)


def win_rate_interval(rates: FloatArray, pairs: FloatArray, level: float = 0.95) -> Interval:
    """Mean win rate over tasks with Wilson's interval on an effective number of pairs.

    Runs of one task are alike, so the number of pairs is reduced to p (1 - p) /
    Var(mean of the task rates), between the number of tasks and of pairs, with
    Student's t of tasks - 1 degrees of freedom (Korn and Graubard 1998,
    "Confidence intervals for proportions with small expected number of positive
    counts"). At or above its level; wide below about 8 tasks. One task: Wilson
    over its pairs.

    Parameters
    ----------
    rates : (T,) win rate by task.
    pairs : (T,) number of pairs by task.
    """
    p, tasks, total = exact_mean(rates), len(rates), float(np.sum(pairs))
    if tasks == 1:
        return wilson_interval(p * total, total, level)
    effective = float(tasks)
    if 0 < p < 1:
        variance = float(np.var(rates, ddof=1)) / tasks
        effective = min(max(p * (1 - p) / variance, effective), total) if variance > 0 else total
    quantile = float(stdtrit(tasks - 1, 0.5 + 0.5 * level))
    found = wilson_interval(min(p * effective, effective), effective, level, quantile)
    return found._replace(value=p, n=round(total))


def win_rates(runs: pd.DataFrame | Board) -> pd.DataFrame:
    """Share of runs that beat the reference's run of the same task and seed, tasks weighing the same.

    Returns
    -------
    DataFrame with columns method, win_rate, low, high, pairs; the reference itself is left out.
    """
    board = as_board(runs)
    u, tried, r = board.cells.utility, board.cells.attempted, board.cells.reference
    rows = []
    for m in others(board):
        wins, played = paired_outcomes(u[m], tried[m], u[r], tried[r])
        rate, pairs = _task_rates(wins, played), played.sum(axis=-1)
        known = pairs > 0
        if known.any():
            found = win_rate_interval(rate[known], pairs[known], board.level)
            rows.append((board.cells.methods[m], found.value, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=["method", "win_rate", "low", "high", "pairs"])


def pairwise_win_rates(runs: pd.DataFrame | Board) -> pd.DataFrame:
    """Win rate of each row's method against each column's, tasks weighing the same; nan where never paired."""
    board = as_board(runs).attempted
    rates = _task_rates(*outcomes(board))
    known = np.isfinite(rates)
    with np.errstate(invalid="ignore"):
        table = np.where(known, rates, 0.0).sum(axis=-1) / known.sum(axis=-1)
    np.fill_diagonal(table, np.nan)
    return pd.DataFrame(table, index=list(board.cells.methods), columns=list(board.cells.methods))
