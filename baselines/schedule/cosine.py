import math

from baselines.schedule.warmup import after_warmup, warmup_factor
from suite import IntUniform, Paper, Uniform, schedule

SGDR = Paper("SGDR: Stochastic Gradient Descent with Warm Restarts", arxiv="1608.03983", year=2017)


@schedule(
    "cosine",
    paper=SGDR,
    defaults={"warmup": 0.05, "floor": 0.0},
    space={"warmup": Uniform(0.0, 0.2), "floor": Uniform(0.0, 0.2)},
    confidence="known",
)
def cosine(step: float, total: float, *, warmup: float, floor: float) -> float:
    """Linear warm-up, then half a cosine: f + (1 - f) (1 + cos(pi u)) / 2, with u the progress after the warm-up.

    Parameters
    ----------
    warmup : share of the budget.
    floor : f, the multiplier at the end of the budget.
    """
    return cyclic_cosine(step, total, warmup=warmup, floor=floor, cycles=1)


@schedule(
    "cyclic-cosine",
    paper=SGDR,
    defaults={"warmup": 0.05, "floor": 0.0, "cycles": 4},
    space={"warmup": Uniform(0.0, 0.2), "floor": Uniform(0.0, 0.2), "cycles": IntUniform(2, 8)},
    families=("vision", "language"),
    confidence="known",
)
def cyclic_cosine(step: float, total: float, *, warmup: float, floor: float, cycles: int) -> float:
    """Linear warm-up, then `cycles` equal half-cosines, each from the peak down to `floor`.

    The restart is immediate (SGDR without growing cycles); the last cycle ends
    with the budget.
    """
    turns = cycles * after_warmup(step, total, warmup)
    phase = turns - min(math.floor(turns), cycles - 1)
    return warmup_factor(step, total, warmup) * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * phase)))
