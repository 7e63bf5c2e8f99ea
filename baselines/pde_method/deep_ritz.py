import math

import torch
from torch import Tensor, nn

from suite import LogUniform, Paper, pde_method
from suite.train.derivatives import autograd_fields
from suite.train.pinn import PdeMethod, Problem


@pde_method(
    "deep-ritz",
    paper=Paper(
        "The Deep Ritz method: A deep learning-based numerical algorithm for solving variational problems",
        arxiv="1710.00211",
        year=2018,
    ),
    defaults={"penalty_weight": 500.0},
    space={"penalty_weight": LogUniform(1.0, 1e4)},
    families=("pde",),
)
class DeepRitz(PdeMethod):
    """Minimises the equation's energy, integrated over the points, plus weighted mean squared conditions.

    It needs first derivatives only. Samplers are shown |energy density|; their points count as uniform.
    """

    def __init__(self, problem: Problem, *, penalty_weight: float) -> None:
        super().__init__(problem)
        probe = torch.zeros(1, problem.domain.dims)
        problem.target.energy(probe, *autograd_fields(lambda x: x.sum(1, keepdim=True), probe))
        self.penalty_weight = penalty_weight
        domain = problem.domain
        self.volume = math.prod(high - low for low, high in zip(domain.lows, domain.highs, strict=True))

    def terms(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        density = self.problem.target.energy(points, *autograd_fields(network, points))
        self.pointwise = density.detach().abs()
        if weights is not None:
            density = density * weights
        return [
            self.volume * density.mean(),
            *(self.penalty_weight * term for term in self.condition_terms(network)),
        ]
