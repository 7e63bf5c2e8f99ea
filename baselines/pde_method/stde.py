"""Random estimates of the Laplacian in Taylor mode: one jet a direction instead of one a dimension."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from suite import Choice, IntUniform, Paper, pde_method
from suite.train.derivatives import Field
from suite.train.jets import directional_laplacian
from suite.train.pinn import PdeMethod, Problem

STDE = Paper(
    "Stochastic Taylor Derivative Estimator: Efficient amortization for arbitrary differential operators",
    arxiv="2412.00088",
    year=2024,
)
DEFAULTS = {"directions": 16, "unbiased": False}
SPACE = {"directions": IntUniform(1, 64), "unbiased": Choice(False, True)}


class DirectionalLaplacian(PdeMethod):
    """Replaces the Laplacian by ``factor`` times the sum of vᵀHv over random directions v of each point.

    The estimate is unbiased, its square is not: the mean squared residual
    gains the estimator's variance. With `unbiased`, the loss is the product of
    the residuals of two independent draws, at twice the cost.

    Parameters
    ----------
    problem : an equation that contains the Laplacian.
    directions : random directions of each point, at most the dimension.
    unbiased : take two independent draws for the two factors of the square.
    """

    def __init__(self, problem: Problem, *, directions: int, unbiased: bool) -> None:
        super().__init__(problem)
        problem.require(problem.target.laplacian, "Laplacian to estimate")
        self.directions, self.unbiased = min(directions, problem.domain.dims), unbiased
        self.second: Tensor | None = None

    @abstractmethod
    def draw(self, points: Tensor) -> tuple[Tensor, float]:
        """Directions (m, n, d) on the points' device, and the factor that makes the sum's mean the trace."""

    def fields(self, network: nn.Module, points: Tensor) -> tuple[Field, ...]:
        directions, factor = self.draw(points)
        return directional_laplacian(network, points, directions, factor)

    def terms(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        if not self.unbiased:
            return super().terms(network, points, weights)
        other = self.residual(network, points)
        first = super().residual(network, points)
        return [(first * other).sum(1).mean(), *self.condition_terms(network)]


@pde_method(
    "stde-sparse", paper=STDE, defaults=DEFAULTS, space=SPACE, families=("pde",), system="stde", confidence="verified"
)
class SparseSTDE(DirectionalLaplacian):
    """Coordinate directions drawn without replacement at each point: d/B times the sum of their second derivatives."""

    def draw(self, points: Tensor) -> tuple[Tensor, float]:
        n, d = points.shape
        order = torch.rand(n, d, generator=self.problem.generator).topk(self.directions, dim=1).indices
        one_hot = nn.functional.one_hot(order.T.to(points.device), d).to(points.dtype)
        return one_hot, d / self.directions


@pde_method(
    "stde-dense", paper=STDE, defaults=DEFAULTS, space=SPACE, families=("pde",), system="stde", confidence="verified"
)
class DenseSTDE(DirectionalLaplacian):
    """Rademacher directions drawn at each point: the mean of vᵀHv."""

    def draw(self, points: Tensor) -> tuple[Tensor, float]:
        signs = torch.randint(0, 2, (self.directions, *points.shape), generator=self.problem.generator)
        return (2 * signs - 1).to(points), 1 / self.directions
