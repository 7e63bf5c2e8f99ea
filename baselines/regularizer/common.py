"""Which parameters a penalty is on."""

from __future__ import annotations

from torch import Tensor, nn

from suite.train.roles import named_parameters


def weights(model: nn.Module, roles: tuple[str, ...] = ("matrix", "conv", "embedding", "head")) -> list[Tensor]:
    """Trainable parameters of these roles; by default everything that weight decay is meant for."""
    return [p for p, info in named_parameters(model) if info.role in roles and p.requires_grad]


def total(terms: list[Tensor]) -> Tensor:
    """Sum of scalars."""
    return sum(terms[1:], start=terms[0])
