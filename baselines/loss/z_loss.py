from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from baselines.loss.common import wide
from suite import LogUniform, Paper, loss


@loss(
    "z-loss",
    paper=Paper("PaLM: Scaling Language Modeling with Pathways", arxiv="2204.02311", year=2022),
    defaults={"weight": 1e-4},
    space={"weight": LogUniform(1e-5, 1e-1)},
    families=("vision", "language"),
)
def z_loss(logits: Tensor, targets: Tensor, *, weight: float = 1e-4) -> Tensor:
    """Cross-entropy + weight·log²Z, Z = Σ exp(z): keeps the softmax normaliser near 1."""
    z = wide(logits)
    return F.cross_entropy(z, targets) + weight * z.logsumexp(-1).square().mean()
