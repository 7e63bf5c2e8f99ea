from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.block.common import plain_parameters
from baselines.block.matrix_exp import matmul, matrix_exp
from suite import LogUniform, Paper, block
from suite.train.roles import mark, mark_residual

MATRIX_EXPONENTIAL = Paper("Intelligent Matrix Exponentiation", arxiv="2008.03936", year=2020)
THREE_LAYERS = Paper(
    "Analytical Solution of a Three-layer Network with a Matrix Exponential Activation Function",
    arxiv="2407.02540",
    year=2024,
)


class MatrixExponential(nn.Module):
    """exp(B + Σ_a x_a T_a), flattened: (..., inputs) -> (..., side²).

    T and B start as U(-bound, bound).

    Parameters
    ----------
    inputs : channels in.
    side : rows of the matrices.
    bound : of the start.
    """

    def __init__(self, inputs: int, side: int, bound: float) -> None:
        super().__init__()
        self.side = side
        self.generators = nn.Parameter(torch.empty(side * side, inputs).uniform_(-bound, bound))
        self.origin = nn.Parameter(torch.empty(side * side).uniform_(-bound, bound))
        mark(self, "other")

    def forward(self, x: Tensor) -> Tensor:
        return matrix_exp(F.linear(x, self.generators, self.origin), self.side)


def matched_side(features: int, hidden: int, each: int, fixed: int) -> int:
    """Rows n for which each · n² + fixed is nearest to the plain block's parameters."""
    target = plain_parameters(features, hidden) - fixed
    exact = math.sqrt(max(1.0, target / each))
    return min({max(1, math.floor(exact)), math.ceil(exact)}, key=lambda side: abs(each * side**2 - target))


@block(
    "m-layer",
    paper=MATRIX_EXPONENTIAL,
    defaults={"bound": 0.05},
    space={"bound": LogUniform(0.005, 0.5)},
    families=("vision", "pde"),
    confidence="verified",
    vmap=False,
)
class MLayer(nn.Module):
    """W vec(exp(B + Σ_a x_a T_a)) + b, the M-layer and a linear map, at the plain block's parameters.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for; the matrices have about √hidden rows.
    activation : not used; the exponential is the nonlinearity.
    bound : T and B start as U(-bound, bound).
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module] | None = None,
        bound: float = 0.05,
    ) -> None:
        super().__init__()
        side = matched_side(features, hidden, 2 * features + 1, features)
        self.exponential = MatrixExponential(features, side, bound)
        self.down = mark_residual(nn.Linear(side * side, features))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.exponential(x))


@block(
    "matexp3",
    paper=THREE_LAYERS,
    system="m-layer",
    families=("vision", "pde"),
    confidence="partly",
    vmap=False,
)
class ThreeLayerExponential(nn.Module):
    """W₃ exp(W₂ exp(W₁ X / n) / n) on n x n matrices X between two linear maps, at the plain block's parameters.

    The paper solves for such a network and does not train it. The linear maps and
    the factors 1/n, which keep the exponentials small, are this block's own.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for; the matrices have about √hidden rows.
    activation : not used; the exponentials are the nonlinearity.
    """

    def __init__(self, features: int, hidden: int, activation: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.side = matched_side(features, hidden, 2 * features + 4, features)
        self.up = nn.Linear(features, self.side**2)
        self.first, self.second, self.third = (nn.Linear(self.side, self.side, bias=False) for _ in range(3))
        self.down = mark_residual(nn.Linear(self.side**2, features))

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        for layer in (self.first, self.second):
            y = matrix_exp(matmul(layer.weight.flatten() / self.side, y, self.side), self.side)
        return self.down(matmul(self.third.weight.flatten(), y, self.side))
