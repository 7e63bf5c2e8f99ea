"""Bradley-Terry strengths on the Elo scale, the reference at 1000."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit, ndtri, stdtrit

from suite.stats.aggregate import outcomes
from suite.stats.board import Board, as_board
from suite.stats.intervals import T_LIMIT
from suite.stats.resample import FloatArray, resample_counts
from suite.stats.table import TableError

ELO_PER_LOGIT = 400.0 / np.log(10.0)
REFERENCE_ELO = 1000.0
_STEPS = 100
_TOLERANCE = 1e-9


def bradley_terry(wins: FloatArray, anchor: int, ridge: float = 0.1, start: FloatArray | None = None) -> FloatArray:
    """Maximum-likelihood strengths with a small ridge, the anchor's at 0, by Newton's method.

    Maximises sum_ij wins_ij log sigmoid(theta_i - theta_j) - ridge / 2 sum theta^2
    (Bradley and Terry 1952). The ridge keeps a method that always wins finite.

    Parameters
    ----------
    wins : (..., M, M) wins of row over column, ties counting a half to both.
    anchor : index of the method held at 0.
    ridge : > 0.
    start : (M,) where to start; zeros unless given.

    Returns
    -------
    (..., M) strengths in logits: P(i beats j) = sigmoid(theta_i - theta_j).
    """
    if not ridge > 0:
        raise ValueError(f"ridge must be positive, got {ridge}")
    size = wins.shape[-1]
    free = np.array([i for i in range(size) if i != anchor], dtype=np.int64)
    games = wins + np.swapaxes(wins, -1, -2)
    won = wins.sum(axis=-1)
    theta = np.zeros(wins.shape[:-1]) if start is None else np.broadcast_to(start, wins.shape[:-1]).copy()
    if size < 2:
        return theta
    for _ in range(_STEPS):
        chance = expit(theta[..., :, None] - theta[..., None, :])
        expected = games * chance
        gradient = (won - expected.sum(axis=-1) - ridge * theta)[..., free]
        curvature = -expected * (1.0 - chance)
        diagonal = ridge - curvature.sum(axis=-1)
        hessian = curvature[..., free[:, None], free[None, :]]
        hessian[..., np.arange(size - 1), np.arange(size - 1)] += diagonal[..., free]
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        theta[..., free] += np.clip(step, -2.0, 2.0)
        if np.max(np.abs(step), initial=0.0) < _TOLERANCE:
            return theta
    raise ArithmeticError("Bradley-Terry strengths did not converge")


def _units(board: Board) -> FloatArray:
    """(U, M, M) wins of every resampling unit: tasks with one game a pair, or the seeds of a single task."""
    wins, played = outcomes(board)
    if len(board.cells.tasks) == 1:
        units = wins[:, :, 0].transpose(2, 0, 1)
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            share = wins.sum(axis=3) / played.sum(axis=3)
        units = np.nan_to_num(share).transpose(2, 0, 1)
    units = units.copy()
    units[:, np.arange(units.shape[1]), np.arange(units.shape[1])] = 0.0
    return units


def elo_ratings(runs: pd.DataFrame | Board, *, ridge: float = 0.1) -> pd.DataFrame:
    """Elo of every method from runs of the same task and seed; the reference is 1000.

    Each pair plays one game a task, shared out over its seeds; a failed run
    loses to a finished one. The interval is over tasks (over seeds on a board
    of one task): up to 10 of them the jackknife's t-interval, above the
    one-step bootstrap (a Newton step from the estimate, with U - 1 draws of U,
    and percentiles stretched to Student's t); nan for one. Depends on who else
    is on the board, so it is never the headline.

    Returns
    -------
    DataFrame with columns method, elo, low, high; best first.
    """
    board = as_board(runs).attempted
    units, anchor = _units(board), board.cells.reference
    if units.shape[1] < 2:
        raise TableError("Elo needs a method beside the reference")
    point = bradley_terry(units.sum(axis=0), anchor, ridge)
    if len(units) <= T_LIMIT:
        low, high = _jackknife_bounds(units, anchor, ridge, point, board.level)
    else:
        low, high = _bootstrap_bounds(units, anchor, ridge, point, board)
    low[anchor] = high[anchor] = 0.0
    scaled = [REFERENCE_ELO + ELO_PER_LOGIT * x for x in (point, low, high)]
    frame = pd.DataFrame({"method": list(board.cells.methods), "elo": scaled[0], "low": scaled[1], "high": scaled[2]})
    return frame.sort_values(["elo", "method"], ascending=[False, True], kind="stable").reset_index(drop=True)


def _jackknife_bounds(
    units: FloatArray, anchor: int, ridge: float, point: FloatArray, level: float
) -> tuple[FloatArray, FloatArray]:
    """Bounds in logits from leaving out one unit at a time, the rest weighted up to the same number of games."""
    count = len(units)
    if count < 2:
        return np.full(len(point), np.nan), np.full(len(point), np.nan)
    left_out = (units.sum(axis=0) - units) * (count / (count - 1))
    change = bradley_terry(left_out, anchor, ridge, start=point) - point
    error = np.sqrt((count - 1) / count * np.sum(change**2, axis=0))
    half = float(stdtrit(count - 1, 0.5 + 0.5 * level)) * error
    return point - half, point + half


def _influence(units: FloatArray, anchor: int, ridge: float, point: FloatArray) -> FloatArray:
    """(U, M) first-order change of the strengths when a unit's weight grows by 1: H^-1 times its score."""
    chance = expit(point[:, None] - point[None, :])
    games = units + units.transpose(0, 2, 1)
    scores = units.sum(axis=2) - (games * chance).sum(axis=2)
    curvature = games.sum(axis=0) * chance * (1.0 - chance)
    hessian = np.diag(curvature.sum(axis=1) + ridge) - curvature
    free = np.array([i for i in range(len(point)) if i != anchor], dtype=np.int64)
    out = np.zeros_like(scores)
    out[:, free] = np.linalg.solve(hessian[np.ix_(free, free)], scores[:, free].T).T
    return out


def _bootstrap_bounds(
    units: FloatArray, anchor: int, ridge: float, point: FloatArray, board: Board
) -> tuple[FloatArray, FloatArray]:
    count = len(units)
    weights = resample_counts(board.rounds, count, count - 1, board.seed, "elo", count) * (count / (count - 1))
    draws = point + (weights - 1.0) @ _influence(units, anchor, ridge, point)
    upper = 0.5 + 0.5 * board.level
    low, high = np.quantile(draws, [1.0 - upper, upper], axis=0)
    stretch = float(stdtrit(count - 1, upper)) / float(ndtri(upper))
    return point + stretch * (low - point), point + stretch * (high - point)
