from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.attention.common import Mixer, causal_bias
from suite import Paper, attention


def sparsemax(scores: Tensor) -> Tensor:
    """Euclidean projection of the last dim onto the simplex; -inf gets weight 0.

    It does not change with a shift; with a largest score of 0, the 1 is not lost beside large sums.
    """
    scores = scores - scores.detach().amax(-1, keepdim=True)
    ordered = scores.sort(-1, descending=True).values
    counts = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
    sums = ordered.cumsum(-1) - 1
    support = (counts * ordered > sums).sum(-1, keepdim=True).clamp(min=1)  # 0 where a score is NaN
    threshold = sums.gather(-1, support - 1) / support
    return (scores - threshold).clamp(min=0)


@attention(
    "sparsemax-attention",
    paper=Paper("From Softmax to Sparsemax", arxiv="1602.02068", year=2016),
)
class SparsemaxAttention(Mixer):
    """sparsemax(QKᵀ/√d) V: weights that are exactly 0 for keys far below the best."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        scores = (q / math.sqrt(q.shape[-1])) @ k.mT
        if self.causal:
            scores = scores + causal_bias(q.shape[-2], q.device, q.dtype)
        return sparsemax(scores) @ v
