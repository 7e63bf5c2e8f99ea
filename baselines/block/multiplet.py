from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.block.common import matched_width
from suite import Paper, block
from suite.train.roles import mark, mark_residual

POWERS = (-3, 1, 5)
FLOOR = 1e-3


class Multiplets(nn.Module):
    """Weighted Lehmer means m Σ w x^p / Σ w x^(p-1) + b of positive inputs, for p in -3, 1 and 5.

    The three means of a multiplet share their weights, the softplus of what is stored.

    Parameters
    ----------
    inputs : channels in.
    count : multiplets; 3 · count channels come out.
    """

    def __init__(self, inputs: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((count, inputs), math.log(math.e - 1)))
        self.gain = nn.Parameter(torch.ones(len(POWERS) * count))
        self.bias = nn.Parameter(torch.zeros(len(POWERS) * count))
        mark(self, "other")

    def forward(self, x: Tensor) -> Tensor:
        weight = F.softplus(self.weight)
        means = torch.cat([lehmer_mean(x, weight, power) for power in POWERS], dim=-1)
        return self.gain * means + self.bias


def lehmer_mean(x: Tensor, weight: Tensor, power: int) -> Tensor:
    """Σ w x^p / Σ w x^(p-1), (..., count), of x > 0 (..., inputs) with weights (count, inputs).

    The mean is homogeneous, so inputs are taken in units of their largest, or of
    their smallest where p < 1: no power is greater than 1.
    """
    unit = (x.amin(-1, keepdim=True) if power < 1 else x.amax(-1, keepdim=True)).detach()
    below = (x / unit) ** (power - 1)
    return unit * F.linear(below * (x / unit), weight) / F.linear(below, weight)


@block(
    "multiplet",
    paper=Paper("An Informal Introduction to Multiplet Neural Networks", arxiv="2006.01606", year=2020),
    defaults={"matched": True},
    families=("pde", "vision"),
    confidence="partly",
)
class MultipletFeedForward(nn.Module):
    """Multiplets of Lehmer means of softplus(x), then a linear map, at the plain block's parameters.

    Each multiplet gives m Σ w x^p / Σ w x^(p-1) + b, the weighted harmonic-like,
    arithmetic and maximum-like means p = -3, 1 and 5. The author's toy code clips
    weights and inputs to positive values; here they pass through softplus, and a
    linear map reads the means, so that any number of signed channels comes out.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for.
    activation : not used.
    matched : take as many multiplets as give the plain block's parameters, else `hidden` / 3.
    """

    def __init__(
        self, features: int, hidden: int, activation: Callable[[int], nn.Module] | None = None, matched: bool = True
    ) -> None:
        super().__init__()
        count = matched_width(features, hidden, each=4 * features + 6, fixed=features) if matched else -(-hidden // 3)
        self.multiplets = Multiplets(features, count)
        self.down = mark_residual(nn.Linear(len(POWERS) * count, features))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.multiplets(F.softplus(x) + FLOOR))
