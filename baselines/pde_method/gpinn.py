import torch
from torch import Tensor, nn

from suite import LogUniform, Paper, pde_method
from suite.train.derivatives import autograd_fields, gradient
from suite.train.pinn import PdeMethod, Problem, magnitude


@pde_method(
    "gpinn",
    paper=Paper(
        "Gradient-enhanced physics-informed neural networks for forward and inverse PDE problems",
        arxiv="2111.02801",
        year=2022,
    ),
    defaults={"weight": 0.01},
    space={"weight": LogUniform(1e-4, 1.0)},
    families=("pde",),
)
class GradientEnhanced(PdeMethod):
    """Adds `weight` times the mean squared gradient of the residual with respect to the coordinates."""

    def __init__(self, problem: Problem, *, weight: float) -> None:
        super().__init__(problem)
        self.weight = weight

    def terms(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        x = points.detach().requires_grad_()
        residual = self.problem.residual(autograd_fields(network, x), x)
        self.pointwise = magnitude(residual)
        slopes = torch.stack([gradient(column, x) for column in residual.unbind(1)], dim=1)
        if weights is not None:
            residual, slopes = residual * weights[:, None], slopes * weights[:, None, None]
        return [
            self.mean_penalty(residual),
            self.weight * slopes.square().sum((1, 2)).mean(),
            *self.condition_terms(network),
        ]
