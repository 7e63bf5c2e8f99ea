from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from baselines.attention.common import Mixer, visible
from suite import Paper, attention


@attention(
    "linear-attn",
    paper=Paper("Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", arxiv="2006.16236"),
    defaults={"eps": 1e-6},
    system="fast-weights",
    confidence="verified",
)
class LinearAttention(Mixer):
    """S_t q/(z_t·q) with S_t = Σ v kᵀ and z_t = Σ k over s <= t, q and k through elu + 1.

    Computed as a (time, time) matrix, which is faster than the recurrence at
    the lengths of these tasks.
    """

    def __init__(self, features: int, heads: int, causal: bool, *, eps: float = 1e-6) -> None:
        super().__init__(features, heads, causal)
        self.eps = eps

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        weights = (F.elu(q) + 1) @ (F.elu(k) + 1).mT
        if self.causal:
            weights = weights * visible(q.shape[-2], q.device)
        return (weights @ v) / (weights.sum(-1, keepdim=True) + self.eps)
