"""The gate's speed and memory verdicts: exact counters first, then interleaved step times."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suite.gate.quality import FAIL, INCONCLUSIVE, PASS, Verdict

# column -> what it counts; the last only on CUDA
COUNTERS = {
    "flops": "flops",
    "elementwise": "elements",
    "saved_bytes": "memory",
    "state_bytes": "optimizer state",
    "peak_cuda_bytes": "peak memory",
}
COUNTER_MARGIN = 0.05
TIME_MARGIN, TIME_MARGIN_CUDA = 0.10, 0.05


def known(value: Any) -> bool:
    """Whether a count is there: a finite number, no greater than a float can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def counters(task: str, method: str, base: Mapping[str, Any], head: Mapping[str, Any], **more: Any) -> list[Verdict]:
    """Exact counts of the training, the same on every machine: growth over 5% fails, and so does a count that is gone.

    A growth that the reference recipe shows too is the engine's, and stands on
    the reference's own row as well.

    Parameters
    ----------
    base, head : counts by column; what base does not have is not held.
    more : further fields of the verdicts.
    """
    verdicts = []
    for column, question in COUNTERS.items():
        old, new = base.get(column), head.get(column)
        if not known(old):
            continue
        if not known(new):
            rule = f"exact count: {old:.6g} before, missing or not a number now"
            verdicts.append(Verdict(task, method, question, FAIL, rule, margin=COUNTER_MARGIN, **more))
            continue
        growth = new / old - 1 if old else (math.inf if new else 0.0)
        verdict = FAIL if growth > COUNTER_MARGIN else PASS
        rule = f"exact count: {old:.6g} before, {new:.6g} now"
        held = COUNTER_MARGIN
        verdicts.append(Verdict(task, method, question, verdict, rule, growth, growth, growth, held, held, **more))
    return verdicts


@dataclass(frozen=True)
class Timing:
    """One measurement of head's step time over base's, as log ratios; + is slower.

    Attributes
    ----------
    value, low, high : log ratio with its 95% interval.
    itself : |log ratio| of base against base in the same job (the A/A arm); NaN where it was not measured.
    pairs : ABBA quadruples behind it.
    seconds : what it took.
    """

    value: float
    low: float
    high: float
    itself: float = math.nan
    pairs: int = 0
    seconds: float = 0.0

    def decide(self, margin: float) -> tuple[str, str]:
        """(verdict, why): FAIL above `margin`, PASS below it, INCONCLUSIVE between or where the machine cannot tell."""
        held = math.log1p(margin)
        if self.itself > held / 2:
            return INCONCLUSIVE, f"machine too noisy: base against itself is {math.expm1(self.itself):.0%} off"
        if self.low > held:
            return FAIL, "slower"
        if self.high < held:
            return PASS, "no slower"
        return INCONCLUSIVE, "too few or too noisy steps to tell"


def step_time(task: str, method: str, timings: Sequence[Timing], margin: float = TIME_MARGIN, **more: Any) -> Verdict:
    """Step time of head over base's; FAIL when every measurement fails, a fresh second one included.

    Parameters
    ----------
    timings : one, or two where the first did not pass.
    margin : relative growth that counts.
    more : further fields of the verdict.
    """
    decided = [timing.decide(margin) for timing in timings]
    last, (verdict, why) = timings[-1], decided[-1]
    if verdict == FAIL and (len(timings) < 2 or any(word != FAIL for word, _ in decided)):
        verdict, why = INCONCLUSIVE, "slower, not confirmed by a second measurement"
    ratios = ", then ".join(f"{math.exp(t.value):.3f}" for t in timings)
    rule = f"{why}: step time head / base {ratios} ({last.pairs} ABBA pairs"
    rule += ")" if math.isnan(last.itself) else f"; base / base off by {math.expm1(last.itself):.1%})"
    half = (last.high - last.low) / 2
    effect, low, high = (math.expm1(v) for v in (last.value, last.low, last.high))
    detectable = math.expm1(math.log1p(margin) + half)
    seconds = sum(t.seconds for t in timings)
    return Verdict(
        task, method, "step time", verdict, rule, effect, low, high, margin, detectable, seconds=seconds, **more
    )


def against_stored(stored: Mapping[str, Any], now: Mapping[str, Any], itself: float = math.nan) -> Timing:
    """Growth of a cost ratio to the reference, stored and measured now; both intervals count.

    Parameters
    ----------
    stored, now : cost_ratio, cost_low and cost_high.
    itself : |log ratio| of the reference against itself in this job.
    """
    value = math.log(now["cost_ratio"] / stored["cost_ratio"])
    low, high = math.log(now["cost_low"] / stored["cost_high"]), math.log(now["cost_high"] / stored["cost_low"])
    return Timing(value, low, high, itself, int(now.get("pairs", 0) or 0), float(now.get("seconds", 0.0)))
