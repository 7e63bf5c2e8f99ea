from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from baselines.loss.common import wide
from suite import Paper, loss


@loss(
    "bpr",
    paper=Paper("BPR: Bayesian Personalized Ranking from Implicit Feedback", arxiv="1205.2618", year=2009),
    families=("vision",),
)
def bpr(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over examples and their other classes j of -log σ(z_y - z_j)."""
    z = wide(logits)
    count, classes = z.shape
    pairs = F.softplus(z - z.gather(-1, targets[:, None]))
    others = 1 - F.one_hot(targets, classes)
    return (pairs * others).sum() / (count * (classes - 1))
