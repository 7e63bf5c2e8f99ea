"""Forward values with the gradient of something else (straight-through estimation)."""

from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(soft: Tensor, hard: Tensor) -> Tensor:
        return hard.view_as(hard)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        return

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def straight_through(soft: Tensor, hard: Tensor) -> Tensor:
    """Value of `hard`, gradient of `soft` (same shape and dtype).

    Unlike ``hard + soft - soft.detach()`` it is exact in every precision and at infinite values.
    """
    return _StraightThrough.apply(soft, hard.detach())
