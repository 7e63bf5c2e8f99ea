from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, skip_init

from baselines.reparam.common import weights
from suite import Paper, Uniform, reparam
from suite.train.roles import activations, mark

HIDDEN_SIZES = (16, 64, 128)
PAPER = Paper("Magnitude Invariant Parametrizations Improve Hypernetwork Learning", arxiv="2304.07645", year=2023)
DEFAULTS = {"rate": 0.5, "at": 0.5}
SPACE = {"rate": Uniform(0.0, 0.8), "at": Uniform(0.0, 1.0)}
SLOPE = 0.01  # of LeakyReLU
GAIN = math.sqrt(2 / (1 + SLOPE**2))


class Trunk(nn.Module):
    """The hypernetwork's hidden layers, LeakyReLU, on an encoding of its input z in [0, 1].

    In training z is drawn anew for every step, and `drop` drops units at the rate that z
    stands for; in evaluation z is fixed.

    Parameters
    ----------
    inputs : size of the encoding: 2 for cos(πz/2) and sin(πz/2), 1 for z itself.
    rate : dropout rate at z = 1.
    at : z in evaluation.
    stream : where the start is drawn from.
    """

    z: Tensor

    def __init__(self, inputs: int, rate: float, at: float, stream: torch.Generator) -> None:
        super().__init__()
        self.inputs, self.rate, self.at = inputs, rate, at
        sizes = (inputs, *HIDDEN_SIZES)
        self.layers = nn.ModuleList(skip_init(nn.Linear, *pair) for pair in pairwise(sizes))
        for layer in self.layers:
            kaiming(layer.weight, stream)
            nn.init.zeros_(layer.bias)
        self.register_buffer("z", torch.tensor(at))

    def set_progress(self, fraction: float) -> None:
        """Draw the z of the next step."""
        self.z.copy_(torch.rand(()))

    def forward(self) -> Tensor:
        """Hidden values, (128,)."""
        z = self.z if self.training else torch.full_like(self.z, self.at)
        angle = math.pi / 2 * z
        h = torch.stack([angle.cos(), angle.sin()]) if self.inputs == 2 else z[None]
        for layer in self.layers:
            h = F.leaky_relu(layer(h), SLOPE)
        return h

    def drop(self, activation: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Dropout of an activation's output at the rate of the current z."""
        if not self.training:
            return output
        keep = 1 - self.rate * self.z
        return output * (torch.rand_like(output) < keep) / keep


def kaiming(weight: Tensor, stream: torch.Generator) -> None:
    """Kaiming's normal by fan-out for LeakyReLU: standard deviation gain/√out of an (out, in) weight."""
    with torch.no_grad():
        weight.normal_(0.0, GAIN / math.sqrt(len(weight)), generator=stream)


class Shifted(nn.Module):
    """The stored weight θ0, shifted by a linear map of the trunk's hidden values."""

    def __init__(self, weight: Tensor, trunk: Trunk, stream: torch.Generator) -> None:
        super().__init__()
        self.trunk = trunk
        self.output = skip_init(nn.Linear, HIDDEN_SIZES[-1], weight.numel(), bias=False).to(weight)
        kaiming(self.output.weight, stream)
        mark(self.output, "other")

    def forward(self, base: Tensor) -> Tensor:
        return base + self.output(self.trunk()).view_as(base)


class Generated(nn.Module):
    """A weight that is a linear map, the stored matrix, of the trunk's hidden values."""

    def __init__(self, shape: torch.Size, trunk: Trunk) -> None:
        super().__init__()
        self.trunk, self.shape = trunk, shape

    def forward(self, matrix: Tensor) -> Tensor:
        return (matrix @ self.trunk()).view(self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """A matrix of the right size, to be filled."""
        return weight.new_zeros(weight.numel(), HIDDEN_SIZES[-1])


def installed(model: nn.Module, trunk: Trunk) -> Trunk:
    """The trunk, of the model's data type and device, dropping units after every activation of the model."""
    mark(trunk, "other")
    for activation in activations(model):
        activation.register_forward_hook(trunk.drop)
    return trunk.to(next(model.parameters()))


@reparam(
    "mip-hypernet",
    paper=PAPER,
    defaults=DEFAULTS,
    space=SPACE,
    families=("vision",),
    confidence="verified",
    stochastic=True,
    vmap=False,
)
def mip_hypernet(model: nn.Module, *, rate: float = 0.5, at: float = 0.5) -> None:
    """Weights θ0 + h(cos πz/2, sin πz/2) of a hypernetwork h: one model for all dropout rates, z of each step random.

    θ0, learnt, starts as the recipe's weights; h has hidden layers of 16, 64 and 128.
    z ~ U(0, 1) stands for the dropout rate after every activation. Evaluation takes the
    weights of one z.

    Parameters
    ----------
    rate : dropout rate at z = 1.
    at : z in evaluation.
    """
    stream = torch.Generator().manual_seed(0)
    trunk = installed(model, Trunk(2, rate, at, stream))
    for module, name, _ in weights(model):
        parametrize.register_parametrization(module, name, Shifted(getattr(module, name), trunk, stream))


@reparam(
    "hypernet-plain",
    paper=PAPER,
    defaults=DEFAULTS,
    space=SPACE,
    families=("vision",),
    system="mip-hypernet",
    stochastic=True,
    vmap=False,
)
def hypernet_plain(model: nn.Module, *, rate: float = 0.5, at: float = 0.5) -> None:
    """Weights h(z) of a hypernetwork, without encoding or learnt base: the control of `mip-hypernet`."""
    stream = torch.Generator().manual_seed(0)
    trunk = installed(model, Trunk(1, rate, at, stream))
    for module, name, _ in weights(model):
        generated = mark(Generated(getattr(module, name).shape, trunk), "other")
        parametrize.register_parametrization(module, name, generated, unsafe=True)
        kaiming(module.parametrizations[name].original, stream)  # type: ignore[index, arg-type, union-attr]
