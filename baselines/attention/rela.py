from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from baselines.attention.common import Mixer, visible
from suite import Paper, attention
from suite.train.roles import mark


class GatedRMSNorm(nn.Module):
    """scale ⊙ o/√(mean(o²) + eps) ⊙ σ(gate ⊙ o), scale and gate 1 at the start."""

    def __init__(self, features: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.gate = nn.Parameter(torch.ones(features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        scale = (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return self.weight * x * scale * torch.sigmoid(self.gate * x)


@attention(
    "rela-g",
    paper=Paper("Sparse Attention with Linear Units", arxiv="2104.07012", year=2021),
    defaults={"eps": 1e-8},
    families=("language", "rlvr"),
    system="rela",
    confidence="verified",
)
class RectifiedLinearAttention(Mixer):
    """ReLU(QKᵀ/√d) V in every head, then a gated RMS normalisation over the full width."""

    def __init__(self, features: int, heads: int, causal: bool, *, eps: float = 1e-8) -> None:
        super().__init__(features, heads, causal, norm=mark(GatedRMSNorm(features, eps), "norm"))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        weights = torch.relu((q / math.sqrt(q.shape[-1])) @ k.mT)
        if self.causal:
            weights = weights * visible(q.shape[-2], q.device)
        return weights @ v

    def finish(self, mixed: Tensor) -> Tensor:
        return self.out(self.norm(mixed))
