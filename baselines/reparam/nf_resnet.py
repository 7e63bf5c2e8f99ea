from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from baselines.norm.common import per_channel
from baselines.reparam.common import HIDDEN, residual_ends, weights
from baselines.reparam.norms import norms
from baselines.reparam.scaled_ws import ScaledStandardised
from suite import Paper, Uniform, reparam
from suite.train.roles import activations, mark

NODES, REACH = 4001, 10.0  # of the trapezoid rule for Gaussian expectations
WIDTH = 12  # channels to probe an activation on that does not say how many it has


class Offset(nn.Module):
    """x + bias, a bias (0 at the start) per channel: what is left of a norm."""

    def __init__(self, like: Tensor, features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(like.new_zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x + per_channel(self.bias, x)


class Branch(nn.Module):
    """α·s times a tensor, s a learnt scalar that is 0 at the start (SkipInit)."""

    def __init__(self, like: Tensor, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.gain = nn.Parameter(like.new_zeros(()))

    def forward(self, tensor: Tensor) -> Tensor:
        return self.alpha * self.gain * tensor


def unit_gain(activation: nn.Module) -> float:
    """γ = 1/√Var f(z), z ~ N(0, 1), of an elementwise activation f: the mean over its channels where they differ."""
    features = next((len(p) for p in activation.parameters() if p.ndim), WIDTH)
    z = torch.linspace(-REACH, REACH, NODES, dtype=torch.float64)
    mass = torch.exp(-z.square() / 2)[:, None]
    mass = mass / mass.sum()
    with torch.no_grad():
        f = copy.deepcopy(activation).double().cpu().eval()(z[:, None].repeat(1, features))
    variance = (mass * (f - (mass * f).sum(0)).square()).sum(0)
    return float(variance.rsqrt().mean())


def scaled(gain: float, activation: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """The output of an activation times `gain`."""
    return gain * output


@reparam(
    "nf-resnet",
    paper=Paper(
        "Characterizing signal propagation to close the performance gap in unnormalized ResNets",
        arxiv="2101.08692",
        year=2021,
    ),
    defaults={"alpha": 0.2, "floor": 1e-4},
    space={"alpha": Uniform(0.05, 1.0)},
    families=("vision",),
    confidence="partly",
)
def normaliser_free(model: nn.Module, *, alpha: float = 0.2, floor: float = 1e-4) -> None:
    """No normalisation: scaled weight standardisation, activations of unit variance, residual branches x + α·s·F(x).

    Hidden weights are those of `scaled-ws`; every norm leaves a bias per channel; every
    activation f becomes γ·f with γ = 1/√Var f(z), z ~ N(0, 1), exact for the recipe's f;
    s is a learnt scalar per branch, 0 at the start. The paper's blocks apply the
    activation before the branch and divide its input by the standard deviation expected
    at that depth; blocks that apply it after the sum start at variance 1 throughout, so
    that this division is left out.

    Parameters
    ----------
    alpha : α.
    floor : smallest N·var of a unit's weights that is divided by.
    """
    ends, like = residual_ends(model), next(model.parameters())
    for module, name, _ in list(weights(model, HIDDEN)):
        parametrize.register_parametrization(module, name, ScaledStandardised(getattr(module, name), floor))
    for end in ends:
        factor = Branch(like, alpha)
        for name in [n for n in ("weight", "bias") if getattr(end, n, None) is not None]:
            parametrize.register_parametrization(end, name, factor)
    for activation in activations(model):
        activation.register_forward_hook(functools.partial(scaled, unit_gain(activation)))
    for parent, name, features in list(norms(model)):
        setattr(parent, name, mark(Offset(like, features), "norm"))
