"""Verdicts: does a claim hold, did a change make a task worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import comb, stdtr, stdtrit

from suite.stats.board import Board, as_board
from suite.stats.intervals import exact_mean, satterthwaite, t_half_width, t_interval
from suite.stats.paired import t_statistic
from suite.stats.power import minimum_detectable_effect
from suite.stats.ranks import holm
from suite.stats.resample import FloatArray
from suite.stats.table import TableError

ClaimVerdict = Literal["holds", "does not separate", "opposite", "not tested"]
GateVerdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class Claim(NamedTuple):
    """Verdict on "A is better than B".

    Attributes
    ----------
    verdict : holds, does not separate, opposite, or not tested (fewer than two pairs).
    difference, low, high : mean of A - B, + as the claim says, with its t-interval.
    n : pairs.
    p : two-sided p of the paired t test.
    detectable : smallest true difference these pairs would have shown with 80% power, at the measured sd.
    """

    verdict: ClaimVerdict
    difference: float
    low: float
    high: float
    n: int
    p: float
    detectable: float


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


def claim_verdict(differences: npt.ArrayLike, alpha: float = 0.05) -> Claim:
    """Verdict from paired differences A - B, signed so that + is what the claim says.

    "holds" when the two-sided 1 - alpha t-interval lies above 0, "opposite" when
    below; a wrong sign is declared in alpha / 2 of the cases at most.

    Parameters
    ----------
    differences : (n,) finite, one a seed (or a task).
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not np.all(np.isfinite(d)):
        raise ValueError("differences are a 1-d array of finite values")
    if len(d) < 2:
        mean = exact_mean(d)
        return Claim("not tested", mean, math.nan, math.nan, len(d), math.nan, math.inf)
    found, (_, p), sd = t_interval(d, 1.0 - alpha), t_statistic(d), float(np.std(d, ddof=1))
    detectable = minimum_detectable_effect(len(d), sd, alpha) if sd > 0 else 0.0
    return Claim(_claim_words(p < alpha, found.value), found.value, found.low, found.high, len(d), p, detectable)


def _claim_words(separated: bool, difference: float) -> ClaimVerdict:
    if not separated or difference == 0:
        return "does not separate"
    return "holds" if difference > 0 else "opposite"


def fisher_exact(failed_a: int, n_a: int, failed_b: int, n_b: int) -> float:
    """Two-sided p of equal failure rates, by Fisher's exact test on the 2 x 2 table of failures."""
    total, failures = n_a + n_b, failed_a + failed_b
    k = np.arange(max(0, failures - n_b), min(n_a, failures) + 1)
    chance = comb(n_a, k) * comb(n_b, failures - k) / comb(total, failures)
    observed = chance[failed_a - k[0]]
    return min(1.0, float(np.sum(chance[chance <= observed * (1 + 1e-9)])))


def claim_table(
    runs: pd.DataFrame | Board, a: str, b: str, tasks: Sequence[str] | None = None, alpha: float = 0.05
) -> pd.DataFrame:
    """Verdict on "a is better than b" on every task and on all of them together.

    Runs are paired by seed. Tasks are corrected by Holm for being several.
    Where runs failed and fewer than two pairs are left, the verdict is that of
    Fisher's exact test on the failures. The row "all" takes these tasks as
    given: each task's mean difference in units of the sd of `b` there (pooled
    with that of `a`), averaged, with the seeds' t-interval.

    Returns
    -------
    DataFrame with columns task, verdict, difference, low, high (the task's
    unit, + as claimed; on row "all" standard deviations), n, p (Holm within the
    tasks), detectable, failed_a, failed_b. The interval is the task's own, uncorrected.
    """
    board = as_board(runs)
    i, j = (_index(board, name) for name in (a, b))
    wanted = [t for t, name in enumerate(board.cells.tasks) if tasks is None or name in tasks]
    rows = [_task_claim(board, i, j, t, alpha) for t in wanted]
    tested = [k for k, row in enumerate(rows) if np.isfinite(row["p"])]
    for k, p in zip(tested, holm([rows[k]["p"] for k in tested]), strict=True):
        rows[k]["p"] = float(p)
        rows[k]["verdict"] = _claim_words(p < alpha, rows[k]["sign"])
    rows.append(_pooled_claim(board, i, j, wanted, alpha))
    return pd.DataFrame(rows).drop(columns="sign")


def _index(board: Board, name: str) -> int:
    if name not in board.cells.methods:
        raise TableError(f"no runs of method {name!r}")
    return board.cells.methods.index(name)


