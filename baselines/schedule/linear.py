from baselines.schedule.warmup import after_warmup, warmup_factor
from suite import Paper, Uniform, schedule

REFINEMENT = Paper(
    "When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement", arxiv="2310.07831", year=2023
)


@schedule("linear-decay", paper=REFINEMENT, families=("vision", "language", "pde"), confidence="verified")
def linear_decay(step: float, total: float) -> float:
    """Linear decay over the whole budget, 1 - t/T: the worst-case optimal schedule for the last iterate."""
    return max(0.0, 1.0 - step / total)


@schedule(
    "linear",
    paper=REFINEMENT,
    defaults={"warmup": 0.05, "floor": 0.0},
    space={"warmup": Uniform(0.0, 0.2), "floor": Uniform(0.0, 0.2)},
    confidence="known",
)
def linear(step: float, total: float, *, warmup: float, floor: float) -> float:
    """Linear warm-up to the peak, then a straight line to `floor` at the end of the budget.

    Without warm-up and floor it is `linear-decay`.
    """
    return warmup_factor(step, total, warmup) * (1.0 - (1.0 - floor) * after_warmup(step, total, warmup))
