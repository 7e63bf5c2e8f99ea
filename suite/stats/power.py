"""What a number of seeds can show: power, detectable effects, and the gate's error rates."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import gammaincinv, ndtr, stdtrit

from suite.stats.resample import FloatArray

_NODES = 400
_MOST_SEEDS = 100_000


class GatePower(NamedTuple):
    """Probabilities of the gate's verdicts for one (method, task).

    Attributes
    ----------
    passes, fails, inconclusive : of one batch of seeds (T1).
    final_pass, final_fail, final_inconclusive : after what did not pass was run
        once more on fresh seeds (T2): FAIL needs two failing batches.
    """

    passes: float
    fails: float
    inconclusive: float
    final_pass: float
    final_fail: float
    final_inconclusive: float


@lru_cache(maxsize=64)
def _spread_nodes(df: int) -> tuple[FloatArray, FloatArray]:
    """Nodes s / sigma of the sample standard deviation with `df` degrees of freedom, and their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    ratio = np.sqrt(2.0 * gammaincinv(0.5 * df, 0.5 * (nodes + 1.0)) / df)
    return np.asarray(ratio, dtype=np.float64), 0.5 * weights


def paired_power(effect: float, sd: float, n: int, alpha: float = 0.05, two_sided: bool = True) -> float:
    """Power of the paired t test: P(p < alpha) for a true mean difference of `effect`.

    The noncentral t probability, as the average over s of the normal one:
    E_s[1 - Phi(t_crit s / sigma - effect sqrt(n) / sigma)] (and the other tail).

    Parameters
    ----------
    effect : true mean of the differences, in the unit of `sd`; for a one-sided test > 0 is the tested side.
    sd : standard deviation of the paired differences, > 0.
    n : pairs; with fewer than 2 nothing is ever rejected.
    """
    _check(sd, alpha)
    if n < 2:
        return 0.0
    ratio, weight = _spread_nodes(n - 1)
    critical = float(stdtrit(n - 1, 1.0 - alpha / (2 if two_sided else 1)))
    shift = effect * math.sqrt(n) / sd
    power = np.sum(weight * ndtr(shift - critical * ratio))
    if two_sided:
        power += np.sum(weight * ndtr(-shift - critical * ratio))
    return float(power)


def _check(sd: float, alpha: float) -> None:
    if not sd > 0:
        raise ValueError(f"sd must be positive, got {sd}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")


def minimum_detectable_effect(
    n: int, sd: float, alpha: float = 0.05, power: float = 0.8, two_sided: bool = True
) -> float:
    """Smallest true mean difference that n pairs show with the given power; infinite below 2 pairs.

    Parameters
    ----------
    n : pairs.
    sd : standard deviation of the paired differences, in whose unit the result is.
    """
    _check(sd, alpha)
    if not alpha < power < 1:
        raise ValueError(f"power must lie between alpha and 1, got {power}")
    return math.inf if n < 2 else sd * _detectable_in_sd(n, alpha, power, two_sided)


@lru_cache(maxsize=1024)
def _detectable_in_sd(n: int, alpha: float, power: float, two_sided: bool) -> float:
    low, high = 0.0, 1.0
    while paired_power(high, 1.0, n, alpha, two_sided) < power:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if paired_power(middle, 1.0, n, alpha, two_sided) < power:
            low = middle
        else:
            high = middle
    return high


def seeds_needed(effect: float, sd: float, alpha: float = 0.05, power: float = 0.8, two_sided: bool = True) -> int:
    """Fewest pairs that show a true mean difference of |effect| with the given power.

    Raises
    ------
    ValueError : the effect is 0, or needs more than 100,000 pairs.
    """
    _check(sd, alpha)
    size = abs(effect)
    if size == 0:
        raise ValueError("no number of seeds shows an effect of 0")
    high = 2
    while paired_power(size, sd, high, alpha, two_sided) < power:
        high *= 2
        if high > _MOST_SEEDS:
            raise ValueError(f"an effect of {size / sd:.2g} sd needs more than {_MOST_SEEDS} seeds")
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        if paired_power(size, sd, middle, alpha, two_sided) < power:
            low = middle
        else:
            high = middle
    return high


def gate_power(shift: float, sd: float, margin: float, n: int = 5, alpha: float = 0.05) -> GatePower:
    """Error rates and power of the quality gate for a true shift (+ is worse), exactly for normal differences.

    T1 on n pairs: PASS when mean + t_{1 - alpha} s / sqrt(n) < margin, FAIL when
    mean > margin and mean > t_{1 - alpha} s / sqrt(n). T2 repeats on fresh
    seeds what did not pass; FAIL needs both batches to fail.

    Parameters
    ----------
    shift : true mean difference head - base.
    sd : standard deviation of the paired differences (sqrt(2) seed-sd where pairing cuts nothing).
    margin : the gate's margin, in the unit of `sd`.
    """
    _check(sd, alpha)
    if n < 2:
        return GatePower(0.0, 0.0, 1.0, 0.0, 0.0, 1.0)
    ratio, weight = _spread_nodes(n - 1)
    error = sd / math.sqrt(n)
    bound = float(stdtrit(n - 1, 1.0 - alpha)) * ratio * error
    passes = float(np.sum(weight * ndtr((margin - bound - shift) / error)))
    fails = float(np.sum(weight * ndtr((shift - np.maximum(margin, bound)) / error)))
    open_after = 1.0 - passes
    final_pass, final_fail = passes + open_after * passes, fails * fails
    return GatePower(passes, fails, open_after - fails, final_pass, final_fail, 1.0 - final_pass - final_fail)


@lru_cache(maxsize=1024)
def gate_failure(shift: float, sd: float, margin: float, batches: tuple[int, ...] = (5, 5)) -> float:
    """Chance that a cell gets a FAIL for a true shift (+ is worse): every batch of seeds has to fail on its own.

    Parameters
    ----------
    shift, sd, margin : as in `gate_power`.
    batches : pairs in the first batch and in each that confirms it.
    """
    return math.prod(gate_power(shift, sd, margin, n).fails for n in batches)


@lru_cache(maxsize=1024)
def gate_detectable(sd: float, margin: float, batches: tuple[int, ...] = (5, 5), power: float = 0.8) -> float:
    """Smallest true shift that the gate FAILs with the given power; infinite where a batch has fewer than 2 pairs.

    Parameters
    ----------
    sd, margin, batches : as in `gate_failure`.
    """
    if min(batches) < 2:
        return math.inf
    low, high = 0.0, margin + sd
    while gate_failure(high, sd, margin, batches) < power:
        high *= 2.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if gate_failure(middle, sd, margin, batches) < power else (low, middle)
    return high


def suite_false_alarm(cells: int, sd: float, margin: float, n: int = 5, alpha: float = 0.05) -> float:
    """Chance that an unchanged suite of `cells` independent (method, task) cells gets a FAIL."""
    return 1.0 - (1.0 - gate_power(0.0, sd, margin, n, alpha).final_fail) ** cells
