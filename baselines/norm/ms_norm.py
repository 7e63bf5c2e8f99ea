from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from baselines.norm.common import channels_last
from suite import Paper, norm

LOW_MEMORY = Paper(
    "Reducing Fine-Tuning Memory Overhead by Approximate and Memory-Sharing Backpropagation", arxiv="2406.16282"
)


class FromOutput(torch.autograd.Function):
    """Normalise the last dim; the backward pass needs the output and its scale, not the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, centre: bool) -> Tensor:
        if centre:
            x = x - x.mean(-1, keepdim=True)
        scale = (x.square().mean(-1, keepdim=True) + eps).rsqrt()
        y = x * scale
        ctx.centre = centre
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        y, scale = ctx.saved_tensors
        along = grad - y * (grad * y).mean(-1, keepdim=True)
        return scale * (along - grad.mean(-1, keepdim=True) if ctx.centre else along), None, None


@norm(
    "ms-ln",
    paper=LOW_MEMORY,
    defaults={"eps": 1e-5},
    families=("vision", "language", "rlvr"),
    system="ms-norm",
    confidence="verified",
    vmap=False,
)
class MemorySharingLayerNorm(nn.Module):
    """Layer normalisation without gain and bias, back-propagated from its output.

    Only the memory differs from `layernorm`: the next linear layer shares the saved output.
    """

    centre = True

    def __init__(self, features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return channels_last(lambda t: FromOutput.apply(t, self.eps, self.centre), x)


@norm(
    "ms-rmsnorm",
    paper=LOW_MEMORY,
    defaults={"eps": 1e-6},
    families=("vision", "language", "rlvr"),
    system="ms-norm",
    confidence="verified",
    vmap=False,
)
class MemorySharingRMSNorm(MemorySharingLayerNorm):
    """RMS normalisation without gain, back-propagated from its output."""

    centre = False

    def __init__(self, features: int, eps: float = 1e-6) -> None:
        super().__init__(features, eps)
