"""The Laplacian as an average of second derivatives along random directions."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from suite.train.derivatives import Field, directional_by_products
from suite.train.jets import directional_laplacian
from suite.train.pinn import PdeMethod, Problem, magnitude


class DirectionalLaplacian(PdeMethod):
    """Replaces the Laplacian by ``factor`` times the sum of v^T H v over random directions v of each point.

    The estimate is unbiased, but its square is not: the mean squared residual
    gains the estimator's variance. With `unbiased`, the loss is the product of
    the residuals of two independent draws, at twice the cost.

    Parameters
    ----------
    problem : an equation in which derivatives enter through the Laplacian only.
    directions : directions at each point, at most the dimension.
    unbiased : take two independent draws for the two factors of the square.
    taylor : use Taylor mode where the network allows it, else backward Hessian-vector products.
    """

    def __init__(self, problem: Problem, *, directions: int, unbiased: bool, taylor: bool = True) -> None:
        super().__init__(problem)
        problem.require(problem.target.laplacian, "Laplacian to estimate")
        self.directions = min(directions, problem.domain.dims)
        self.unbiased, self.taylor = unbiased, taylor

    @abstractmethod
    def draw(self, points: Tensor) -> tuple[Tensor, float]:
        """Directions (m, n, d) on the points' device, and the factor that makes the sum's mean the trace."""

    def fields(self, network: nn.Module, points: Tensor) -> tuple[Field, ...]:
        directions, factor = self.draw(points)
        engine = directional_laplacian if self.taylor and self.problem.taylor else directional_by_products
        return engine(network, points, directions, factor)

    def terms(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        if not self.unbiased:
            return super().terms(network, points, weights)
        first, second = self.residual(network, points), self.residual(network, points)
        self.pointwise = magnitude(first)
        product = (first * second).sum(1)
        if weights is not None:
            product = product * weights.square()
        return [product.mean(), *self.condition_terms(network)]


def rademacher(directions: int, points: Tensor, generator: torch.Generator) -> Tensor:
    """Independent signs (directions, n, d) for points (n, d)."""
    signs = torch.randint(0, 2, (directions, *points.shape), generator=generator, dtype=torch.int8)
    return 2 * signs.to(points) - 1
