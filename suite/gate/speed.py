"""The gate's speed and memory verdicts: exact counters first, then interleaved step times."""

from __future__ import annotations

import math

import pandas as pd

from suite.gate.quality import FAIL, INCONCLUSIVE, PASS, Verdict

COUNTERS = {"flops": "flops", "elementwise": "elements", "saved_bytes": "memory", "state_bytes": "optimizer state"}
COUNTER_MARGIN = 0.05
TIME_MARGIN = 0.10


def counters(task: str, method: str, base: pd.Series, head: pd.Series) -> list[Verdict]:
    """Exact counts of the training, the same on every machine: any growth over the margin fails.

    A growth that the reference recipe shows too is the engine's, and is
    reported where it happened: on the reference's own row.
    """
    verdicts = []
    for column, question in COUNTERS.items():
        old, new = base[column], head[column]
        if pd.isna(old) or pd.isna(new):
            continue
        growth = new / old - 1 if old else (0.0 if not new else math.inf)
        verdict = FAIL if growth > COUNTER_MARGIN else PASS
        rule = f"exact count: {old:.4g} before, {new:.4g} now"
        verdicts.append(Verdict(task, method, question, verdict, rule, growth, growth, growth, COUNTER_MARGIN))
    return verdicts


def step_time(task: str, method: str, stored: float, measured: list[dict[str, float]], noise: float) -> Verdict:
    """Step time over the reference's, now against stored, both measured interleaved.

    Parameters
    ----------
    stored : the stored ratio.
    measured : one or more measurements of today's ratio (cost_ratio, cost_low, cost_high).
    noise : |log ratio| of the reference against itself in this job (the A/A arm).

    Notes
    -----
    FAIL when the lower bound passes the margin in every measurement. When the
    A/A arm leaves half the margin the machine cannot tell, and says so.
    """
    logs = [(math.log(m["cost_low"] / stored), math.log(m["cost_high"] / stored)) for m in measured]
    low, high = max(a for a, _ in logs), max(b for _, b in logs)
    effect = math.log(measured[-1]["cost_ratio"] / stored)
    margin = math.log1p(TIME_MARGIN)
    worse = all(a > margin for a, _ in logs)
    if worse and noise > margin / 2:
        verdict, rule = INCONCLUSIVE, f"machine too noisy: the reference against itself is {math.expm1(noise):.0%} off"
    elif worse:
        verdict, rule = FAIL, f"ratio to the reference {stored:.3f} before, {measured[-1]['cost_ratio']:.3f} now"
    else:
        verdict, rule = PASS, f"ratio to the reference {stored:.3f} before, {measured[-1]['cost_ratio']:.3f} now"
    effect, low, high = (math.expm1(v) for v in (effect, low, high))
    return Verdict(task, method, "step time", verdict, rule, effect, low, high, TIME_MARGIN)
