"""Differences to the reference, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtr

from suite.stats.board import Board, as_board, others
from suite.stats.intervals import Interval, exact_mean, sample_sd, t_interval
from suite.stats.resample import FloatArray, stream

EXACT_FLIPS = 14  # sign-flip tests enumerate all sign patterns up to this many pairs


class PairedTest(NamedTuple):
    """Paired comparison of two samples over the same seeds.

    Attributes
    ----------
    difference : mean difference with its t-interval.
    t, p : Student's t with n - 1 degrees of freedom and its two-sided p; nan below two pairs.
    p_exact : two-sided p of the sign-flip test.
    sd : standard deviation of the differences.
    variance_cut : sd of the differences over the sd they would have unpaired,
        sqrt(s_a^2 + s_b^2); below 1 pairing helps. nan where there is no spread.
    """

    difference: Interval
    t: float
    p: float
    p_exact: float
    sd: float
    variance_cut: float


def t_statistic(differences: FloatArray) -> tuple[float, float]:
    """(t, two-sided p) of mean 0; without any spread t is 0 or infinite, below two values both are nan."""
    n = len(differences)
    if n < 2:
        return math.nan, math.nan
    mean, error = exact_mean(differences), sample_sd(differences) / math.sqrt(n)
    if error == 0.0:
        t = math.copysign(math.inf, mean) if mean != 0 else 0.0
        return t, 0.0 if mean != 0 else 1.0
    t = mean / error
    return t, 2.0 * float(stdtr(n - 1, -abs(t)))


def sign_flip_test(differences: npt.ArrayLike, side: str = "two", rounds: int = 20_000, seed: int = 0) -> float:
    """p value of "the differences are symmetric about 0" by flipping their signs (Fisher 1935).

    Exact up to 14 differences, by all 2^n sign patterns: at n = 5 the smallest
    two-sided p is 1/16. Above, `rounds` random patterns and (1 + hits) / (1 + rounds).

    Parameters
    ----------
    differences : (n,) finite values.
    side : "two", "greater" (mean > 0) or "less".
    """
    d = np.asarray(differences, dtype=np.float64)
    if side not in ("two", "greater", "less"):
        raise ValueError(f"side must be 'two', 'greater' or 'less', got {side!r}")
    if d.ndim != 1 or d.size == 0 or not np.all(np.isfinite(d)):
        raise ValueError("a sign-flip test needs a non-empty sample of finite differences")
    n = len(d)
    exact = n <= EXACT_FLIPS
    signs = _all_signs(n) if exact else _random_signs(n, rounds, seed)
    sums, observed = signs @ d, float(np.sum(d))
    slack = 1e-12 * float(np.sum(np.abs(d)))
    if side == "two":
        hits = int(np.sum(np.abs(sums) >= abs(observed) - slack))
    else:
        way = 1.0 if side == "greater" else -1.0
        hits = int(np.sum(way * sums >= way * observed - slack))
    return hits / len(signs) if exact else (1 + hits) / (1 + len(signs))


@cache
def _all_signs(n: int) -> FloatArray:
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    signs = np.asarray(1.0 - 2.0 * bits, dtype=np.float64)
    signs.flags.writeable = False
    return signs


@lru_cache(maxsize=16)
def _random_signs(n: int, rounds: int, seed: int) -> FloatArray:
    signs = stream(seed, "signs", n).choice(np.array([-1.0, 1.0]), size=(rounds, n))
    signs.flags.writeable = False
    return signs


def paired_test(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> PairedTest:
    """Compare a - b over pairs.

    Parameters
    ----------
    a, b : (n,) finite values of the same seeds in the same order.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"pairs need the same seeds on both sides, got {first.shape} and {second.shape}")
    d = first - second
    difference = t_interval(d, level)
    t, p = t_statistic(d)
    if len(d) < 2:
        return PairedTest(difference, t, p, sign_flip_test(d), math.nan, math.nan)
    sd, unpaired = sample_sd(d), math.hypot(sample_sd(first), sample_sd(second))
    return PairedTest(difference, t, p, sign_flip_test(d), sd, sd / unpaired if unpaired > 0 else math.nan)


def paired_differences(runs: pd.DataFrame | Board) -> pd.DataFrame:
    """Difference of every finished run to the reference's run of the same task and seed.

    Returns
    -------
    DataFrame with columns task, method, seed, difference (in the task's unit,
    signed so that + is better whatever the direction). Seeds where either side
    failed have no difference; `paired_summary` counts them.
    """
    board = as_board(runs)
    cells, r = board.cells, board.cells.reference
    difference = cells.utility - cells.utility[r]
    m, t, s = np.nonzero(np.isfinite(difference))
    keep = m != r
    m, t, s = m[keep], t[keep], s[keep]
    frame = pd.DataFrame(
        {
            "task": np.array(cells.tasks, dtype=object)[t],
            "method": np.array(cells.methods, dtype=object)[m],
            "seed": cells.seeds[s],
            "difference": difference[m, t, s],
        }
    )
    return frame.sort_values(["task", "method", "seed"], kind="stable").reset_index(drop=True)


def paired_summary(runs: pd.DataFrame | Board) -> pd.DataFrame:
    """Paired comparison of every (task, method) with the reference.

    Returns
    -------
    DataFrame with columns task, method, n (pairs), difference, low, high (t
    interval, + is better, in the task's unit), t, p, p_exact (sign flips), sd,
    variance_cut (measured sd paired / unpaired), failed, reference_failed (runs).
    A cell without a pair has nan statistics and n = 0.
    """
    board = as_board(runs)
    cells, r = board.cells, board.cells.reference
    failed = board.counts[1]
    rows = []
    for t, task in enumerate(cells.tasks):
        for m in others(board):
            if not board.covered[m, t]:
                continue
            both = np.isfinite(cells.utility[m, t]) & np.isfinite(cells.utility[r, t])
            statistics = _summary(cells.utility[m, t, both], cells.utility[r, t, both], board.level)
            rows.append((task, cells.methods[m], *statistics, int(failed[m, t]), int(failed[r, t])))
    names = ["n", "difference", "low", "high", "t", "p", "p_exact", "sd", "variance_cut", "failed", "reference_failed"]
    return pd.DataFrame(rows, columns=["task", "method", *names])


def _summary(a: FloatArray, b: FloatArray, level: float) -> Iterable[float]:
    if len(a) == 0:
        return (0, *[math.nan] * 8)
    test = paired_test(a, b, level)
    d = test.difference
    return (d.n, d.value, d.low, d.high, test.t, test.p, test.p_exact, test.sd, test.variance_cut)


def pairing_gain(runs: pd.DataFrame | Board) -> pd.DataFrame:
    """What pairing by seed saves on each task: root mean square of sd paired over that of sd unpaired.

    Returns
    -------
    DataFrame with columns task, sd_paired, sd_unpaired, ratio, cells (with two pairs or more). Unpaired runs would
    need 1 / ratio^2 times the seeds for the same interval.
    """
    table = paired_summary(runs)
    rows = []
    for task, part in table[(table["n"] > 1) & table["variance_cut"].notna()].groupby("task", sort=True):
        paired = float(np.sqrt(np.mean(part["sd"] ** 2)))
        unpaired = float(np.sqrt(np.mean((part["sd"] / part["variance_cut"]) ** 2)))
        rows.append((task, paired, unpaired, paired / unpaired, len(part)))
    return pd.DataFrame(rows, columns=["task", "sd_paired", "sd_unpaired", "ratio", "cells"])
