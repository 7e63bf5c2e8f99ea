"""Ranks with intervals, and which methods are separated at all."""

from __future__ import annotations

import string
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtr

from suite.stats.board import Board, as_board
from suite.stats.intervals import exact_mean, t_half_width
from suite.stats.resample import BoolArray, FloatArray
from suite.stats.table import REFERENCE

Over = Literal["tasks", "seeds"]


class Comparisons(NamedTuple):
    """All pairs of methods of a board, in arrays over (M, M); the diagonal is 0 or 1.

    Attributes
    ----------
    methods : names, best first.
    value : (M,) mean value of each method, on the board's scale.
    difference : (M, M) row minus column.
    p : (M, M) two-sided p; 1 where the data cannot test the pair.
    adjusted : (M, M) p by Holm over all pairs.
    separated : (M, M) adjusted p < alpha.
    """

    methods: tuple[str, ...]
    value: FloatArray
    difference: FloatArray
    p: FloatArray
    adjusted: FloatArray
    separated: BoolArray


def holm(p: npt.ArrayLike) -> FloatArray:
    """p values adjusted for testing all of them: Holm (1979), (n,) -> (n,).

    The i-th smallest is multiplied by n - i + 1, kept non-decreasing and at
    most 1; rejecting where the result is < alpha errs anywhere at most alpha often.
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise ValueError("p values are a 1-d array in [0, 1]")
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    out = np.empty_like(values)
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return out


def benjamini_hochberg(p: npt.ArrayLike) -> FloatArray:
    """p values adjusted for the share of false discoveries: Benjamini and Hochberg (1995), (n,) -> (n,).

    The i-th smallest is multiplied by n / i, kept non-decreasing and at most 1.
    Of what is rejected where the result is <= q, at most a share q is false on
    average, wrong signs counted in (Benjamini and Yekutieli 2005), for tests
    that are independent or positively dependent.
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise ValueError("p values are a 1-d array in [0, 1]")
    falling = np.argsort(-values, kind="stable")
    scaled = values[falling] * len(values) / np.arange(len(values), 0, -1)
    out = np.empty_like(values)
    out[falling] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return out


def average_ranks(values: FloatArray) -> FloatArray:
    """Ranks along the first axis, 1 for the largest, ties sharing their mean rank: (M, ...) -> (M, ...)."""
    above = (values[None] > values[:, None]).sum(axis=1)
    tied = (values[None] == values[:, None]).sum(axis=1)
    return np.asarray(1.0 + above + 0.5 * (tied - 1), dtype=np.float64)


def task_utilities(board: Board) -> FloatArray:
    """(M, T) mean utility of every cell, paired with the reference's by seed; failed: the task's worst finished run.

    A cell with nothing but failures, or never attempted, is -inf: last.
    """
    u = board.cells.utility
    finished, failed = board.counts
    worst = np.array([np.nanmin(row) if np.isfinite(row).any() else 0.0 for row in u.transpose(1, 0, 2)])
    with np.errstate(invalid="ignore"):
        mean = (finished * np.nan_to_num(board.paired_means) + failed * worst) / (finished + failed)
    return np.where(finished > 0, np.where(failed > 0, mean, board.paired_means), -np.inf)


def task_ranks(runs: pd.DataFrame | Board) -> pd.DataFrame:
    """Rank of every method on every task, 1 is best; ties share their mean rank, failed cells share the last.

    Returns
    -------
    DataFrame indexed by method with one column a task.
    """
    board = as_board(runs).attempted
    ranks = average_ranks(task_utilities(board))
    return pd.DataFrame(ranks, index=list(board.cells.methods), columns=list(board.cells.tasks))


def mean_ranks(runs: pd.DataFrame | Board) -> pd.DataFrame:
    """Mean over tasks of each method's rank, with its t-interval over tasks (nan for one task).

    Ranks are whole numbers: the variance of rounding, 1/12, is added to
    theirs, so that a few equal ranks do not pass for certainty.

    Returns
    -------
    DataFrame with columns method, mean_rank, low, high; best first.
    """
    board = as_board(runs).attempted
    ranks = task_ranks(board)
    array = ranks.to_numpy(dtype=np.float64)
    count = array.shape[1]
    mean = np.array([exact_mean(row) for row in array])
    spread = np.var(array, axis=1, ddof=1) + 1.0 / 12.0 if count > 1 else np.full(len(mean), np.nan)
    half = t_half_width(np.sqrt(spread), count, board.level)
    low, high = np.clip(mean - half, 1.0, len(mean)), np.clip(mean + half, 1.0, len(mean))
    frame = pd.DataFrame({"method": list(ranks.index), "mean_rank": mean, "low": low, "high": high})
    return frame.sort_values(["mean_rank", "method"], kind="stable").reset_index(drop=True)


