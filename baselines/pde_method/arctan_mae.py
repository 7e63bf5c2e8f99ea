import math

import torch
from torch import Tensor, nn

from suite import IntUniform, Paper, pde_method
from suite.train.pinn import PdeMethod, Problem, magnitude


@pde_method(
    "arctan-mae",
    paper=Paper(
        "xPatch: Dual-Stream Time Series Forecasting with Exponential Seasonal-Trend Decomposition",
        arxiv="2412.17323",
        year=2024,
    ),
    defaults={"slices": 32},
    space={"slices": IntUniform(2, 128)},
    families=("pde",),
    system="arctan-loss",
    confidence="verified",
)
class ArctanMAE(PdeMethod):
    """Absolute values in place of squares, weighted by 1 + pi/4 - arctan(i) in time slice i = 1, 2, ...

    The weights fall from 1 to .2146: early times count most, as near horizons do in the forecasts that the
    loss is from. Conditions have weight 1.

    Parameters
    ----------
    slices : time slices of equal duration.
    """

    def __init__(self, problem: Problem, *, slices: int) -> None:
        super().__init__(problem)
        problem.require(problem.domain.time is not None, "time axis")
        self.slices = slices

    def penalty(self, residual: Tensor) -> Tensor:
        return residual.abs()

    def horizon_weights(self, points: Tensor) -> Tensor:
        """(n,) weights of the slices that the points lie in."""
        domain = self.problem.domain
        assert domain.time is not None
        low, high = domain.lows[domain.time], domain.highs[domain.time]
        share = (points[:, domain.time] - low) / (high - low)
        index = (share * self.slices).floor().clamp(0, self.slices - 1) + 1
        return 1 + math.pi / 4 - torch.arctan(index)

    def terms(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        residual = self.residual(network, points)
        self.pointwise = magnitude(residual)
        factors = self.horizon_weights(points) if weights is None else self.horizon_weights(points) * weights
        return [self.mean_penalty(residual * factors[:, None]), *self.condition_terms(network)]
