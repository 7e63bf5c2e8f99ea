from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from baselines.attention.common import Mixer, causal_bias
from suite import Paper, attention


@attention(
    "softmax-attention",
    paper=Paper("Attention Is All You Need", arxiv="1706.03762", year=2017),
    defaults={"bias": False},
)
class SoftmaxAttention(Mixer):
    """softmax(QKᵀ/√d) V in every head."""

    def __init__(self, features: int, heads: int, causal: bool, *, bias: bool = False) -> None:
        super().__init__(features, heads, causal, bias=bias)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        if q.is_cuda:
            return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        scores = (q / math.sqrt(q.shape[-1])) @ k.mT
        if self.causal:
            scores = scores + causal_bias(q.shape[-2], q.device, q.dtype)
        return scores.softmax(-1) @ v
