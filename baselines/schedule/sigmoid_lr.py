import math

from suite import Paper, Uniform, schedule


@schedule(
    "sigmoid-lr",
    paper=Paper(
        "xPatch: Dual-Stream Time Series Forecasting with Exponential Seasonal-Trend Decomposition",
        arxiv="2412.17323",
        year=2025,
    ),
    defaults={"steepness": 0.5, "stretch": 10.0, "warmup": 10.0},
    space={"steepness": Uniform(0.2, 1.0), "stretch": Uniform(4.0, 10.0), "warmup": Uniform(4.0, 15.0)},
    confidence="verified",
)
def sigmoid_lr(step: float, total: float, *, steepness: float, stretch: float, warmup: float) -> float:
    """Difference of sigmoids, s(k (e - w)) - s((k/m) (e - m w)) at e = 100 t/T, s the logistic function.

    As published it is exactly 0 at t = 0 and, with the defaults, ends at half of
    the peak.

    Parameters
    ----------
    steepness : k.
    stretch : m, how much later and slower the fall is than the rise.
    warmup : w, middle of the rise in percent of the budget.
    """
    percent = 100.0 * min(1.0, step / total)
    rise = _logistic(steepness * (percent - warmup))
    fall = _logistic(steepness / stretch * (percent - stretch * warmup))
    return max(0.0, rise - fall)


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))
