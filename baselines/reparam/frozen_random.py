from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from baselines.reparam.common import HIDDEN, weights
from suite import Paper, Uniform, reparam


class PartlyFrozen(nn.Module):
    """The stored weight where it may move, its first value where it may not."""

    def __init__(self, start: Tensor, frozen: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone())
        self.register_buffer("frozen", frozen)

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.frozen, self.start, weight)


@reparam(
    "frozen-random",
    paper=Paper("Is the Number of Trainable Parameters All That Actually Matters?", arxiv="2109.11928", year=2021),
    defaults={"share": 0.5},
    space={"share": Uniform(0.0, 0.95)},
    families=("vision", "language"),
)
def frozen_random(model: nn.Module, *, share: float = 0.5) -> None:
    """A random share of every hidden matrix stays at its initial values."""
    generator = torch.Generator().manual_seed(0)
    for module, name, _ in weights(model, HIDDEN):
        weight = getattr(module, name)
        frozen = torch.rand(weight.shape, generator=generator) < share
        parametrize.register_parametrization(module, name, PartlyFrozen(weight, frozen.to(weight.device)))
