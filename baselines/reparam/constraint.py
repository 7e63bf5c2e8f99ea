"""Weights that are put right in place after each update of the optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Owner = tuple[nn.Module, str]


class Constraint(nn.Module):
    """Changes weights after each update; a child of the layer that owns the first of them.

    Parameters
    ----------
    owners : the layer and the attribute of each weight.
    """

    steps: Tensor

    def __init__(self, owners: Sequence[Owner]) -> None:
        super().__init__()
        self.owners = tuple(owners)  # in a tuple, so that the layers do not become submodules
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.taken: int | None = None

    def weights(self) -> list[Tensor]:
        """The constrained weights, in the order of their owners."""
        return [getattr(layer, name) for layer, name in self.owners]

    def after_step(self) -> None:
        """Count the update, and put the weights right."""
        if self.taken is None:  # `steps` may come from a checkpoint; read once, since a GPU has to be waited for
            self.taken = int(self.steps)
        self.taken += 1
        self.steps += 1
        with torch.no_grad():
            self.apply_to(self.weights(), self.taken)

    @abstractmethod
    def apply_to(self, weights: list[Tensor], step: int) -> None:
        """Change the `weights` in place after update number `step`, counted from 1."""


def constrain(constraint: Constraint) -> None:
    """Let a constraint act in every training of the model that its weights belong to."""
    if constraint.owners:
        constraint.owners[0][0].add_module("constraint", constraint)
