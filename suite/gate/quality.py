"""The gate's quality verdicts: is what a method reaches still what it was?

d = head - base is signed so that + is worse. T0: bit-identical curves pass. T1: the paired
differences of the same seeds are held against the margin, the larger of the task's seed standard
deviation and its floor. T2: what T1 does not pass is run again on fresh seeds; FAIL needs both
batches to fail, each alone. Runs that end in another way than "ok" are counted, never averaged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from suite.registry import TaskInfo
from suite.stats.intervals import sample_sd
from suite.stats.power import gate_detectable, gate_failure
from suite.stats.verdict import GateDecision, t1_decision, t2_decision, unpaired_decision

PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
T0_SEEDS, T2_SEEDS = 2, 5
TOO_GOOD = 6.0  # margins
OWN_NOISE = 2.0  # false alarms where the margin is the base's own sd, over those at a known sd (simulated: 1.9 to 2.4)
PORTRAIT_TOLERANCE = 1e-4
REVIEW = "needs review"
NAN = float("nan")


@dataclass(frozen=True)
class Verdict:
    """One cell's verdict on one question.

    Attributes
    ----------
    task, method : the cell (of a benchmark: its file and its name).
    question : "quality", "failures", "definition", "presence", "step time", or an exact counter.
    verdict : PASS, FAIL or INCONCLUSIVE.
    rule : which rule decided it, in words.
    effect, low, high : signed so that + is worse, with its interval; NaN where the rule has none. Of
        quality: one-sided 95% bounds.
    margin : what it was held against.
    detectable : smallest true effect that gets a FAIL, with 80% power where there is noise.
    false_alarm : chance that this cell FAILs when nothing changed.
    power_2, power_3 : chance of a FAIL for a true shift of 2 and 3 seed standard deviations.
    seconds : what the verdict cost: run time of both sides, or of the measurement.
    tier : the cell's tier.
    """

    task: str
    method: str
    question: str
    verdict: str
    rule: str
    effect: float = NAN
    low: float = NAN
    high: float = NAN
    margin: float = NAN
    detectable: float = NAN
    false_alarm: float = NAN
    power_2: float = NAN
    power_3: float = NAN
    seconds: float = NAN
    tier: str = ""


@dataclass(frozen=True)
class Facts:
    """What the rules need to know of a task at one tier.

    Attributes
    ----------
    task, tier : names.
    direction : of the metric, "min" or "max".
    best : best possible value of the metric (the source's entropy, 100%), where one is known.
    sd, floor : the task's stored seed standard deviation and the difference that never counts; None: not stored.
    """

    task: str
    tier: str
    direction: str
    best: float | None = None
    sd: float | None = None
    floor: float | None = None

    @classmethod
    def of(cls, info: TaskInfo, tier: str) -> Facts:
        noise = info.noise.get(tier)
        known = (noise.sd, noise.floor) if noise else (None, None)
        return cls(info.name, tier, info.metric.direction, info.metric.floor, *known)

    def margin(self, base: Sequence[float] | np.ndarray) -> float:
        """What counts as worse: max(seed sd, floor); where no noise is stored, the sd of base's own seeds."""
        if self.sd is not None and self.floor is not None and max(self.sd, self.floor) > 0:
            return max(self.sd, self.floor)
        spread = float(np.std(base, ddof=1)) if len(base) > 1 else 0.0
        return max(spread, 1e-6 * max(1.0, float(np.max(np.abs(base)))))


@dataclass(frozen=True)
class Batch:
    """The finished runs of one set of seeds.

    Attributes
    ----------
    base, head : (n,) scores; of the same seeds in the same order when `paired`.
    """

    base: np.ndarray
    head: np.ndarray
    paired: bool = True

    def decide(self, margin: float, direction: str) -> GateDecision:
        """T1 on this batch; INCONCLUSIVE below two finished runs a side."""
        if min(len(self.base), len(self.head)) < 2:
            return GateDecision("INCONCLUSIVE", NAN, NAN, NAN, margin, len(self.head), math.inf)
        decision = t1_decision if self.paired else unpaired_decision
        return decision(self.base, self.head, margin, direction)


def pairs(base: pd.DataFrame, head: pd.DataFrame) -> pd.DataFrame:
    """Runs of the same seeds side by side: columns seed, and every other one with _base and _head."""
    return base.merge(head, on="seed", suffixes=("_base", "_head"), validate="one_to_one")


def identical(base: pd.DataFrame, head: pd.DataFrame) -> bool:
    """Rule T0: every seed gave the same float32 curve and score, in the same environment."""
    both = pairs(base, head)
    same = (both["digest_base"] == both["digest_head"]) & (
        both["environment_hash_base"] == both["environment_hash_head"]
    )
    return len(both) > 0 and bool(same.all()) and bool((both["status_base"] == both["status_head"]).all())


def finished(base: pd.DataFrame, head: pd.DataFrame) -> Batch:
    """The pairs whose runs both ended well."""
    both = pairs(base, head)
    good = both[(both["status_base"] == "ok") & (both["status_head"] == "ok")]
    return Batch(good["score_base"].to_numpy(float), good["score_head"].to_numpy(float))


def unpaired(base: pd.DataFrame, head: pd.DataFrame) -> Batch:
    """The good runs of different seeds."""
    a, b = (rows[rows["status"] == "ok"]["score"].to_numpy(float) for rows in (base, head))
    return Batch(a, b, paired=False)


def failures(facts: Facts, method: str, base: pd.DataFrame, head: pd.DataFrame) -> Verdict:
    """Crashes, NaN, overruns and missing runs, compared as counts over the same seeds: one more is a FAIL."""
    lost = sorted(set(base["seed"]) - set(head["seed"]))
    both = pairs(base, head)
    before, now = (both[f"status_{side}"] != "ok" for side in ("base", "head"))
    more = int(now.sum()) - int(before.sum()) + len(lost)
    rule = f"{int(before.sum())} of {len(both)} runs did not end well before, {int(now.sum())} now"
    if lost:
        rule = f"no run of the seeds {', '.join(map(str, lost))} came back"
    elif more > 0:
        first = both[now & ~before].iloc[0]
        rule += f"; seed {first['seed']} now ends as {first['status_head']}: {str(first['message_head'])[:300]}"
    verdict = FAIL if more > 0 else PASS
    return _verdict(facts, method, "failures", verdict, rule, float(more), margin=0.0, detectable=1.0)


def _verdict(
    facts: Facts, method: str, question: str, verdict: str, rule: str, effect: float, **more: float
) -> Verdict:
    return Verdict(facts.task, method, question, verdict, rule, effect, tier=facts.tier, **more)


def quality(
    facts: Facts,
    method: str,
    base: pd.DataFrame,
    head: pd.DataFrame,
    again: Callable[[], Batch | None] = lambda: None,
) -> Verdict:
    """Compare the same seeds of a cell by T0, T1 and, where they do not pass, T2.

    Parameters
    ----------
    base, head : result rows of the cell, one a seed.
    again : gives the fresh batch of T2; None where no fresh seed can be had.
    """
    if identical(base, head):
        rule = f"T0: {len(pairs(base, head))} curves bit-identical"
        return _verdict(facts, method, "quality", PASS, rule, 0.0, low=0.0, high=0.0, false_alarm=0.0, detectable=0.0)
    first = finished(base, head)
    margin = facts.margin(first.base) if len(first.base) else NAN
    decision = first.decide(margin, facts.direction)
    if doubt := _too_good(facts, decision, first.head):
        return _judged(facts, method, INCONCLUSIVE, f"{REVIEW}: {doubt}", [(first, decision)])
    batches = [(first, decision)]
    if decision.verdict == PASS or math.isnan(margin):
        return _judged(facts, method, decision.verdict, _words("T1", decision), batches)
    fresh = again()
    if fresh is None:
        verdict = INCONCLUSIVE
        rule = f"{_words('T1', decision)}; no fresh seeds to confirm it on"
    else:
        second = fresh.decide(margin, facts.direction)
        batches.append((fresh, second))
        verdict = t2_decision(decision, second)
        rule = f"{_words('T1', decision)}; {_words('T2' if fresh.paired else 'T2, unpaired', second)}"
    return _judged(facts, method, verdict, rule, batches)


def _too_good(facts: Facts, decision: GateDecision, head: np.ndarray) -> str:
    """Why a gain is too good to be true; "" when it is not."""
    if decision.mean < -TOO_GOOD * decision.margin:
        return f"better by over {TOO_GOOD:g} margins"
    if facts.best is None or not len(head):
        return ""
    best = head.min() if facts.direction == "min" else head.max()
    beyond = best < facts.best if facts.direction == "min" else best > facts.best
    return f"a score of {best:.6g} lies beyond {facts.best:g}, the best there can be" if beyond else ""


def _words(rule: str, decision: GateDecision) -> str:
    if decision.n < 2 or math.isnan(decision.mean):
        return f"{rule}: fewer than two pairs of finished runs"
    what = "runs" if "unpaired" in rule else "pairs"
    return f"{rule}: {decision.n} {what}, mean {decision.mean:+.3g}, one-sided p = {decision.p:.2g}, {decision.verdict}"


def _judged(facts: Facts, method: str, verdict: str, rule: str, batches: list[tuple[Batch, GateDecision]]) -> Verdict:
    """A verdict with what its batches can show; the effect is the last batch's."""
    last = batches[-1][1]
    sizes = tuple(d.n for _, d in batches) if len(batches) > 1 else (batches[0][1].n, T2_SEEDS)
    stated: dict[str, float] = {}
    if min(sizes) >= 2 and last.margin > 0:
        first = batches[0][0]
        sd = facts.sd or sample_sd(first.base) or last.margin
        unlucky = 2**0.5 * sd  # seeds that pairing helps nothing
        stated["false_alarm"] = gate_failure(0.0, unlucky, last.margin, sizes) * (1 if facts.sd else OWN_NOISE)
        stated["power_2"], stated["power_3"] = (gate_failure(k * sd, unlucky, last.margin, sizes) for k in (2, 3))
        spread = sample_sd(first.head - first.base)
        stated["detectable"] = gate_detectable(spread, last.margin, sizes) if spread > 0 else last.margin
    low = 2 * last.mean - last.upper
    return _verdict(
        facts, method, "quality", verdict, rule, last.mean, low=low, high=last.upper, margin=last.margin, **stated
    )


def definition(facts: Facts, method: str, base: pd.DataFrame, head: pd.DataFrame) -> list[Verdict]:
    """Whether an activation is still the function it was: values on a grid then and now.

    Results stand under a method's name; a changed function is another method.
    """
    verdicts = []
    stored, now = _portraits(base), _portraits(head)
    for name in sorted(set(stored) & set(now)):
        for part, word in (("y", "value"), ("dy", "derivative")):
            old, new = np.array(stored[name][part], float), np.array(now[name][part], float)
            gap = np.abs(new - old) / (1 + np.abs(old)) if old.shape == new.shape else np.full_like(old, np.inf)
            gap[np.isnan(gap) & (np.isnan(old) != np.isnan(new))] = np.inf
            if not np.nanmax(gap, initial=0.0) > PORTRAIT_TOLERANCE:
                continue
            at = int(np.nanargmax(gap))
            rule = (
                f"its {word} at x = {now[name]['x'][at]:g} was {old[at]:g} and is {new[at]:g}: "
                "another function needs another name, or new results"
            )
            verdicts.append(_verdict(facts, method, "definition", FAIL, rule, float(gap[at])))
            break
    return verdicts


def _portraits(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for text in rows["exhibits"]:
        if text:
            found |= {k: v for k, v in json.loads(text).items() if v.get("kind") == "activation"}
    return found
