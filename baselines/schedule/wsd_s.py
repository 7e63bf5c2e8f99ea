"""WSD with the inverse-linear decay of arXiv 2410.05192, once at the end or at the end of every stage."""

from __future__ import annotations

from baselines.schedule.warmup import warmup_factor
from baselines.schedule.wsd import cooldown_progress
from suite import IntUniform, LogUniform, Paper, Uniform, schedule

RIVER = Paper(
    "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective",
    arxiv="2410.05192",
    year=2024,
)
FAMILIES = ("language", "vision")


@schedule(
    "wsd-inv",
    paper=RIVER,
    defaults={"warmup": 0.05, "decay": 0.1, "floor": 0.1},
    space={"warmup": Uniform(0.0, 0.2), "decay": Uniform(0.05, 0.5), "floor": LogUniform(0.01, 0.3)},
    families=FAMILIES,
    system="wsd-s",
    confidence="partly",
)
def wsd_inv(step: float, total: float, *, warmup: float, decay: float, floor: float) -> float:
    """Warm-up, constant, then a decay whose inverse is linear, 1 / (t/f + 1 - t).

    Parameters
    ----------
    warmup, decay : shares of the budget.
    floor : f, the final multiplier; positive. 0.1 is believed to be the authors' value.
    """
    return warmup_factor(step, total, warmup) * _inverse_linear(cooldown_progress(step, total, decay), floor)


@schedule(
    "wsd-s",
    paper=RIVER,
    defaults={"warmup": 0.05, "decay": 0.1, "floor": 0.1, "stages": 3},
    space={
        "warmup": Uniform(0.0, 0.1),
        "decay": Uniform(0.05, 0.3),
        "floor": LogUniform(0.01, 0.3),
        "stages": IntUniform(2, 4),
    },
    families=FAMILIES,
    confidence="partly",
)
def wsd_s(step: float, total: float, *, warmup: float, decay: float, floor: float, stages: int) -> float:
    """WSD-S: each stage decays over its last part and the next goes on from there at the peak.

    The stages end at T/2^(stages-1), ..., T/2, T, so that one run serves several
    budgets; the decay has the form of `wsd-inv`.

    Parameters
    ----------
    warmup : share of the whole budget.
    decay : share of its own stage.
    floor : multiplier at the end of every stage; positive.
    stages : number of stages.
    """
    begin, end = 0.0, total / 2 ** (stages - 1)
    while step >= end and end < total:
        begin, end = end, 2.0 * end
    t = cooldown_progress(step - begin, end - begin, decay)
    return warmup_factor(step, total, warmup) * _inverse_linear(t, floor)


def _inverse_linear(t: float, floor: float) -> float:
    return 1.0 / (t / floor + (1.0 - t))
