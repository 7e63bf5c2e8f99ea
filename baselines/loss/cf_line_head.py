from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from baselines.loss.common import wide
from baselines.loss.heads import ContinuedFraction
from suite import Paper, loss


@loss(
    "cf-line-head",
    paper=Paper("Real-valued continued fraction of straight lines", arxiv="2412.16191", year=2024),
    families=("vision",),
    system="cf-line",
    confidence="verified",
)
def cf_line_head(logits: Tensor, targets: Tensor) -> Tensor:
    """One sigmoid unit a class behind a continued-fraction line: the sum over classes of binary cross-entropies.

    The output layer is its own: y_c solves a_c y³ + y = m_c·(w_c·x + b_c), a_c from 1 and m_c from 0, the
    paper's classifier on the network's features in place of pixels.
    """
    z = wide(logits)
    onehot = F.one_hot(targets, z.shape[-1]).to(z.dtype)
    return F.binary_cross_entropy_with_logits(z, onehot, reduction="none").sum(-1).mean()


cf_line_head.head = ContinuedFraction  # type: ignore[attr-defined]
