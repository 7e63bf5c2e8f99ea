"""What tuning buys: expected best of k trials, and how wide the region of good trials is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import gammaln, stdtrit

from suite.stats.intervals import Interval, wilson_interval
from suite.stats.resample import BoolArray, FloatArray

DEFAULT_KS = (1, 2, 5, 20)


class Trials(NamedTuple):
    """Trials best first by validation; ties on validation share a group.

    Attributes
    ----------
    test : (N,) test score of each trial; nan for a failed one.
    finished : (N,) whether the trial has a score; failed trials come last.
    group : (N,) equal numbers for trials tied on validation.
    """

    test: FloatArray
    finished: BoolArray
    group: npt.NDArray[np.int64]


def rank_trials(validation: npt.ArrayLike, test: npt.ArrayLike, direction: str = "min") -> Trials:
    """Order trials by validation score, best first, failures (nan validation) last.

    Raises
    ------
    ValueError : shapes differ, no trial finished, or a trial with a validation score lacks a test score.
    """
    chosen_by, reported = np.asarray(validation, dtype=np.float64), np.asarray(test, dtype=np.float64)
    if direction not in ("min", "max"):
        raise ValueError(f"direction must be 'min' or 'max', got {direction!r}")
    if chosen_by.shape != reported.shape or chosen_by.ndim != 1:
        raise ValueError(f"one validation and one test score a trial, got {chosen_by.shape} and {reported.shape}")
    finished = np.isfinite(chosen_by)
    if not finished.any():
        raise ValueError("no trial finished")
    if not np.all(np.isfinite(reported[finished])):
        raise ValueError("a trial with a validation score has no test score: it could be selected")
    key = np.where(finished, chosen_by if direction == "min" else -chosen_by, np.inf)
    order = np.lexsort((np.where(finished, reported, np.inf), key))
    _, group = np.unique(key[order], return_inverse=True)
    return Trials(np.where(finished, reported, np.nan)[order], finished[order], group.astype(np.int64))


def _log_choose(n: FloatArray, k: int) -> FloatArray:
    with np.errstate(invalid="ignore"):
        value = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.where(n >= k, value, -np.inf)


def selection_weights(count: int, k: int) -> FloatArray:
    """Chance that the i-th best of `count` trials is the best of k drawn without replacement, (count,).

    C(count - i, k - 1) / C(count, k), i = 1..count: the unbiased estimator of
    the expected best of k (Tang et al. 2020, "Showing your work doesn't always
    work", for the with-replacement curve of Dodge et al. 2019).
    """
    if not 1 <= k <= count:
        raise ValueError(f"best of {k} needs 1 <= k <= {count} trials")
    i = np.arange(1, count + 1, dtype=np.float64)
    total = _log_choose(np.array([float(count)]), k)[0]
    return np.asarray(np.exp(_log_choose(count - i, k - 1) - total), dtype=np.float64)


def _expected(trials: Trials, k: int) -> tuple[float, float]:
    """(expected test score of the best of k, given that one finished; chance that none did)."""
    weights = selection_weights(len(trials.test), k)
    shared = np.bincount(trials.group, weights=weights) / np.bincount(trials.group)
    weights = shared[trials.group]
    done = float(np.sum(weights[trials.finished]))
    if done <= 0:
        return np.nan, 1.0
    return float(weights[trials.finished] @ trials.test[trials.finished]) / done, max(0.0, 1.0 - done)


def _without(trials: Trials, index: int) -> Trials:
    _, group = np.unique(np.delete(trials.group, index), return_inverse=True)
    return Trials(np.delete(trials.test, index), np.delete(trials.finished, index), group.astype(np.int64))


def best_of_k(
    validation: npt.ArrayLike,
    test: npt.ArrayLike,
    direction: str = "min",
    ks: Sequence[int] = DEFAULT_KS,
    level: float = 0.95,
) -> pd.DataFrame:
    """Expected test score of the trial that validation picks out of k, in closed form from N recorded trials.

    Trials tied on validation share their weight. A failed trial is never picked
    while another finished; `none` is the chance that all k failed, in which case
    there is no score. The interval is the jackknife's t-interval over trials
    with N / k - 1 degrees of freedom, as N trials hold N / k independent bests of
    k; it is nan where k > N / 4.

    Parameters
    ----------
    validation, test : (N,) scores of the trials, nan where a trial failed.
    ks : numbers of trials; those above N are left out.

    Returns
    -------
    DataFrame with columns k, expected, low, high, none, trials.
    """
    trials = rank_trials(validation, test, direction)
    count = len(trials.test)
    rows = []
    for k in (k for k in ks if k <= count):
        value, none = _expected(trials, k)
        half = _half_width(trials, k, level) if 4 * k <= count else np.nan
        rows.append((k, value, value - half, value + half, none, count))
    return pd.DataFrame(rows, columns=["k", "expected", "low", "high", "none", "trials"])


def _half_width(trials: Trials, k: int, level: float) -> float:
    count = len(trials.test)
    left_out = np.array([_expected(_without(trials, i), k)[0] for i in range(count)])
    error = np.sqrt((count - 1) / count * np.sum((left_out - left_out.mean()) ** 2))
    return float(stdtrit(count / k - 1.0, 0.5 + 0.5 * level) * error)


def sensitivity(
    scores: npt.ArrayLike, within: float, direction: str = "min", *, relative: bool = False, level: float = 0.95
) -> Interval:
    """Share of trials within `within` of the best one: how wide the good region of the search space is.

    The trials are spread evenly over the declared space, so the share is the
    volume of the region. Failed trials are outside; the best trial is inside.
    The interval is Wilson's, the best score taken as known.

    Parameters
    ----------
    scores : (N,) scores of the trials, nan where a trial failed.
    within : distance to the best that counts as good, >= 0, in the metric's
        unit, or as a share of |best| when `relative`.
    """
    x = np.asarray(scores, dtype=np.float64)
    if direction not in ("min", "max"):
        raise ValueError(f"direction must be 'min' or 'max', got {direction!r}")
    if not within >= 0:
        raise ValueError(f"within must not be negative, got {within}")
    finished = x[np.isfinite(x)]
    if x.ndim != 1 or finished.size == 0:
        raise ValueError("no trial finished")
    sign = 1.0 if direction == "min" else -1.0
    best = float(np.min(sign * finished))
    limit = best + (within * abs(best) if relative else within)
    good = int(np.sum(sign * finished <= limit))
    return wilson_interval(good, len(x), level)
