from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.loss.common import wide
from suite import Paper, loss


@loss(
    "stablemax",
    paper=Paper("Grokking at the Edge of Numerical Stability", arxiv="2501.04697", year=2025),
    confidence="verified",
)
def stablemax(logits: Tensor, targets: Tensor) -> Tensor:
    """-log s(z_target)/Σ s(z) with s(z) = z + 1 for z >= 0 and 1/(1 - z) below; computed in float64.

    log s is log1p of the positive part less log1p of the negative part, so
    neither side is evaluated where it has no value.
    """
    z = logits.double()
    log_s = torch.log1p(z.clamp(min=0)) - torch.log1p(F.relu(-z))
    return F.cross_entropy(log_s, targets).to(wide(logits).dtype)
