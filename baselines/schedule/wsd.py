"""Warm-up, constant peak, cooldown (WSD), with the cooldown shapes of arXiv 2405.18392's released code.

With t in [0, 1] the progress through the cooldown and f the final multiplier, a
shape s gives f + (1 - f) s(t); the exponential shape gives f**t itself.
"""

from __future__ import annotations

import math

from baselines.schedule.warmup import warmup_factor
from suite import LogUniform, Paper, Uniform, schedule

BEYOND = Paper(
    "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", arxiv="2405.18392", year=2024
)
COOLDOWN = Paper(
    "Training Dynamics of the Cooldown Stage in Warmup-Stable-Decay Learning Rate Scheduler",
    arxiv="2508.01483",
    year=2025,
)
DEFAULTS = {"warmup": 0.05, "cooldown": 0.2, "floor": 0.0}
SPACE = {"warmup": Uniform(0.0, 0.2), "cooldown": Uniform(0.05, 0.8), "floor": Uniform(0.0, 0.2)}
FAMILIES = ("language", "vision", "pde")


def cooldown_progress(step: float, total: float, share: float) -> float:
    """t = (step - (T - D)) / D with D = share * T, held to [0, 1]; share 0 has no cooldown."""
    length = share * total
    return min(1.0, max(0.0, (step - (total - length)) / length)) if length > 0 else 0.0


@schedule("wsd", paper=BEYOND, defaults=DEFAULTS, space=SPACE, families=FAMILIES, confidence="verified")
def wsd(step: float, total: float, *, warmup: float, cooldown: float, floor: float) -> float:
    """Linear cooldown, s = 1 - t.

    Parameters
    ----------
    warmup, cooldown : shares of the budget.
    floor : f, the multiplier at the end.
    """
    t = cooldown_progress(step, total, cooldown)
    return warmup_factor(step, total, warmup) * _lifted(1.0 - t, floor)


@schedule(
    "wsd-cosine",
    paper=COOLDOWN,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="wsd",
    confidence="verified",
)
def wsd_cosine(step: float, total: float, *, warmup: float, cooldown: float, floor: float) -> float:
    """Half-cosine cooldown, s = (1 + cos(pi t)) / 2."""
    t = cooldown_progress(step, total, cooldown)
    return warmup_factor(step, total, warmup) * _lifted(_half_cosine(t), floor)


@schedule(
    "wsd-mirror-cosine",
    paper=COOLDOWN,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="wsd",
    confidence="verified",
)
def wsd_mirror_cosine(step: float, total: float, *, warmup: float, cooldown: float, floor: float) -> float:
    """The half-cosine mirrored at the straight line, s = 2 (1 - t) - (1 + cos(pi t)) / 2."""
    t = cooldown_progress(step, total, cooldown)
    return warmup_factor(step, total, warmup) * _lifted(2.0 * (1.0 - t) - _half_cosine(t), floor)


@schedule(
    "wsd-square",
    paper=COOLDOWN,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="wsd",
    confidence="verified",
)
def wsd_square(step: float, total: float, *, warmup: float, cooldown: float, floor: float) -> float:
    """Late cooldown, s = 1 - t^2."""
    t = cooldown_progress(step, total, cooldown)
    return warmup_factor(step, total, warmup) * _lifted(1.0 - t * t, floor)


@schedule(
    "wsd-sqrt",
    paper=BEYOND,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="wsd",
    confidence="verified",
)
def wsd_sqrt(step: float, total: float, *, warmup: float, cooldown: float, floor: float) -> float:
    """Early cooldown ("1-sqrt"), s = 1 - sqrt(t): the shape the paper recommends."""
    t = cooldown_progress(step, total, cooldown)
    return warmup_factor(step, total, warmup) * _lifted(1.0 - math.sqrt(t), floor)


@schedule(
    "wsd-exp",
    paper=BEYOND,
    defaults={"warmup": 0.05, "cooldown": 0.2, "floor": 0.01},
    space={"warmup": Uniform(0.0, 0.2), "cooldown": Uniform(0.05, 0.8), "floor": LogUniform(1e-4, 0.3)},
    families=FAMILIES,
    system="wsd",
    confidence="verified",
)
def wsd_exp(step: float, total: float, *, warmup: float, cooldown: float, floor: float) -> float:
    """Exponential cooldown, f**t; `floor` (f) must be positive."""
    return warmup_factor(step, total, warmup) * floor ** cooldown_progress(step, total, cooldown)


def _lifted(shape: float, floor: float) -> float:
    return floor + (1.0 - floor) * shape


def _half_cosine(t: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * t))
