from collections.abc import Sequence

from baselines.schedule.warmup import warmup_factor
from suite import Choice, LogUniform, Paper, Uniform, schedule


@schedule(
    "step-decay",
    paper=Paper("Deep Residual Learning for Image Recognition", arxiv="1512.03385", year=2016),
    defaults={"milestones": (0.5, 0.75), "factor": 0.1, "warmup": 0.0},
    space={
        "milestones": Choice((0.5, 0.75), (0.3, 0.6, 0.8), (0.6, 0.9)),
        "factor": LogUniform(0.05, 0.5),
        "warmup": Uniform(0.0, 0.2),
    },
    families=("vision",),
    confidence="known",
)
def step_decay(step: float, total: float, *, milestones: Sequence[float], factor: float, warmup: float) -> float:
    """Constant, multiplied by `factor` from each milestone on.

    Parameters
    ----------
    milestones : shares of the budget.
    warmup : share of the budget of a linear warm-up (none by default, as published).
    """
    passed = sum(step >= share * total for share in milestones)
    return warmup_factor(step, total, warmup) * factor**passed
