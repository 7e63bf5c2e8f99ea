from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from baselines.loss.common import wide
from suite import LogUniform, Paper, loss


@loss(
    "spectral-decoupling",
    paper=Paper("Gradient Starvation: A Learning Proclivity in Neural Networks", arxiv="2011.09468", year=2020),
    defaults={"strength": 1e-3},
    space={"strength": LogUniform(1e-5, 1e-1)},
    families=("vision", "language"),
    confidence="verified",
)
def spectral_decoupling(logits: Tensor, targets: Tensor, *, strength: float = 1e-3) -> Tensor:
    """Cross-entropy + (λ/2)·‖z‖²: squared logits summed over classes, mean over examples."""
    z = wide(logits)
    return F.cross_entropy(z, targets) + 0.5 * strength * z.square().sum(-1).mean()
