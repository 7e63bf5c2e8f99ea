from baselines.schedule.warmup import warmup_factor
from suite import Uniform, schedule


@schedule(
    "constant",
    defaults={"warmup": 0.0},
    space={"warmup": Uniform(0.0, 0.2)},
    system="constant-lr",
    confidence="known",
)
def constant(step: float, total: float, *, warmup: float) -> float:
    """Constant learning rate, after a linear warm-up over `warmup` of the budget (none by default)."""
    return warmup_factor(step, total, warmup)
