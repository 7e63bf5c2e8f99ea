"""The quality gate's verdict: did a change make a task worse."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from suite.stats.intervals import exact_mean, sample_sd, satterthwaite
from suite.stats.paired import t_statistic
from suite.stats.power import minimum_detectable_effect
from suite.stats.resample import FloatArray

GateVerdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class GateDecision(NamedTuple):
    """Outcome of one batch of the quality gate; differences are head - base, + is worse.

    Attributes
    ----------
    verdict : PASS, FAIL (a candidate until a second batch confirms it) or INCONCLUSIVE.
    mean, upper : mean difference and its one-sided upper 1 - alpha t-bound.
    p : one-sided p of "no worse".
    margin : what counts as worse, in the metric's unit.
    n : pairs.
    detectable : smallest true shift these pairs would have shown with 80% power, one-sided.
    """

    verdict: GateVerdict
    mean: float
    upper: float
    p: float
    margin: float
    n: int
    detectable: float


def t1_decision(
    base: npt.ArrayLike, head: npt.ArrayLike, margin: float, direction: str = "min", alpha: float = 0.05
) -> GateDecision:
    """The gate's decision on one batch of paired runs of one (method, task).

    With d = head - base signed so that + is worse: PASS when the one-sided
    upper 1 - alpha t-bound of mean d is under the margin; FAIL (a candidate)
    when mean d > margin and the one-sided paired t test of d > 0 gives p <
    alpha; else INCONCLUSIVE. `suite.stats.gate_power` states the error rates.

    Parameters
    ----------
    base, head : (n,) finite scores of the same seeds in the same order; failures
        are a verdict of their own and must not get here.
    margin : max(1 seed-sd of the task, absolute floor), > 0, in the metric's unit.
    direction : "min" when a lower score is better, else "max".
    """
    before, after = _signed(base, head, margin, direction)
    if before.shape != after.shape or before.ndim != 1 or before.size == 0:
        raise ValueError(f"base and head need the same seeds, got shapes {before.shape} and {after.shape}")
    d = after - before
    n, mean = len(d), exact_mean(d)
    if n < 2:
        return GateDecision("INCONCLUSIVE", mean, math.inf, math.nan, margin, n, math.inf)
    t, _ = t_statistic(d)
    p = float(stdtr(n - 1, -t))
    sd = sample_sd(d)
    upper = mean + float(stdtrit(n - 1, 1 - alpha)) * sd / math.sqrt(n)
    detectable = minimum_detectable_effect(n, sd, alpha, two_sided=False) if sd > 0 else 0.0
    verdict = _gate_words(upper, p < alpha and mean > margin, margin)
    return GateDecision(verdict, mean, upper, p, margin, n, detectable)


def _signed(base: npt.ArrayLike, head: npt.ArrayLike, margin: float, direction: str) -> tuple[FloatArray, FloatArray]:
    """Scores of both sides, signed so that + is worse, or an error that says what cannot be judged."""
    if direction not in ("min", "max"):
        raise ValueError(f"direction must be 'min' or 'max', got {direction!r}")
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    sign = 1.0 if direction == "min" else -1.0
    before, after = sign * np.asarray(base, dtype=np.float64), sign * np.asarray(head, dtype=np.float64)
    if not (np.all(np.isfinite(before)) and np.all(np.isfinite(after))):
        raise ValueError("a score is not finite: failed runs are compared as counts, not as scores")
    return before, after


def unpaired_decision(
    base: npt.ArrayLike, head: npt.ArrayLike, margin: float, direction: str = "min", alpha: float = 0.005
) -> GateDecision:
    """The gate's decision where `head` ran on seeds that `base` has no runs of (Welch's t).

    A second batch of this kind meets the same base runs as the first one did,
    so that the two are not independent; at alpha = 0.005 an unchanged suite of
    24 cells of 5 + 5 seeds still fails in 2% of the cases (simulated).

    Parameters
    ----------
    base, head : (n,) and (m,) finite scores, n, m >= 2.
    margin, direction : as in `t1_decision`.
    alpha : one-sided level of a FAIL; a PASS needs the 95% bound below the margin, as there.
    """
    before, after = _signed(base, head, margin, direction)
    if min(len(before), len(after)) < 2:
        raise ValueError("two scores a side are needed")
    mean = exact_mean(after) - exact_mean(before)
    variances = [sample_sd(x) ** 2 / len(x) for x in (before, after)]
    error = math.sqrt(math.fsum(variances))
    if error == 0.0:
        verdict = _gate_words(mean, mean > margin, margin)
        return GateDecision(verdict, mean, mean, 0.0 if mean > 0 else 1.0, margin, len(after), 0.0)
    df = float(satterthwaite(variances, [len(before) - 1, len(after) - 1]))
    p, upper = float(stdtr(df, -mean / error)), mean + float(stdtrit(df, 0.95)) * error
    detectable = (float(stdtrit(df, 1 - alpha)) + float(stdtrit(df, 0.8))) * error
    failed = p < alpha and mean > margin
    return GateDecision(_gate_words(upper, failed, margin), mean, upper, p, margin, len(after), detectable)


def _gate_words(upper: float, failed: bool, margin: float) -> GateVerdict:
    return "PASS" if upper < margin else "FAIL" if failed else "INCONCLUSIVE"


def t2_decision(first: GateDecision, second: GateDecision) -> GateVerdict:
    """Verdict after a second, fresh batch; the batches are not pooled.

    A first PASS stands. Else PASS when the second batch passes, FAIL when both
    batches fail each on its own, INCONCLUSIVE otherwise: an unchanged cell then
    fails with the square of one batch's false-alarm rate.
    """
    if first.verdict == "PASS" or second.verdict == "PASS":
        return "PASS"
    return "FAIL" if first.verdict == second.verdict == "FAIL" else "INCONCLUSIVE"
