"""Does A beat B: verdicts of paired comparisons, on one task and over several.

A difference is A - B, signed so that + is better. Three things can be claimed:
"better" (A is better), "equal" (the difference lies inside a margin on either
side) and "no worse" (A is worse by less than the margin).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import chdtri, comb, ndtr, ndtri, stdtr, stdtrit

from suite.stats.board import Board, as_board
from suite.stats.intervals import NO_VALUES, exact_mean, sample_sd, satterthwaite, t_half_width, t_interval
from suite.stats.paired import t_statistic
from suite.stats.power import minimum_detectable_effect
from suite.stats.ranks import holm
from suite.stats.resample import FloatArray
from suite.stats.table import TableError

ClaimVerdict = Literal["holds", "does not separate", "opposite", "not tested"]
Kind = Literal["better", "equal", "no worse"]
ALL = "all"  # the row over all tasks of a claim's table
_SMALLEST_P = 1e-15
_TURNED: dict[ClaimVerdict, ClaimVerdict] = {"holds": "opposite", "opposite": "holds"}
_INNER = ("sign", "plain_p")  # of a row: which side is better, and p before any correction


class Claim(NamedTuple):
    """Verdict on a claim about A and B.

    Attributes
    ----------
    verdict : holds, does not separate, opposite, or not tested (fewer than two pairs).
    difference, low, high : mean of A - B, + is better, with its t-interval.
    n : pairs.
    p : of the claim: two-sided, of the paired t test, for "better"; of the two (one) one-sided tests
        against the margin for "equal" ("no worse").
    detectable : what these pairs could have shown: for "better" the smallest true difference seen with 80% power
        at the measured sd, else the smallest margin that their interval lies inside.
    """

    verdict: ClaimVerdict
    difference: float
    low: float
    high: float
    n: int
    p: float
    detectable: float


NOT_TESTED = Claim("not tested", math.nan, math.nan, math.nan, 0, math.nan, math.inf)


def claim_verdict(differences: npt.ArrayLike, alpha: float = 0.05) -> Claim:
    """Verdict on "A is better" from paired differences A - B, signed so that + is better.

    "holds" when the two-sided 1 - alpha t-interval lies above 0, "opposite" when
    below; a wrong sign is declared in alpha / 2 of the cases at most.

    Parameters
    ----------
    differences : (n,) finite, one a seed (or a task).
    """
    d = _differences(differences)
    if len(d) < 2:
        return NOT_TESTED._replace(difference=exact_mean(d), n=len(d))
    found, (_, p), sd = t_interval(d, 1.0 - alpha), t_statistic(d), sample_sd(d)
    detectable = minimum_detectable_effect(len(d), sd, alpha) if sd > 0 else 0.0
    return Claim(_words(p < alpha, found.value), found.value, found.low, found.high, len(d), p, detectable)


def _differences(values: npt.ArrayLike) -> FloatArray:
    d = np.asarray(values, dtype=np.float64)
    if d.ndim != 1 or not np.all(np.isfinite(d)):
        raise ValueError("differences are a 1-d array of finite values")
    return d


def _words(separated: bool, difference: float) -> ClaimVerdict:
    if not separated or difference == 0:
        return "does not separate"
    return "holds" if difference > 0 else "opposite"


def margin_verdict(differences: npt.ArrayLike, margin: float, kind: Kind = "equal", alpha: float = 0.05) -> Claim:
    """Verdict on "A and B are equal" (or "A is no worse") within a margin, from paired differences A - B.

    With the 1 - 2 alpha t-interval, "equal" holds when it lies inside +-margin:
    two one-sided tests at alpha (Schuirmann 1987; see `tost`). It is opposite
    when the interval lies beyond the margin on either side. "no worse" looks at
    the lower side alone. Where the truth is exactly at the margin, "holds" is
    declared in alpha of the cases at most.

    Parameters
    ----------
    differences : (n,) finite, one a seed, + is better.
    margin : largest difference that counts as none, >= 0.
    """
    d = _differences(differences)
    if kind not in ("equal", "no worse"):
        raise ValueError(f"within a margin two things are 'equal' or one is 'no worse', got {kind!r}")
    if not 0 <= margin < math.inf:
        raise ValueError(f"a margin must be finite and not negative, got {margin}")
    if len(d) < 2:
        return NOT_TESTED._replace(difference=exact_mean(d), n=len(d))
    found = t_interval(d, 1.0 - 2.0 * alpha)
    above, below = _one_sided(d + margin), _one_sided(margin - d)
    p = above if kind == "no worse" else max(above, below)
    p = 0.0 if not d.any() else p  # identical runs are equal within any margin, 0 included
    within = -found.low if kind == "no worse" else max(-found.low, found.high)
    beyond = found.high < -margin or (kind == "equal" and found.low > margin)
    verdict: ClaimVerdict = "holds" if p < alpha else "opposite" if beyond else "does not separate"
    return Claim(verdict, found.value, found.low, found.high, len(d), p, max(within, 0.0))


def _one_sided(d: FloatArray) -> float:
    """p of mean <= 0 against > 0."""
    t, p = t_statistic(d)
    return p / 2 if t > 0 else 1.0 - p / 2


def noise_margin(a: npt.ArrayLike, b: npt.ArrayLike, alpha: float = 0.05) -> float:
    """A seed standard deviation that is not overstated: the lower 1 - alpha bound of the two samples' pooled one.

    s sqrt(df / chi2_{1 - alpha, df}). For a task whose noise was not measured:
    with s itself as the margin, samples that happen to spread widely would call
    themselves equal. nan below two values a sample.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if min(len(x), len(y)) < 2:
        return math.nan
    df = len(x) + len(y) - 2
    squares = sample_sd(x) ** 2 * (len(x) - 1) + sample_sd(y) ** 2 * (len(y) - 1)
    return math.sqrt(squares / float(chdtri(df, alpha)))


