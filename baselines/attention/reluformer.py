from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from baselines.attention.common import Mixer, visible
from suite import LogUniform, Paper, Uniform, attention

TINY = 1e-8


class WithPenalty(torch.autograd.Function):
    """The first argument; in the backward pass the second counts as part of the loss."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, penalty: Tensor) -> Tensor:
        ctx.save_for_backward(penalty)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (penalty,) = ctx.saved_tensors
        return gradient, torch.ones_like(penalty)


def row_penalty(weights: Tensor, seen: Tensor, margin: float) -> Tensor:
    """Mean over rows of |log Σ_j a_ij| and of the entropy of a_i/Σ_j a_ij beyond margin·log n_i; empty rows left out.

    Parameters
    ----------
    weights : a, (batch, heads, time, time).
    seen : n, (time,) keys that each query sees.
    margin : share of the largest entropy that is free.
    """
    total = weights.sum(-1)
    share = weights / (total[..., None] + TINY)
    entropy = -(share * share.clamp(min=TINY).log()).sum(-1)
    rows = (total + TINY).log().abs() + torch.relu(entropy - margin * seen.clamp(min=2).log())
    full = (total > 0).to(rows.dtype)
    return (rows * full).sum() / full.sum().clamp(min=1)


@attention(
    "reluformer",
    paper=Paper("A Study on ReLU and Softmax in Transformer", arxiv="2302.06461", year=2023),
    defaults={"penalty": 0.01, "margin": 0.7},
    space={"penalty": LogUniform(1e-4, 1.0), "margin": Uniform(0.3, 1.0)},
    families=("language", "rlvr"),
    confidence="partly",
    surrogate=True,
    vmap=False,
)
class ReluFormer(Mixer):
    """Weights ReLU(q·k/√d)/(γ·√(n/2)) with n keys in sight, a learnt γ per head and penalties on their rows.

    In training |log Σ a| and the entropy beyond a margin, averaged over rows, are added
    to the gradient (not to the reported loss). Neither the penalties' weight nor the
    margin of the paper is confirmed: they are hyper-parameters here.

    Parameters
    ----------
    penalty : weight of the penalties.
    margin : entropy that is free, as a share of log n.
    """

    def __init__(self, features: int, heads: int, causal: bool, *, penalty: float = 0.01, margin: float = 0.7) -> None:
        super().__init__(features, heads, causal)
        self.penalty, self.margin = penalty, margin
        self.log_gamma = nn.Parameter(torch.zeros(heads))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        time = q.shape[-2]
        weights = torch.relu((q / math.sqrt(q.shape[-1])) @ k.mT)
        if self.causal:
            weights = weights * visible(time, q.device)
        seen = torch.arange(1, time + 1, device=q.device) if self.causal else torch.full((time,), time, device=q.device)
        seen = seen.to(q.dtype)
        weights = weights * (-self.log_gamma).exp()[:, None, None] * (2 / seen).sqrt()[:, None]
        if self.training and torch.is_grad_enabled():
            weights = WithPenalty.apply(weights, self.penalty * row_penalty(weights, seen, self.margin))
        return weights @ v
