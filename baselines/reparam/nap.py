from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.norm.common import channels_last
from baselines.reparam.common import WEIGHTS, weights
from baselines.reparam.constraint import Constraint, Owner, constrain
from baselines.reparam.norms import norms
from suite import Choice, Paper, reparam
from suite.train.roles import activations


class KeptNorm(Constraint):
    """W ← ρ·W/‖W‖ with the Frobenius norm ρ that W started from; a weight that starts at 0 is left alone."""

    radius: Tensor

    def __init__(self, owners: Sequence[Owner]) -> None:
        super().__init__(owners)
        self.register_buffer("radius", torch.stack(torch._foreach_norm(self.weights())).detach())

    def apply_to(self, weights: list[Tensor], step: int) -> None:
        norms = torch.stack(torch._foreach_norm(weights))
        factors = torch.where((self.radius > 0) & (norms > 0), self.radius / norms, 1.0)
        torch._foreach_mul_(weights, list(factors.unbind()))


def standardise(activation: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """(x - mean)/√(var + 1e-5) over the channels of an activation's input."""
    x, *rest = inputs
    return channels_last(lambda y: F.layer_norm(y, y.shape[-1:]), x), *rest


def unnormalised(model: nn.Module) -> Iterator[nn.Module]:
    """The activations that do not come right after a norm in the module that holds both."""
    normal = {id(getattr(parent, name)) for parent, name, _ in norms(model)}
    sites = {id(site) for site in activations(model)}
    for parent in model.modules():
        before: nn.Module | None = None
        for child in parent.children():
            if id(child) in sites and id(before) not in normal:
                yield child
            before = child


@reparam(
    "nap",
    paper=Paper("Normalization and effective learning rates in reinforcement learning", arxiv="2407.01800", year=2024),
    defaults={"head": True},
    space={"head": Choice(False, True)},
    families=("vision", "language"),
    confidence="partly",
    vmap=False,
)
def nap(model: nn.Module, *, head: bool = True) -> None:
    """Normalise and project: after each update W ← ρ·W/‖W‖_F, ρ its norm at the start; every activation normalised.

    A layer normalisation over channels, without gain and bias, is put before each
    activation that does not follow one of the recipe's norms. What the paper does with
    the gains and biases of norms is not confirmed; here they are trained freely.

    Parameters
    ----------
    head : project the output layer too.
    """
    roles = WEIGHTS if head else tuple(role for role in WEIGHTS if role != "head")
    for activation in list(unnormalised(model)):
        activation.register_forward_pre_hook(standardise)
    constrain(KeptNorm([(module, name) for module, name, _ in weights(model, roles)]))
