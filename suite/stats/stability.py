"""How much a ranking owes to single tasks, to single methods, and to the choice of aggregate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from suite.stats.board import Board, as_board, others
from suite.stats.ranks import average_ranks, task_utilities
from suite.stats.resample import FloatArray

Score = Callable[[Board], FloatArray]


def suite_score(board: Board) -> FloatArray:
    """(M,) mean value on the board's scale: the headline, independent of the other methods."""
    return board.suite_values()


def rank_score(board: Board) -> FloatArray:
    """(M,) minus the mean rank, which depends on the other methods."""
    return np.asarray(-average_ranks(task_utilities(board)).mean(axis=1), dtype=np.float64)


def positions(scores: FloatArray) -> FloatArray:
    """Rank of each score, 1 for the largest, ties sharing the mean; nan scores come last."""
    return average_ranks(np.where(np.isnan(scores), -np.inf, scores))


def leave_one_task_out(
    runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None, score: Score = suite_score
) -> pd.DataFrame:
    """Rank of every method on the board without each task in turn.

    Returns
    -------
    DataFrame with columns left_out (task), method, rank, change (rank - rank
    on the whole board: + has fallen).
    """
    board = as_board(runs, ladder).attempted
    names = board.cells.tasks
    if len(names) < 2:
        raise ValueError("leaving a task out needs two tasks")
    whole = dict(zip(board.cells.methods, positions(score(board)), strict=True))
    parts = [(left, board.only(tasks=[name for name in names if name != left])) for left in names]
    return _frame([_changes(left, part, score, whole) for left, part in parts])


def leave_one_method_out(
    runs: pd.DataFrame | Board, ladder: pd.DataFrame | None = None, score: Score = rank_score
) -> pd.DataFrame:
    """Rank of every method on the board without each other method in turn (the reference stays).

    The rank on the whole board is taken among the methods that stay, so a
    change means that leaving one method out turned the order of two others. It is 0
    throughout for a score that is independent of the pool, as the headline is.

    Returns
    -------
    DataFrame with columns left_out (method), method, rank, change.
    """
    board = as_board(runs, ladder).attempted
    scores = score(board)
    changes = []
    for m in others(board):
        stay = [i for i in range(len(board.cells.methods)) if i != m]
        names = [board.cells.methods[i] for i in stay]
        whole = dict(zip(names, positions(scores[stay]), strict=True))
        changes.append(_changes(board.cells.methods[m], board.only(methods=names), score, whole))
    if not changes:
        raise ValueError("leaving a method out needs a method beside the reference")
    return _frame(changes)


class _Left(NamedTuple):
    """Ranks (M,) on the board without one task or method, and their changes."""

    left_out: str
    methods: tuple[str, ...]
    rank: FloatArray
    change: FloatArray


def _changes(left_out: str, part: Board, score: Score, whole: Mapping[str, float]) -> _Left:
    rank = positions(score(part))
    change = rank - np.array([whole[name] for name in part.cells.methods])
    return _Left(left_out, part.cells.methods, rank, change)


def _frame(changes: Sequence[_Left]) -> pd.DataFrame:
    columns = {
        "left_out": [c.left_out for c in changes for _ in c.methods],
        "method": [name for c in changes for name in c.methods],
        "rank": np.concatenate([c.rank for c in changes]),
        "change": np.concatenate([c.change for c in changes]),
    }
    return pd.DataFrame(columns)


def stability_summary(changes: pd.DataFrame) -> pd.DataFrame:
    """Range of every method's rank over the boards with one left out.

    Parameters
    ----------
    changes : what `leave_one_task_out` or `leave_one_method_out` returned.

    Returns
    -------
    DataFrame with columns method, best, worst (rank), largest_change (absolute)
    and decisive (what was left out then; "" where nothing changed).
    """
    left_out, names = (changes[name].to_numpy(dtype=object) for name in ("left_out", "method"))
    rank, size = (changes[name].to_numpy(dtype=np.float64) for name in ("rank", "change"))
    rows = []
    for method in sorted(set(names)):
        mine = np.flatnonzero(names == method)
        most = mine[np.argmax(np.abs(size[mine]))]
        largest = float(abs(size[most]))
        decisive = str(left_out[most]) if largest > 0 else ""
        rows.append((method, float(rank[mine].min()), float(rank[mine].max()), largest, decisive))
    return pd.DataFrame(rows, columns=["method", "best", "worst", "largest_change", "decisive"])


def kendall_tau(x: FloatArray, y: FloatArray) -> float:
    """Kendall's tau-b of two scores of the same items, (M,) each: 1 is the same order, -1 the opposite."""
    a, b = np.sign(x[:, None] - x[None, :]), np.sign(y[:, None] - y[None, :])
    norm = np.sqrt(float(np.sum(a**2)) * float(np.sum(b**2)))
    return float(np.sum(a * b)) / norm if norm > 0 else np.nan


def rank_agreement(scores: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Kendall's tau-b between aggregates, over the methods that both score.

    Parameters
    ----------
    scores : aggregate -> method -> score, each signed so that larger is better.

    Returns
    -------
    Square DataFrame, aggregates by aggregates; 1 on the diagonal.
    """
    names = list(scores)
    table = np.eye(len(names))
    for i, first in enumerate(names):
        for j in range(i):
            common = sorted(set(scores[first]) & set(scores[names[j]]))
            pair = [np.array([scores[name][m] for m in common]) for name in (first, names[j])]
            known = np.isfinite(pair[0]) & np.isfinite(pair[1])
            table[i, j] = table[j, i] = kendall_tau(pair[0][known], pair[1][known])
    return pd.DataFrame(table, index=names, columns=names)
