import math

from baselines.schedule.warmup import warmup_factor
from suite import LogUniform, Paper, schedule


@schedule(
    "inverse-sqrt",
    paper=Paper("Attention Is All You Need", arxiv="1706.03762", year=2017),
    defaults={"warmup": 0.05},
    space={"warmup": LogUniform(0.005, 0.3)},
    families=("language",),
    confidence="known",
)
def inverse_sqrt(step: float, total: float, *, warmup: float) -> float:
    """Linear warm-up to 1 at t_w = warmup * total, then sqrt(t_w / t).

    Parameters
    ----------
    warmup : share of the budget; it also sets how fast the decay is, and must be positive.
    """
    return warmup_factor(step, total, warmup) * math.sqrt(warmup * total / max(step, warmup * total))
