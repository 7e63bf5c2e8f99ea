import math

from suite import LogUniform, Paper, Uniform, schedule


@schedule(
    "one-cycle",
    paper=Paper(
        "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
        arxiv="1708.07120",
        year=2018,
    ),
    defaults={"rise": 0.3, "start": 0.04, "end": 4e-6},
    space={"rise": Uniform(0.1, 0.5), "start": LogUniform(0.01, 0.2), "end": LogUniform(1e-6, 1e-2)},
    confidence="known",
)
def one_cycle(step: float, total: float, *, rise: float, start: float, end: float) -> float:
    """One cycle of two half-cosines: from `start` up to 1 over the share `rise`, then down to `end`.

    The defaults are PyTorch's (peak / 25 at the start, that / 10^4 at the end). The
    paper's opposite cycle of the momentum is left out: a schedule scales the
    learning rate only.
    """
    progress = min(1.0, step / total)
    if progress < rise:
        return _between(start, 1.0, progress / rise)
    return _between(1.0, end, (progress - rise) / (1.0 - rise))


def _between(begin: float, end: float, t: float) -> float:
    return end + (begin - end) * 0.5 * (1.0 + math.cos(math.pi * t))
