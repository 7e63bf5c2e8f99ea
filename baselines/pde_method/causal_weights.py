import torch
from torch import Tensor, nn

from suite import IntUniform, Paper, pde_method
from suite.train.pinn import PdeMethod, Problem, magnitude

EPSILONS = (1e-2, 1e-1, 1.0, 10.0, 100.0)
SETTLED = 0.99  # smallest weight at which the next epsilon starts


@pde_method(
    "causal-weights",
    paper=Paper("Respecting causality is all you need for training PINNs", arxiv="2203.07404", year=2022),
    defaults={"slices": 32},
    space={"slices": IntUniform(8, 64)},
    families=("pde",),
    confidence="verified",
)
class CausalWeights(PdeMethod):
    """Time slice i of the residual is weighted by exp(-eps * sum of the losses of strictly earlier slices).

    The initial condition counts as the earliest slice, of weight 1. Once every weight exceeds 0.99, eps
    moves to the next of 0.01, 0.1, 1, 10, 100; it never moves back.
    """

    def __init__(self, problem: Problem, *, slices: int) -> None:
        super().__init__(problem)
        problem.require(problem.domain.time is not None, "time axis")
        self.slices = slices
        self.register_buffer("stage", torch.zeros((), dtype=torch.long))
        self.register_buffer("epsilons", torch.tensor(EPSILONS), persistent=False)
        self.smallest: Tensor | None = None

    def set_progress(self, fraction: float) -> None:
        if self.smallest is not None:
            settled = (self.smallest > SETTLED).long()
            self.stage.copy_((self.stage + settled).clamp(max=len(EPSILONS) - 1))

    def terms(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        residual = self.residual(network, points)
        self.pointwise = magnitude(residual)
        if weights is not None:
            residual = residual * weights[:, None]
        losses, filled = self.slice_losses(points, self.penalty(residual).sum(1))
        earlier = losses.detach().cumsum(0) - losses.detach()
        causal = torch.exp(-self.epsilons[self.stage] * earlier)
        self.smallest = causal.min()
        return [(causal * losses).sum() / filled, *self.condition_terms(network)]

    def slice_losses(self, points: Tensor, penalties: Tensor) -> tuple[Tensor, Tensor]:
        """Mean penalty (slices,) in each slice of equal duration, 0 where it has no point; number of filled slices."""
        time = self.problem.domain.time
        assert time is not None
        phase = (self.embed_time(points[:, time]) * self.slices).long().clamp(0, self.slices - 1)
        total = torch.zeros(self.slices, device=points.device).index_add(0, phase, penalties)
        count = torch.zeros_like(total).index_add(0, phase, torch.ones_like(penalties))
        return total / count.clamp(min=1), (count > 0).sum()

    def embed_time(self, time: Tensor) -> Tensor:
        """Time as a fraction of the domain's duration."""
        domain = self.problem.domain
        assert domain.time is not None
        low, high = domain.lows[domain.time], domain.highs[domain.time]
        return (time - low) / (high - low)
