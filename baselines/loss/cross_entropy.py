from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from baselines.loss.common import wide
from suite import Paper, Uniform, loss


@loss(
    "cross-entropy",
    defaults={"label_smoothing": 0.0},
    space={"label_smoothing": Uniform(0.0, 0.3)},
    system="ce",
)
def cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits)[target], in nats."""
    return F.cross_entropy(wide(logits), targets, label_smoothing=label_smoothing)


@loss(
    "label-smoothing",
    paper=Paper("Towards Understanding Label Smoothing", arxiv="2006.11653", year=2020),
    defaults={"theta": 0.1},
    space={"theta": Uniform(0.01, 0.6)},
    system="tsla",
)
def label_smoothing(logits: Tensor, targets: Tensor, *, theta: float = 0.1) -> Tensor:
    """Cross-entropy to (1 - theta)·onehot + theta/classes."""
    return F.cross_entropy(wide(logits), targets, label_smoothing=theta)
