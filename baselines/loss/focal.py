from __future__ import annotations

import torch
from torch import Tensor

from baselines.loss.common import log_likelihood
from suite import Paper, Uniform, loss


@loss(
    "focal",
    paper=Paper("Focal Loss for Dense Object Detection", arxiv="1708.02002", year=2017),
    defaults={"gamma": 2.0},
    space={"gamma": Uniform(0.0, 5.0)},
    families=("vision", "language"),
)
def focal(logits: Tensor, targets: Tensor, *, gamma: float = 2.0) -> Tensor:
    """-(1 - p)^γ·log p: examples that are already classified well count less."""
    log_p = log_likelihood(logits, targets)
    miss = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
    return -(miss**gamma * log_p).mean()
