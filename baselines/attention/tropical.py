from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.attention.common import causal_bias
from suite import Paper, attention
from suite.train.roles import mark, mark_residual

PAPER = Paper("Tropical Attention: Neural Algorithmic Reasoning for Combinatorial Algorithms", arxiv="2505.17190")


class MaxPlus(nn.Module):
    """max_i (z_i + W_oi) in place of a linear map's sum of products; W ~ N(0, 1) at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))
        mark(self, "other")

    def forward(self, z: Tensor) -> Tensor:
        return (z[..., None, :] + self.weight).amax(-1)


@attention("tropical", paper=PAPER, system="tropical-attention", confidence="verified")
class TropicalAttention(nn.Module):
    """max_j (s_ij + v_j) with s_ij = -[max(q_i - k_j) - min(q_i - k_j)], on log(1 + relu(x)); out W_o(exp(·) - 1).

    Queries, keys and values are max-plus projections, shared by the heads. A causal
    mixer has s_ij = -∞ for the future. The memory is time²·features per sequence.

    Parameters
    ----------
    features : channels.
    heads : divides `features`.
    causal : whether a token sees only itself and the past.

    Raises
    ------
    ValueError : `heads` does not divide `features`.
    """

    def __init__(self, features: int, heads: int, causal: bool) -> None:
        super().__init__()
        if features % heads:
            raise ValueError(f"{heads} heads do not divide {features} features")
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value = (MaxPlus(features // heads) for _ in range(3))
        self.out = mark_residual(nn.Linear(features, features, bias=False))

    def scores(self, difference: Tensor) -> Tensor:
        """Scores (...) of q - k (..., width): minus the Hilbert projective distance."""
        return difference.amin(-1) - difference.amax(-1)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        z = torch.log1p(torch.relu(x)).view(batch, time, self.heads, -1).transpose(1, 2)
        q, k, v = self.query(z), self.key(z), self.value(z)
        scores = self.scores(q[..., :, None, :] - k[..., None, :, :])
        if self.causal:
            scores = scores + causal_bias(time, x.device, x.dtype)
        mixed = (scores[..., None] + v[..., None, :, :]).amax(-2)
        return self.out(torch.expm1(mixed.transpose(1, 2).reshape(x.shape)))


@attention("tropical-asym", paper=PAPER, system="tropical-attention", confidence="verified")
class AsymmetricTropicalAttention(TropicalAttention):
    """`tropical` with the asymmetric distance s_ij = -[Σ(q_i - k_j) - d·min(q_i - k_j)]."""

    def scores(self, difference: Tensor) -> Tensor:
        return difference.shape[-1] * difference.amin(-1) - difference.sum(-1)