def _pairs(board: Board, i: int, j: int, t: int) -> tuple[FloatArray, FloatArray]:
    a, b = board.cells.utility[i, t], board.cells.utility[j, t]
    both = np.isfinite(a) & np.isfinite(b)
    return a[both], b[both]


def _task_claim(board: Board, i: int, j: int, t: int, alpha: float) -> dict[str, Any]:
    a, b = _pairs(board, i, j, t)
    claim = claim_verdict(a - b, alpha)
    finished, failed = board.counts
    lost = int(failed[i, t]), int(failed[j, t])
    p, sign = claim.p, claim.difference
    if claim.n < 2 and any(lost):
        tries = lost[0] + int(finished[i, t]), lost[1] + int(finished[j, t])
        if min(tries) > 0:
            p = fisher_exact(lost[0], tries[0], lost[1], tries[1])
            sign = lost[1] / tries[1] - lost[0] / tries[0]
    row = {"task": board.cells.tasks[t], **claim._asdict(), "failed_a": lost[0], "failed_b": lost[1]}
    return {**row, "p": p, "sign": sign}


def _pooled_claim(board: Board, i: int, j: int, tasks: list[int], alpha: float) -> dict[str, Any]:
    means, variances, freedom = [], [], []
    for t in tasks:
        a, b = _pairs(board, i, j, t)
        if len(a) < 2:
            continue
        sd = math.sqrt(0.5 * (float(np.var(a, ddof=1)) + float(np.var(b, ddof=1))))
        if sd > 0:
            means.append(exact_mean(a - b) / sd)
            variances.append(float(np.var(a - b, ddof=1)) / sd**2 / len(a))
            freedom.append(len(a) - 1)
    failed = board.counts[1]
    lost = {"failed_a": int(failed[i, tasks].sum()), "failed_b": int(failed[j, tasks].sum())}
    if not means:
        nothing = Claim("not tested", math.nan, math.nan, math.nan, 0, math.nan, math.inf)
        return {"task": "all", **nothing._asdict(), **lost, "sign": math.nan}
    mean, error = exact_mean(means), math.sqrt(math.fsum(variances)) / len(means)
    df = float(satterthwaite(variances, freedom))
    half = float(t_half_width(error, 1, 1 - alpha, df=df))
    p = 2.0 * float(stdtr(df, -abs(mean) / error)) if error > 0 else float(mean == 0.0)
    detectable = (float(stdtrit(df, 1 - alpha / 2)) + float(stdtrit(df, 0.8))) * error
    claim = Claim(_claim_words(p < alpha, mean), mean, mean - half, mean + half, len(means), p, detectable)
    return {"task": "all", **claim._asdict(), **lost, "sign": mean}


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
    before, after = np.asarray(base, dtype=np.float64), np.asarray(head, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 1 or before.size == 0:
        raise ValueError(f"base and head need the same seeds, got shapes {before.shape} and {after.shape}")
    if not (np.all(np.isfinite(before)) and np.all(np.isfinite(after))):
        raise ValueError("a score is not finite: failed runs are compared as counts, not as scores")
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    if direction not in ("min", "max"):
        raise ValueError(f"direction must be 'min' or 'max', got {direction!r}")
    d = (after - before) * (1.0 if direction == "min" else -1.0)
    n, mean = len(d), exact_mean(d)
    if n < 2:
        return GateDecision("INCONCLUSIVE", mean, math.inf, math.nan, margin, n, math.inf)
    t, _ = t_statistic(d)
    p = float(stdtr(n - 1, -t))
    sd = float(np.std(d, ddof=1))
    upper = mean + float(stdtrit(n - 1, 1 - alpha)) * sd / math.sqrt(n)
    detectable = minimum_detectable_effect(n, sd, alpha, two_sided=False) if sd > 0 else 0.0
    verdict = _gate_words(upper, p < alpha and mean > margin, margin)
    return GateDecision(verdict, mean, upper, p, margin, n, detectable)


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
    sign = 1.0 if direction == "min" else -1.0
    before, after = sign * np.asarray(base, dtype=np.float64), sign * np.asarray(head, dtype=np.float64)
    if min(len(before), len(after)) < 2 or not margin > 0:
        raise ValueError("two scores a side and a positive margin are needed")
    mean = exact_mean(after) - exact_mean(before)
    variances = [float(np.var(x, ddof=1)) / len(x) for x in (before, after)]
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
