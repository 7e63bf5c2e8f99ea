"""Intervals of one sample, each used only where it keeps its stated coverage."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtr, ndtri, stdtr, stdtrit

from suite.stats.resample import FloatArray, resample_counts

T_LIMIT = 10  # up to this many values the t-interval; a percentile bootstrap under-covers there


class Interval(NamedTuple):
    """A value with its interval; `low` and `high` are nan where the data cannot say.

    Attributes
    ----------
    value : point estimate.
    low, high : bounds, in the unit of `value`.
    n : number of values behind it.
    method : how the bounds were made ("t", "order", "bca", "percentile", "wilson", "none").
    """

    value: float
    low: float
    high: float
    n: int
    method: str


NO_VALUES = Interval(math.nan, math.nan, math.nan, 0, "none")


class Equivalence(NamedTuple):
    """Outcome of two one-sided tests.

    Attributes
    ----------
    difference : estimated mean (difference).
    low, high : the 1 - 2 alpha interval; inside the margins exactly when equivalent.
    p : larger of the two one-sided p values.
    equivalent : p < alpha.
    """

    difference: float
    low: float
    high: float
    p: float
    equivalent: bool


def _sample(x: npt.ArrayLike) -> FloatArray:
    array = np.asarray(x, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"a sample is a non-empty 1-d array, got shape {array.shape}")
    if not np.all(np.isfinite(array)):
        raise ValueError("a sample must be finite: failed runs are counted, not averaged")
    return array


def exact_mean(x: npt.ArrayLike) -> float:
    """Mean by an exactly rounded sum: the same bits in any order of the values, and of equal values their own."""
    values = np.asarray(x, dtype=np.float64).ravel().tolist()
    if not values:
        return math.nan
    if values.count(values[0]) == len(values):
        return float(values[0])
    try:
        return math.fsum(values) / len(values)
    except OverflowError:  # the sum of finite scores beyond 1e307; their mean is finite
        return math.fsum(value / len(values) for value in values)


def sample_sd(x: npt.ArrayLike) -> float:
    """Standard deviation of two or more values (n - 1 in the denominator), exactly 0 where all are equal.

    A mean that is rounded leaves three times 0.1 a spread of 1e-17, in units of
    which every difference is enormous; and squares of values beyond 1e154 overflow.
    """
    values = np.asarray(x, dtype=np.float64)
    if np.all(values == values.flat[0]):
        return 0.0
    unit = 2.0 ** max(0, math.frexp(float(np.max(np.abs(values))))[1] - 400)  # a power of two changes no bit
    return unit * float(np.std(values / unit, ddof=1))


def t_half_width(
    sd: npt.ArrayLike, n: npt.ArrayLike, level: float = 0.95, df: npt.ArrayLike | None = None
) -> FloatArray:
    """Half width t_{(1 + level) / 2, df} * sd / sqrt(n); nan where df is not positive. Broadcasts.

    Parameters
    ----------
    sd : standard deviation of the values (n - 1 in the denominator).
    n : number of values.
    df : degrees of freedom, n - 1 unless given.

    Raises
    ------
    ValueError : `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, got {level}")
    n = np.asarray(n, dtype=np.float64)
    df = n - 1 if df is None else np.asarray(df, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        width = stdtrit(np.where(df > 0, df, np.nan), 0.5 + 0.5 * level) * np.asarray(sd) / np.sqrt(n)
    return np.asarray(width, dtype=np.float64)


def t_interval(x: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Student's t-interval of a mean: mean +- t_{(1 + level) / 2, n - 1} s / sqrt(n).

    Parameters
    ----------
    x : (n,) finite values. With n = 1 the bounds are nan: one value says nothing of its spread.
    level : nominal coverage.
    """
    x = _sample(x)
    n, mean = len(x), exact_mean(x)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, "none")
    half = float(t_half_width(sample_sd(x), n, level))
    return Interval(mean, mean - half, mean + half, n, "t")


def median_interval(x: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Sample median with the order-statistic interval: x_(k) to x_(n + 1 - k), the narrowest that covers enough.

    P(the median lies outside) is 2 P(Binomial(n, 1/2) < k) whatever the
    distribution, so outliers and skew cost nothing; with fewer values than
    `level` needs (6 at 95%) the bounds are nan.

    Parameters
    ----------
    x : (n,) finite values, independent.
    level : coverage that is reached or passed.
    """
    ordered = np.sort(_sample(x))
    n = len(ordered)
    allowed = np.flatnonzero(2.0 * bdtr(np.arange(n // 2), n, 0.5) <= 1.0 - level)
    centre = float(np.median(ordered))
    if not len(allowed):
        return Interval(centre, math.nan, math.nan, n, "none")
    k = int(allowed[-1])
    return Interval(centre, float(ordered[k]), float(ordered[n - 1 - k]), n, "order")


def expanded_normal(level: float, n: int) -> float:
    """Normal quantile to use so that a percentile interval is as wide as the t-interval.

    sqrt(n / (n - 1)) * t_{(1 + level) / 2, n - 1}: the bootstrap's spread is
    sqrt((n - 1) / n) of s / sqrt(n), and its tails are normal (Hesterberg 2015,
    "What teachers should know about the bootstrap").
    """
    return math.sqrt(n / (n - 1)) * float(stdtrit(n - 1, 0.5 + 0.5 * level))


def _row_mean(x: FloatArray) -> FloatArray:
    return np.asarray(x.mean(axis=-1))


def bootstrap_interval(
    x: npt.ArrayLike,
    statistic: Callable[[FloatArray], FloatArray] = _row_mean,
    *,
    method: Literal["bca", "percentile"] = "bca",
    level: float = 0.95,
    rounds: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of a statistic of n > 10 values, its percentiles expanded for small n.

    Bias-corrected and accelerated (Efron 1987, "Better bootstrap confidence
    intervals"; acceleration by the jackknife), or plain percentile; both with
    the normal quantile of `expanded_normal`.

    Parameters
    ----------
    x : (n,) finite values, n > 10.
    statistic : maps (..., n) to (...,); the mean unless given.
    rounds : number of resamples.
    seed : key of the resampling stream.

    Raises
    ------
    ValueError : n <= 10, where it would not reach its level: use `t_interval`.
    """
    x = _sample(x)
    n = len(x)
    if n <= T_LIMIT:
        raise ValueError(f"a bootstrap interval of {n} values under-covers: use t_interval up to {T_LIMIT}")
    value = float(statistic(x))
    counts = resample_counts(rounds, n, n, seed, "bootstrap", n)
    draws = counts @ x / n if statistic is _row_mean else statistic(_expand(x, counts))
    if np.ptp(draws) == 0.0:
        return Interval(value, value, value, n, method)
    low, high = _tail_probabilities(x, statistic, value, draws, method, expanded_normal(level, n))
    bounds = np.quantile(draws, [low, high])
    return Interval(value, float(bounds[0]), float(bounds[1]), n, method)


def _expand(x: FloatArray, counts: FloatArray) -> FloatArray:
    """Resamples (rounds, n) from how often each value was drawn."""
    rounds = len(counts)
    index = np.repeat(np.tile(np.arange(len(x)), rounds), counts.astype(np.int64).ravel())
    return x[index.reshape(rounds, -1)]


def _tail_probabilities(
    x: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    value: float,
    draws: FloatArray,
    method: str,
    quantile: float,
) -> tuple[float, float]:
    if method == "percentile":
        return float(ndtr(-quantile)), float(ndtr(quantile))
    below = (np.sum(draws < value) + 0.5 * np.sum(draws == value)) / len(draws)
    bias = float(ndtri(np.clip(below, 1 / len(draws), 1 - 1 / len(draws))))
    n = len(x)
    left_out = statistic(np.stack([np.delete(x, i) for i in range(n)]))
    deviation = left_out.mean() - left_out
    norm = float(np.sum(deviation**2))
    acceleration = float(np.sum(deviation**3)) / (6.0 * norm**1.5) if norm > 0 else 0.0
    z = bias + np.array([-quantile, quantile])
    low, high = ndtr(bias + z / (1.0 - acceleration * z))
    return float(low), float(high)


def mean_interval(x: npt.ArrayLike, level: float = 0.95, rounds: int = 2000, seed: int = 0) -> Interval:
    """Interval of a mean by the method that covers at this n: t up to 10 values, BCa bootstrap above."""
    x = _sample(x)
    if len(x) <= T_LIMIT:
        return t_interval(x, level)
    return bootstrap_interval(x, level=level, rounds=rounds, seed=seed)._replace(value=exact_mean(x))


def wilson_interval(successes: float, n: float, level: float = 0.95, quantile: float | None = None) -> Interval:
    """Score interval of a success rate (Wilson 1927, "Probable inference").

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n); it
    stays inside [0, 1] and is never empty at 0 or n successes.

    Parameters
    ----------
    successes, n : counts; not whole when ties count a half or `n` is an effective number.
    quantile : replaces the normal z (a t quantile when `n` was estimated).
    """
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return NO_VALUES
    z = float(ndtri(0.5 + 0.5 * level)) if quantile is None else quantile
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(p, low, high, round(n), "wilson")


def mean_and_error(x: FloatArray, y: FloatArray | None) -> tuple[float, float, float]:
    """(mean difference, standard error, degrees of freedom): one sample, or Welch's two samples."""
    if y is None:
        return exact_mean(x), sample_sd(x) / math.sqrt(len(x)), len(x) - 1
    vx, vy = sample_sd(x) ** 2 / len(x), sample_sd(y) ** 2 / len(y)
    total = vx + vy
    df = total**2 / (vx**2 / (len(x) - 1) + vy**2 / (len(y) - 1)) if total > 0 else len(x) + len(y) - 2
    return exact_mean(x) - exact_mean(y), math.sqrt(total), df


def tost(x: npt.ArrayLike, margin: float, y: npt.ArrayLike | None = None, alpha: float = 0.05) -> Equivalence:
    """Two one-sided t tests of equivalence: is |mean x (- mean y)| under `margin`?

    Schuirmann (1987), "A comparison of the two one-sided tests procedure and
    the power approach". With `y` the samples are independent and the test is
    Welch's; pair first (x = differences) where seeds are shared.

    Parameters
    ----------
    x : (n,) differences, or the first sample; n >= 2.
    margin : largest difference that counts as equal, > 0, in the unit of `x`.
    alpha : level of each test; false equivalence at most this often.
    """
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    first = _sample(x)
    second = None if y is None else _sample(y)
    if min(len(first), len(first) if second is None else len(second)) < 2:
        raise ValueError("equivalence needs at least two values a sample")
    mean, error, df = mean_and_error(first, second)
    if error == 0.0:
        p = 0.0 if abs(mean) < margin else 1.0
        return Equivalence(mean, mean, mean, p, p < alpha)
    p = max(float(stdtr(df, -(margin + mean) / error)), float(stdtr(df, -(margin - mean) / error)))
    half = float(stdtrit(df, 1 - alpha)) * error
    return Equivalence(mean, mean - half, mean + half, p, p < alpha)


def satterthwaite(variances: npt.ArrayLike, freedom: npt.ArrayLike) -> FloatArray:
    """Degrees of freedom of a sum of independent variance estimates, (..., k) -> (...,).

    (sum v)^2 / sum(v^2 / (df + 1)) - 1. Satterthwaite (1946) has df and 0 in
    place of df + 1 and 1, which is too cautious where each df is 1 or 2; the
    unbiased estimates df + 2 and 2 are too bold where the variances differ. The
    middle keeps an interval of level .95 within .93 to .97 from df = 1 on, on
    average over how variances differ, and gives a single term its own df. One
    term that outweighs many others is the worst case: at 20 times their sd
    there are .86 at df 1, .91 at df 2 and .94 from df 4 on (simulated in the tests).

    Parameters
    ----------
    variances, freedom : (..., k) variance estimates and their degrees of freedom.
    """
    v, df = np.broadcast_arrays(np.asarray(variances, dtype=np.float64), np.asarray(freedom, dtype=np.float64))
    top = v.max(axis=-1, keepdims=True, initial=0.0)
    v = v / np.where(top > 0, top, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = v.sum(axis=-1) ** 2 / np.sum(v**2 / (df + 1.0), axis=-1) - 1.0
    return np.asarray(np.where(top[..., 0] > 0, found, df.sum(axis=-1)), dtype=np.float64)
