"""Output layers that losses bring, and their parts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.activation.rep_relu import RepReLU


class Normalised(nn.Module):
    """x/‖x‖ along the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class Cosine(nn.Linear):
    """cos(x, w_c)·scale for the vector w_c of each class."""

    def __init__(self, features: int, outputs: int, scale: float) -> None:
        super().__init__(features, outputs, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1))


class Probe(nn.Linear):
    """A linear layer through which no gradient reaches its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class NonNegative(nn.Linear):
    """A linear layer of rectified weights."""

    def __init__(self, features: int, outputs: int, bias: bool) -> None:
        super().__init__(features, outputs, bias=bias)
        self.rectify = RepReLU()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.rectify(self.weight), self.bias)


class FixedDirections(nn.Module):
    """⟨x, d_c⟩·scale for fixed unit vectors d_c, (outputs, features)."""

    def __init__(self, directions: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("directions", directions)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(x, self.directions)


class ContinuedFraction(nn.Linear):
    """The real root y of a y³ + y = m·(wᵀx + b), with learnable a and m of each output.

    Evaluated as `cf-line` is. a starts at 1 and enters by its absolute value, m starts at 0.
    """

    def __init__(self, features: int, outputs: int, bias: bool) -> None:
        super().__init__(features, outputs, bias=bias)
        self.a = nn.Parameter(torch.ones(outputs))
        self.m = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        root = torch.sqrt(3.0 * self.a.abs().clamp(min=1e-6))
        return 2.0 / root * torch.sinh(torch.asinh(1.5 * root * self.m * super().forward(x)) / 3.0)


STEPS, RATE, SLACK = 100_000, 1e-3, 1e-4


def equiangular(count: int, dims: int) -> Tensor:
    """(count, dims) unit vectors, nearly orthogonal to each other; the same at every call.

    They are orthonormal where dims allow it. Else Gaussian directions are moved
    by gradient steps of 1e-3 on Σ_{i≠j} max(0, |⟨d_i, d_j⟩| - t), each renormalised
    after every step, until no |⟨d_i, d_j⟩| is above t + 1e-4. t is 1.5 times the Welch
    bound √((count - dims)/(dims (count - 1))), below which no such set exists.
    """
    stream = torch.Generator().manual_seed(0)
    drawn = torch.randn(count, dims, generator=stream, dtype=torch.float64)
    if count <= dims:
        return torch.linalg.qr(drawn.mT)[0].mT.float()
    bound = 1.5 * math.sqrt((count - dims) / (dims * (count - 1)))
    directions = F.normalize(drawn, dim=1)
    for _ in range(STEPS):
        products = (directions @ directions.mT).fill_diagonal_(0)
        if products.abs().max() <= bound + SLACK:
            break
        push = torch.where(products.abs() > bound, products.sign(), 0.0)
        directions = F.normalize(directions - 2 * RATE * push @ directions, dim=1)
    return directions.float()
