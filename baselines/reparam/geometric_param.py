from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from baselines.reparam.common import HIDDEN, per_unit, weights
from suite import Paper, reparam
from suite.train.roles import mark


def angles_of(rows: Tensor) -> Tensor:
    """(out, n) rows to (out, n - 1) hyperspherical angles: row k cos θ_k Π_{j<k} sin θ_j, up to its length."""
    tails = rows.square().flip(1).cumsum(1).flip(1).sqrt()
    angles = torch.atan2(tails[:, 1:], rows[:, :-1])
    angles[:, -1] = torch.atan2(rows[:, -1], rows[:, -2])
    return angles


def directions(angles: Tensor) -> Tensor:
    """(out, n - 1) angles to (out, n) unit rows."""
    ones = torch.ones_like(angles[:, :1])
    sines = torch.cat([ones, angles.sin().cumprod(1)], 1)
    return sines * torch.cat([angles.cos(), ones], 1)


class Hyperspherical(nn.Module):
    """Every output unit's weights as a radius and the angles of their direction."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, radius: Tensor, angles: Tensor) -> Tensor:
        return (radius[:, None] * directions(angles)).view(self.shape)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        rows = weight.flatten(1)
        return torch.linalg.vector_norm(rows, dim=1), angles_of(rows)


class SignedRadius(nn.Module):
    """A unit with one input: its radius times the sign it started with."""

    sign: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("sign", torch.where(weight < 0, -1.0, 1.0).to(weight))

    def forward(self, radius: Tensor) -> Tensor:
        return per_unit(radius, self.sign) * self.sign

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.flatten().abs()


class TimesRadius(nn.Module):
    """A bias as offset times the radius of the layer's weights."""

    def __init__(self, layer: nn.Module, name: str) -> None:
        super().__init__()
        self.layer = (layer, name)  # in a tuple, so that the layer does not become its own submodule

    def radius(self) -> Tensor:
        stored = self.layer[0].parametrizations[self.layer[1]]
        return stored.original0 if hasattr(stored, "original0") else stored.original

    def forward(self, offset: Tensor) -> Tensor:
        return self.radius() * offset

    def right_inverse(self, bias: Tensor) -> Tensor:
        return bias / self.radius().clamp(min=torch.finfo(bias.dtype).tiny)


@reparam(
    "geometric-param",
    paper=Paper("ReLU Characteristic Activation Analysis", arxiv="2305.15912", year=2023),
    families=("vision", "pde"),
    confidence="verified",
)
def geometric_param(model: nn.Module) -> None:
    """Hidden units r·(v(θ)·x + λ): radius r, direction v(θ) by hyperspherical angles, offset λ.

    The recipe's weights are the start. The paper takes ten times the usual learning rate and
    mean-only batch normalisation before the layers (`geometric-param+mean-only-bn`).
    """
    for module, name, info in weights(model, HIDDEN):
        weight = getattr(module, name)
        shape = Hyperspherical(weight.shape) if info.fan_in > 1 else SignedRadius(weight)
        parametrize.register_parametrization(module, name, mark(shape, "other"), unsafe=True)
        if getattr(module, "bias", None) is not None:
            parametrize.register_parametrization(module, "bias", TimesRadius(module, name))
