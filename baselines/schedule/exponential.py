from baselines.schedule.warmup import after_warmup, warmup_factor
from suite import LogUniform, Uniform, schedule


@schedule(
    "exponential",
    defaults={"warmup": 0.05, "floor": 0.01},
    space={"warmup": Uniform(0.0, 0.2), "floor": LogUniform(1e-4, 0.3)},
    confidence="known",
)
def exponential(step: float, total: float, *, warmup: float, floor: float) -> float:
    """Linear warm-up, then exponential decay f**u to the final multiplier f (`floor`, positive)."""
    return warmup_factor(step, total, warmup) * floor ** after_warmup(step, total, warmup)
