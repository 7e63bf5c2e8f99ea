from torch import Tensor

from suite import LogUniform, Paper, pde_method
from suite.train.pinn import PdeMethod, Problem

PSEUDO_HUBER = Paper(
    "Improving Diffusion Models's Data-Corruption Resistance using Scheduled Pseudo-Huber Loss",
    arxiv="2403.16728",
    year=2024,
)


@pde_method(
    "pseudo-huber",
    paper=PSEUDO_HUBER,
    defaults={"c": 0.03},
    space={"c": LogUniform(1e-3, 1.0)},
    families=("pde",),
    confidence="verified",
)
class PseudoHuber(PdeMethod):
    """c (sqrt(r^2 + c^2) - c) in place of squares, of the residual and of the conditions: r^2/2, then c |r|."""

    def __init__(self, problem: Problem, *, c: float) -> None:
        super().__init__(problem)
        self.c = c

    def penalty(self, residual: Tensor) -> Tensor:
        return self.c * ((residual.square() + self.c**2).sqrt() - self.c)


@pde_method(
    "pseudo-huber-sched",
    paper=PSEUDO_HUBER,
    defaults={"c": 0.03},
    space={"c": LogUniform(1e-3, 1.0)},
    families=("pde",),
    system="pseudo-huber",
    confidence="partly",
)
class ScheduledPseudoHuber(PseudoHuber):
    """Pseudo-Huber whose width falls exponentially from 1 at the start to `c` at the end of the budget.

    The paper schedules over diffusion time; scheduling over training progress is an adaptation.
    """

    def __init__(self, problem: Problem, *, c: float) -> None:
        super().__init__(problem, c=c)
        self.last = c
        self.set_progress(0.0)

    def set_progress(self, fraction: float) -> None:
        self.c = self.last ** min(1.0, fraction)
