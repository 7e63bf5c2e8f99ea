"""The gate's quality verdicts: is what a method reaches still what it was?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from suite.registry import TaskInfo
from suite.stats.verdict import t1_decision

PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
TOO_GOOD = 6.0  # seed standard deviations
PORTRAIT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Verdict:
    """One cell's verdict on one question.

    Attributes
    ----------
    task, method : the cell.
    question : "quality", "definition", "step time", "flops", "elements", "memory".
    verdict : PASS, FAIL or INCONCLUSIVE.
    rule : which rule decided it, in words.
    effect, low, high : signed so that + is worse, with its 95% interval; NaN where the rule has none.
    margin : what it was held against.
    """

    task: str
    method: str
    question: str
    verdict: str
    rule: str
    effect: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    margin: float = float("nan")


def quality(task: TaskInfo, tier: str, method: str, base: pd.DataFrame, head: pd.DataFrame) -> Verdict:
    """Compare the same seeds of a cell, stored (`base`) and rerun (`head`).

    Equal digests in one environment pass (rule T0). Otherwise the paired
    differences, signed so that + is worse, are held against the margin: the
    larger of the task's seed standard deviation and its floor (rule T1).

    Parameters
    ----------
    base, head : result rows of the cell, one a seed.
    """
    pairs = base.merge(head, on="seed", suffixes=("_base", "_head"))
    if pairs.empty:
        return Verdict(task.name, method, "quality", FAIL, "no run of the stored seeds came back")
    broke = pairs[(pairs["status_base"] == "ok") & (pairs["status_head"] != "ok")]
    if len(broke):
        first = broke.iloc[0]
        why = f"{len(broke)} of {len(pairs)} seeds now end as {first['status_head']}: {first['message_head']}"
        return Verdict(task.name, method, "quality", FAIL, why[:300])
    if (pairs["digest_base"] == pairs["digest_head"]).all():
        return Verdict(task.name, method, "quality", PASS, f"T0: {len(pairs)} curves bit-identical", 0.0, 0.0, 0.0)
    good = pairs[(pairs["status_base"] == "ok") & (pairs["status_head"] == "ok")]
    return _t1(task, tier, method, good["score_base"].to_numpy(float), good["score_head"].to_numpy(float))


def _t1(task: TaskInfo, tier: str, method: str, base: np.ndarray, head: np.ndarray) -> Verdict:
    if len(base) < 2:
        rule = "T1: fewer than two pairs of finished runs, and their digests differ"
        return Verdict(task.name, method, "quality", INCONCLUSIVE, rule)
    noise = task.noise.get(tier)
    margin = max(noise.sd, noise.floor) if noise else float(np.std(base, ddof=1))
    decision = t1_decision(base, head, margin, task.metric.direction)
    verdict: str = decision.verdict
    rule = f"T1: {decision.n} pairs, one-sided p = {decision.p:.2g}; they show {decision.detectable:.3g} with 80% power"
    if decision.mean < -TOO_GOOD * margin:
        verdict, rule = INCONCLUSIVE, f"needs review: better by over {TOO_GOOD:g} seed-sd"
    low = 2 * decision.mean - decision.upper
    return Verdict(task.name, method, "quality", verdict, rule, decision.mean, low, decision.upper, margin)


def definition(task: str, method: str, base: pd.DataFrame, head: pd.DataFrame) -> list[Verdict]:
    """Whether an activation is still the function it was: stored values against values now.

    Results stand under a method's name; a changed function is another method.
    """
    verdicts = []
    stored, now = _portraits(base), _portraits(head)
    for name in sorted(set(stored) & set(now)):
        for part, word in (("y", "value"), ("dy", "derivative")):
            old, new = np.array(stored[name][part]), np.array(now[name][part])
            gap = np.abs(new - old) / (1 + np.abs(old))
            if (
                old.shape == new.shape
                and np.nanmax(gap) <= PORTRAIT_TOLERANCE
                and (np.isnan(old) == np.isnan(new)).all()
            ):
                continue
            at = int(np.nanargmax(gap)) if old.shape == new.shape else 0
            rule = (
                f"its {word} at x = {now[name]['x'][at]:g} was {old[at]:g} and is {new[at]:g}: "
                "another function needs another name, or new results"
            )
            verdicts.append(Verdict(task, method, "definition", FAIL, rule, float(np.nanmax(gap))))
            break
    return verdicts


def _portraits(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for text in rows["exhibits"]:
        if text:
            found |= {k: v for k, v in json.loads(text).items() if v.get("kind") == "activation"}
    return found
