from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from baselines.attention.common import Mixer, causal_bias
from suite import IntUniform, Paper, attention
from suite.train.roles import mark


@functools.lru_cache(maxsize=64)
def offsets(time: int, farthest: int, causal: bool, device: torch.device) -> Tensor:
    """(time, time) row of the offset t - s in a table: 0 to `farthest` if causal, else -`farthest` to `farthest`."""
    with torch.inference_mode(False):
        steps = torch.arange(time, device=device)
        between = steps[:, None] - steps[None, :]
        return between.clamp(0, farthest) if causal else between.clamp(-farthest, farthest) + farthest


class Toeplitz(nn.Module):
    """One learnt scalar per offset and head; offsets past `farthest` share the last."""

    def __init__(self, heads: int, farthest: int, causal: bool, start: float) -> None:
        super().__init__()
        self.farthest, self.causal = farthest, causal
        count = farthest + 1 if causal else 2 * farthest + 1
        self.values = nn.Parameter(torch.full((heads, count), start))
        mark(self, "other")

    def forward(self, time: int) -> Tensor:
        """(heads, time, time)."""
        return self.values[:, offsets(time, self.farthest, self.causal, self.values.device)]


@attention(
    "rel-bias-attention",
    paper=Paper(
        "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", arxiv="1910.10683"
    ),
    defaults={"farthest": 128},
    space={"farthest": IntUniform(8, 512)},
)
class RelativeBiasAttention(Mixer):
    """softmax(QKᵀ/√d + B) V with a learnt bias B per head and offset t - s, 0 at the start."""

    def __init__(self, features: int, heads: int, causal: bool, *, farthest: int = 128) -> None:
        super().__init__(features, heads, causal)
        self.bias = Toeplitz(heads, farthest, causal, 0.0)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Attention weights (batch, heads, time, time)."""
        time = q.shape[-2]
        scores = (q / math.sqrt(q.shape[-1])) @ k.mT + self.bias(time)
        if self.causal:
            scores = scores + causal_bias(time, q.device, q.dtype)
        return scores.softmax(-1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        return self.weights(q, k) @ v


@attention(
    "urpe",
    paper=Paper("Your Transformer May Not be as Powerful as You Expect", arxiv="2205.13401", year=2022),
    defaults={"farthest": 128},
    space={"farthest": IntUniform(8, 512)},
    confidence="verified",
)
class UniversalRelativeAttention(RelativeBiasAttention):
    """(softmax(QKᵀ/√d + B) ⊙ C) V: a learnt bias B and a learnt factor C (1 at the start) per head and offset.

    The paper's layers share one C; here every layer has its own.
    """

    def __init__(self, features: int, heads: int, causal: bool, *, farthest: int = 128) -> None:
        super().__init__(features, heads, causal, farthest=farthest)
        self.factor = Toeplitz(heads, farthest, causal, 1.0)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        return super().weights(q, k) * self.factor(q.shape[-2])