def compare_all(
    runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None, *, over: Over | None = None, alpha: float = 0.05
) -> Comparisons:
    """Test every pair of methods by paired t, Holm-corrected over all pairs.

    - over="tasks": the units are tasks; t of the differences of the tasks'
      values, T - 1 degrees of freedom. Says what would hold on other tasks of
      this kind. The default for two tasks or more.
    - over="seeds": these tasks, other seeds; the standard error is that of the
      seeds, paired within each task (`Board.moves`). The default for one task,
      whose scores are compared as they stand to the reference's runs of the same
      seeds, a failed run counting as the worst finished run of the task.

    A pair with fewer than two tasks (seeds) in common, or with a seed spread
    that is unknown on some task, is not separated.
    """
    board = as_board(runs, ladder)
    single = len(board.cells.tasks) == 1
    way = over or ("seeds" if single else "tasks")
    if way not in ("tasks", "seeds"):
        raise ValueError(f"over must be 'tasks' or 'seeds', got {over!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    values, moves, freedom = _single_task(board) if single else (board.values, None, None)
    known = [m for m in range(len(values)) if np.isfinite(values[m]).any()]
    means = np.array([exact_mean(values[m][np.isfinite(values[m])]) for m in known])
    order = [known[i] for i in np.lexsort((np.array(known), -means))]
    value = -np.sort(-means)
    if way == "tasks":
        difference, p = _over_tasks(values[order])
    else:
        moves = board.moves if moves is None else moves
        freedom = board.freedom if freedom is None else freedom
        difference, p = _over_seeds(values[order], moves[order], freedom[order])
    adjusted = _holm_matrix(p)
    return Comparisons(tuple(board.cells.methods[m] for m in order), value, difference, p, adjusted, adjusted < alpha)


def _single_task(board: Board) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Values (M, 1), moves (M, 1, S) and degrees of freedom (M, 1) of a board of one task, in units of its scores."""
    tried, (u, together) = board.cells.attempted[:, 0], _one_task_utilities(board)
    if not np.isfinite(u).any():
        u = np.where(tried, 0.0, np.nan)
    runs = np.where(board.cells.failed[:, 0], np.nanmin(u), u)
    n = tried.sum(axis=1)
    value = np.array([exact_mean(row[np.isfinite(row)]) for row in runs])
    with np.errstate(invalid="ignore", divide="ignore"):
        moves = (runs - value[:, None]) / np.sqrt(n * (n - 1.0))[:, None]
    moves = np.where(tried, moves, 0.0) + together
    moves[n < 2] = np.nan
    return value[:, None], moves[:, None], np.maximum(n - 1, 1)[:, None]


def _one_task_utilities(board: Board) -> tuple[FloatArray, FloatArray]:
    """(M, S) utilities of a board of one task, and how far each seed moves all of a method's at once.

    Where the reference finished they are the gaps to it (`Board.gaps`), and move
    with its mean as far as they are paired with its runs: what all methods have
    in common, the luck of the seeds that one was run on, is in no difference of two.
    """
    u = board.cells.utility[:, 0]
    base = u[board.cells.reference] if REFERENCE in board.cells.methods else np.full(u.shape[1], np.nan)
    n = int(np.isfinite(base).sum())
    if not n:
        return u, np.zeros_like(u)
    finished = np.isfinite(u)
    shared = (finished & np.isfinite(base)).sum(axis=1) / np.maximum(finished.sum(axis=1), 1)
    moved = np.nan_to_num(base - np.nanmean(base)) / np.sqrt(max(n * (n - 1.0), 1.0))
    return board.gaps[:, 0], np.outer(shared, moved)


def _p_values(mean: FloatArray, error: FloatArray, df: FloatArray) -> FloatArray:
    """Two-sided p of t = mean / error; no error at all: 0 or 1; nan anywhere: 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2.0 * stdtr(df, -np.abs(mean) / error)
    p = np.where(error > 0, p, np.where(mean != 0, 0.0, 1.0))
    return np.where(np.isfinite(mean) & np.isfinite(error) & np.isfinite(df), p, 1.0)


def _over_tasks(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    d = values[:, None] - values[None, :]
    known = np.isfinite(d)
    count = known.sum(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, d, 0.0).sum(axis=2) / count
        square = np.where(known, (d - mean[..., None]) ** 2, 0.0).sum(axis=2)
        error = np.sqrt(square / (count - 1) / count)
    df = np.where(count > 1, count - 1.0, np.nan)
    return mean, _p_values(mean, np.where(error > 1e-12 * np.abs(mean), error, 0.0), df)


def _over_seeds(values: FloatArray, moves: FloatArray, freedom: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Mean differences and p values over fixed tasks, with the seeds' error.

    The degrees of freedom lie half way between Satterthwaite's and their lower
    bound, the smallest df of a task (Mickey and Brown 1966): corrected for many
    pairs, the test lives far out in the tails, where Satterthwaite's t is too
    light at few seeds (simulated in the tests).
    """
    shape = (len(values), len(values))
    total, count, variance, fourth = (np.zeros(shape) for _ in range(4))
    fewest = np.full(shape, np.inf)
    for t in range(values.shape[1]):
        d = values[:, None, t] - values[None, :, t]
        v = np.sum((moves[:, None, t] - moves[None, :, t]) ** 2, axis=2)
        df = np.minimum(freedom[:, None, t], freedom[None, :, t])
        known = np.isfinite(d)
        total += np.where(known, d, 0.0)
        count += known
        variance += np.where(known, v, 0.0)
        fourth += np.where(known, v**2 / df, 0.0)
        fewest = np.where(known & (v > 0), np.minimum(fewest, df), fewest)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(variance > 0, 0.5 * (variance**2 / fourth + fewest), 1.0)
        return total / count, _p_values(total / count, np.sqrt(variance) / count, df)


def _holm_matrix(p: FloatArray) -> FloatArray:
    rows, columns = np.triu_indices(len(p), 1)
    out = np.ones_like(p)
    if len(rows):
        out[rows, columns] = out[columns, rows] = holm(p[rows, columns])
    return out


def _compared(
    table: pd.DataFrame | Board | Comparisons, ladder: pd.DataFrame | None, over: Over | None, alpha: float
) -> Comparisons:
    """`table` itself when its pairs are compared already."""
    return table if isinstance(table, Comparisons) else compare_all(table, ladder, over=over, alpha=alpha)


def rank_intervals(
    table: pd.DataFrame | Board | Comparisons,
    ladder: pd.DataFrame | None = None,
    *,
    over: Over | None = None,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Rank of every method by its mean value, with the ranks that the data leave open.

    low = 1 + methods separated above it, high = M - methods separated below
    it, from the Holm-corrected pairs of `compare_all`: with probability 1 -
    alpha all intervals hold at once (Mogstad, Romano, Shaikh and Wilhelm 2024,
    "Inference for ranks"). A method whose low is 1 shares first place.

    Returns
    -------
    DataFrame with columns method, rank (ties share the best), low, high; best first.
    """
    found = _compared(table, ladder, over, alpha)
    better = found.separated & (found.difference < 0)
    worse = found.separated & (found.difference > 0)
    rank = 1 + (found.value[None, :] > found.value[:, None]).sum(axis=1)
    low = np.minimum(1 + better.sum(axis=1), rank)
    high = np.maximum(len(rank) - worse.sum(axis=1), rank)
    return pd.DataFrame({"method": list(found.methods), "rank": rank, "low": low, "high": high})


def first_place(
    table: pd.DataFrame | Board, ladder: pd.DataFrame | None = None, *, over: Over | None = None, alpha: float = 0.05
) -> list[str]:
    """Methods that share first place: nobody is separated above them; best first."""
    ranks = rank_intervals(table, ladder, over=over, alpha=alpha)
    return [str(name) for name in ranks.loc[ranks["low"] == 1, "method"]]


def tier_groups(
    table: pd.DataFrame | Board | Comparisons,
    ladder: pd.DataFrame | None = None,
    *,
    over: Over | None = None,
    alpha: float = 0.05,
) -> dict[str, int]:
    """Group of every method: 1 where nobody before it is separated above it, else one more than the last that is.

    A method of group k ends a chain of k methods, best first, each separated
    from the next by the Holm-corrected pairs of `compare_all`; methods of one
    group are not separated (but where their common tasks turn the order of their means round).

    Returns
    -------
    method -> its group, best method first.
    """
    found = _compared(table, ladder, over, alpha)
    above = found.separated & (found.difference < 0) & np.tri(len(found.methods), k=-1, dtype=bool)
    groups = np.zeros(len(found.methods), dtype=np.int64)
    for m, higher in enumerate(above):
        groups[m] = 1 + groups[higher].max(initial=0)
    return dict(zip(found.methods, groups.tolist(), strict=True))


def tie_letters(
    table: pd.DataFrame | Board | Comparisons,
    ladder: pd.DataFrame | None = None,
    *,
    over: Over | None = None,
    alpha: float = 0.05,
) -> dict[str, str]:
    """Compact letter display: two methods share a letter exactly when they are not separated.

    Piepho (2004), "An algorithm for a letter-based representation of all-pairwise
    comparisons", from the Holm-corrected pairs of `compare_all`. "a" holds the
    best method; beyond 52 letters a number is added (a2, b2, ...).

    Returns
    -------
    method -> its letters, best method first.
    """
    found = _compared(table, ladder, over, alpha)
    return dict(zip(found.methods, compact_letters(found.separated), strict=True))


def compact_letters(separated: npt.ArrayLike) -> list[str]:
    """Letters of items in their order, given which pairs are separated: (M, M) -> M strings.

    A letter is a set of items none of which are separated; every unseparated
    pair is in one. Sets are grown greedily from the first pair not yet in one,
    in the items' order, to a maximal set, and sets made superfluous by later
    ones are swept (a clique cover of the ties: Gramm et al. 2007, "Algorithms for compact letter displays").
    """
    matrix = np.asarray(separated, dtype=bool)
    if matrix.ndim != 2 or not np.array_equal(matrix, matrix.T):
        raise ValueError("separated must be a symmetric matrix")
    tied = ~matrix
    np.fill_diagonal(tied, True)
    groups = _sweep(_grow(tied), len(tied))
    groups.sort()
    letters = ["" for _ in range(len(tied))]
    for index, group in enumerate(groups):
        for item in group:
            letters[item] += _letter(index)
    return letters


def _grow(tied: BoolArray) -> list[list[int]]:
    """Maximal sets of mutually tied items that cover every tied pair, and every item."""
    covered = np.zeros_like(tied)
    groups = []
    for i in range(len(tied)):
        for j in range(i, len(tied)):
            if not tied[i, j] or covered[i, j]:
                continue
            group, common = [i, j], tied[i] & tied[j]
            for k in range(len(tied)):
                if common[k] and k not in (i, j):
                    group.append(k)
                    common = common & tied[k]
            group = sorted(set(group))
            covered[np.ix_(group, group)] = True
            groups.append(group)
    return groups


def _sweep(groups: list[list[int]], size: int) -> list[list[int]]:
    """Drop sets whose every pair is in another kept set, the last found first."""
    times = np.zeros((size, size), dtype=np.int64)
    for group in groups:
        times[np.ix_(group, group)] += 1
    kept = []
    for group in reversed(groups):
        block = np.ix_(group, group)
        if np.all(times[block] > 1):
            times[block] -= 1
        else:
            kept.append(group)
    return kept


def _letter(index: int) -> str:
    letters = string.ascii_lowercase + string.ascii_uppercase
    turn, place = divmod(index, len(letters))
    return letters[place] + (str(turn + 1) if turn else "")


def shares_letter(first: str, second: str) -> bool:
    """Whether two entries of a letter display have a letter in common."""
    return bool(_split(first) & _split(second))


def _split(text: str) -> set[str]:
    parts: list[str] = []
    for character in text:
        if character.isdigit():
            parts[-1] += character
        else:
            parts.append(character)
    return set(parts)