def fisher_exact(failed_a: int, n_a: int, failed_b: int, n_b: int) -> float:
    """Two-sided p of equal failure rates, by Fisher's exact test on the 2 x 2 table of failures."""
    total, failures = n_a + n_b, failed_a + failed_b
    k = np.arange(max(0, failures - n_b), min(n_a, failures) + 1)
    chance = comb(n_a, k) * comb(n_b, failures - k) / comb(total, failures)
    observed = chance[failed_a - k[0]]
    return min(1.0, float(np.sum(chance[chance <= observed * (1 + 1e-9)])))


def claim_table(
    runs: pd.DataFrame | Board,
    a: str,
    b: str,
    tasks: Sequence[str] | None = None,
    alpha: float = 0.05,
    *,
    kind: Kind = "better",
    margins: Mapping[str, float] | None = None,
    floors: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Verdict on a claim about `a` and `b` on every task and on all of them together.

    Runs are paired by seed. Where runs failed and fewer than two pairs are left,
    the verdict is that of Fisher's exact test on the failures. An arm that
    failed more often than the other is never called better, equal or no worse.

    "better": tasks are corrected by Holm for being several. The row "all" takes
    these tasks as given: each task's mean difference in units of the sd of `b`
    there (pooled with that of `a`; the task's floor where that is larger, as arms
    that learn nothing may hardly spread), averaged, with the seeds' t-interval.
    Where failures decided a task, or neither arm's runs differ, there is no such
    difference, and the verdict on all is Stouffer's: the mean over tasks of
    z = sign Phi^-1(1 - p / 2), times sqrt(tasks).
    A whole that one of its tasks contradicts does not separate.

    "equal" and "no worse": each task at `alpha` by itself, within its margin.
    On all tasks the claim holds when it holds on every tested one (an
    intersection-union test, which needs no correction), and is opposite when it
    is on one at alpha / tasks.

    Parameters
    ----------
    margins : task -> largest difference that counts as none, in the task's unit; needed for "equal" and "no worse".
        Where it is missing or nan, `noise_margin` of the two arms takes its place.
    floors : task -> smallest standard deviation that counts, in the task's unit; 0 where it is missing.

    Returns
    -------
    DataFrame with columns task, verdict, difference, low, high (the task's
    unit, + is better; on row "all" standard deviations), n (pairs; on row "all"
    tasks), p (Holm within the tasks for "better"), detectable (of claims with
    margins, on row "all", in margins), margin (nan for "better"), failed_a,
    failed_b. The interval is the task's own, uncorrected.
    """
    return pd.DataFrame(claim_rows(as_board(runs), a, b, tasks, alpha, kind=kind, margins=margins, floors=floors))


def claim_rows(
    board: Board,
    a: str,
    b: str,
    tasks: Sequence[str] | None = None,
    alpha: float = 0.05,
    *,
    kind: Kind = "better",
    margins: Mapping[str, float] | None = None,
    floors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """The rows of `claim_table` without a frame around them: a page has a hundred such tables."""
    if kind not in get_args(Kind):
        raise ValueError(f"a claim is one of {', '.join(get_args(Kind))}, got {kind!r}")
    i, j = (_index(board, name) for name in (a, b))
    wanted = [t for t, name in enumerate(board.cells.tasks) if tasks is None or name in tasks]
    rows = [_task_claim(board, i, j, t, kind, alpha, margins or {}) for t in wanted]
    rows.append(_overall(board, i, j, wanted, rows, kind, alpha, margins or {}, floors or {}))
    return [{key: value for key, value in row.items() if key not in _INNER} for row in rows]


def _index(board: Board, name: str) -> int:
    if name not in board.cells.methods:
        raise TableError(f"no runs of method {name!r}")
    return board.cells.methods.index(name)


def _pairs(board: Board, i: int, j: int, t: int) -> tuple[FloatArray, FloatArray]:
    a, b = board.cells.utility[i, t], board.cells.utility[j, t]
    both = np.isfinite(a) & np.isfinite(b)
    return a[both], b[both]


def _task_claim(
    board: Board, i: int, j: int, t: int, kind: Kind, alpha: float, margins: Mapping[str, float]
) -> dict[str, Any]:
    a, b = _pairs(board, i, j, t)
    task, margin = board.cells.tasks[t], math.nan
    if kind != "better":
        margin = margins.get(task, math.nan)
        margin = noise_margin(a, b) if math.isnan(margin) else margin
    if kind == "better" or math.isnan(margin):
        claim = claim_verdict(a - b, alpha)
    else:
        claim = margin_verdict(a - b, margin, kind, alpha)
    lost, tries = _failures(board, i, j, t)
    p, sign, verdict = claim.p, claim.difference, claim.verdict
    if claim.n < 2 and any(lost) and min(tries) > 0:
        p = fisher_exact(lost[0], tries[0], lost[1], tries[1])
        sign = lost[1] / tries[1] - lost[0] / tries[0]
        verdict = _words(p < alpha, -abs(sign) if kind == "equal" else sign)
    verdict = _not_the_one_that_failed(verdict, lost, tries, kind)
    row = {"task": task, **claim._asdict(), "margin": margin, "failed_a": lost[0], "failed_b": lost[1]}
    return {**row, "p": p, "verdict": verdict, "sign": sign, "plain_p": p}


def _failures(board: Board, i: int, j: int, t: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Failed runs and attempts of both arms."""
    finished, failed = board.counts
    lost = int(failed[i, t]), int(failed[j, t])
    return lost, (lost[0] + int(finished[i, t]), lost[1] + int(finished[j, t]))


def _not_the_one_that_failed(
    verdict: ClaimVerdict, lost: tuple[int, int], tries: tuple[int, int], kind: Kind
) -> ClaimVerdict:
    """A verdict from the runs that finished does not stand against the failures of its winner."""
    more = lost[0] * tries[1] - lost[1] * tries[0]  # > 0: A failed more often
    against = more != 0 if kind == "equal" else more > 0
    if (verdict == "holds" and against) or (verdict == "opposite" and kind == "better" and more < 0):
        return "does not separate"
    return verdict


def _overall(
    board: Board, i: int, j: int, tasks: list[int], rows: list[dict[str, Any]], kind: Kind, alpha: float,
    margins: Mapping[str, float], floors: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """The row over all tasks; of "better" it also corrects the tasks' rows by Holm."""
    pooled = _pooled_claim(board, i, j, tasks, alpha if kind == "better" else 2 * alpha, floors)
    lost = [_failures(board, i, j, t) for t in tasks]
    failed = sum(x[0][0] for x in lost), sum(x[0][1] for x in lost)
    tries = sum(x[1][0] for x in lost), sum(x[1][1] for x in lost)
    tested = [row for row in rows if math.isfinite(row["p"])]
    if kind == "better":
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p"] = float(p)
            row["verdict"] = _words(p < alpha, row["sign"]) if row["verdict"] != "does not separate" else row["verdict"]
        if pooled.n < len(tested):
            pooled = _stouffer(tested, pooled, alpha)
        if _TURNED.get(pooled.verdict) in [row["verdict"] for row in tested]:
            pooled = pooled._replace(verdict="does not separate")
    else:
        strict = [_task_claim(board, i, j, t, kind, alpha / max(len(tested), 1), margins)["verdict"] for t in tasks]
        verdict = "opposite" if "opposite" in strict else _on_every(row["verdict"] for row in tested)
        p = max((row["p"] for row in tested), default=math.nan)
        pooled = pooled._replace(verdict=verdict, p=p, detectable=max(map(_in_margins, tested), default=math.inf))
    verdict = _not_the_one_that_failed(pooled.verdict, failed, tries, kind)
    row = {"task": ALL, **pooled._asdict(), "margin": math.nan, "failed_a": failed[0], "failed_b": failed[1]}
    return {**row, "verdict": verdict, "sign": pooled.difference, "plain_p": pooled.p}


def _in_margins(row: Mapping[str, Any]) -> float:
    """Smallest margin that a task's runs show, in margins of the claim."""
    if row["detectable"] == 0:
        return 0.0
    return float(row["detectable"] / row["margin"]) if row["margin"] > 0 else math.inf


def _on_every(verdicts: Iterable[ClaimVerdict]) -> ClaimVerdict:
    """holds where it holds on every tested task."""
    found = set(verdicts)
    if not found:
        return "not tested"
    return "holds" if found == {"holds"} else "does not separate"


def _stouffer(tested: list[dict[str, Any]], pooled: Claim, alpha: float) -> Claim:
    """The pooled estimate with the verdict and p of the tasks' combined tests."""
    z = [float(np.sign(r["sign"]) * -ndtri(max(r["plain_p"], _SMALLEST_P) / 2)) for r in tested]
    total = math.fsum(z) / math.sqrt(len(z))
    p = 2.0 * float(ndtr(-abs(total)))
    return pooled._replace(verdict=_words(p < alpha, total), p=p, n=len(tested))


def _pooled_claim(board: Board, i: int, j: int, tasks: list[int], alpha: float, floors: Mapping[str, float]) -> Claim:
    """Mean over tasks of the standardised differences, for tasks with two pairs or more and some spread."""
    means, variances, freedom = [], [], []
    for t in tasks:
        a, b = _pairs(board, i, j, t)
        if len(a) < 2:
            continue
        sd = math.sqrt(0.5) * math.hypot(sample_sd(a), sample_sd(b))
        if sd > 0:
            unit = max(sd, floors.get(board.cells.tasks[t], 0.0))
            means.append(exact_mean(a - b) / unit)
            variances.append((sample_sd(a - b) / unit) ** 2 / len(a))
            freedom.append(len(a) - 1)
    if not means:
        return NOT_TESTED
    mean, error = exact_mean(means), math.sqrt(math.fsum(variances)) / len(means)
    df = float(satterthwaite(variances, freedom))
    half = float(t_half_width(error, 1, 1 - alpha, df=df))
    p = 2.0 * float(stdtr(df, -abs(mean) / error)) if error > 0 else float(mean == 0.0)
    detectable = (float(stdtrit(df, 1 - alpha / 2)) + float(stdtrit(df, 0.8))) * error
    return Claim(_words(p < alpha, mean), mean, mean - half, mean + half, len(means), p, detectable)


def comparison_table(runs: pd.DataFrame, methods: Sequence[str], alpha: float = 0.05) -> pd.DataFrame:
    """Every method on every task beside the first of them, paired by seed.

    Parameters
    ----------
    runs : see `check_runs`; the reference need not be among the methods.
    methods : names in the order of the table; the others are compared with the first.

    Returns
    -------
    DataFrame with columns task, method, n (finished runs), failed, score,
    score_low, score_high (t-interval, in the metric's unit), pairs, difference,
    low, high (method - first, + is better), t, p, detectable and verdict:
    better, worse, does not separate, failed (no run finished), "" for the
    first. Each verdict holds at `alpha` by itself, as on a task of
    `claim_table`; methods that were not attempted on a task have no row there.
    """
    board = Board.of(runs)
    places = [_index(board, name) for name in methods]
    signs = {str(t): 1.0 if d == "max" else -1.0 for t, d in zip(runs["task"], runs["direction"], strict=True)}
    rows = []
    for t, task in enumerate(board.cells.tasks):
        for m in (m for m in places if board.covered[m, t]):
            rows.append(
                {"task": task, **_score(board, m, t, signs[task], alpha), **_beside(board, m, places[0], t, alpha)}
            )
    return pd.DataFrame(rows)


def _score(board: Board, m: int, t: int, sign: float, alpha: float) -> dict[str, Any]:
    found = board.arms[t][m].utility * sign
    facts = {"method": board.cells.methods[m], "n": len(found), "failed": int(board.counts[1][m, t])}
    score = t_interval(found, 1 - alpha) if len(found) else NO_VALUES
    return {**facts, "score": score.value, "score_low": score.low, "score_high": score.high}


def _beside(board: Board, m: int, base: int, t: int, alpha: float) -> dict[str, Any]:
    """Comparison of one method with the first; nothing to compare for the first itself."""
    if m == base:
        nothing = dict.fromkeys(("difference", "low", "high", "t", "p", "detectable"), math.nan)
        return {"pairs": 0, **nothing, "verdict": ""}
    row = _task_claim(board, m, base, t, "better", alpha, {})
    a, b = _pairs(board, m, base, t)
    words = {"holds": "better", "opposite": "worse"}.get(row["verdict"], "does not separate")
    verdict = words if len(board.arms[t][m].utility) else "failed"
    facts = {name: row[name] for name in ("difference", "low", "high", "p", "detectable")}
    return {"pairs": row["n"], **facts, "t": t_statistic(a - b)[0], "verdict": verdict}
