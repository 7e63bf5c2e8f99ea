from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from baselines.activation.rep_relu import RepReLU
from baselines.loss.common import wide
from baselines.loss.heads import NonNegative
from suite import Choice, Paper, loss


@loss(
    "nonneg-ce",
    paper=Paper("Non-negative Contrastive Learning", arxiv="2403.12459", year=2024),
    defaults={"rectify_weights": False},
    space={"rectify_weights": Choice(False, True)},
    families=("vision",),
    system="nonneg-features",
    confidence="partly",
)
def nonneg_ce(logits: Tensor, targets: Tensor, *, rectify_weights: bool) -> Tensor:
    """Cross-entropy on non-negative features: the last layer sees them through `rep-relu`.

    The supervised form of the paper's method; whether its class weights are
    rectified as well is open, and a hyper-parameter here.

    Parameters
    ----------
    rectify_weights : pass the class weights through `rep-relu` too.
    """
    return F.cross_entropy(wide(logits), targets)


def head(features: int, outputs: int, bias: bool, *, rectify_weights: bool) -> nn.Module:
    """A rectifier and a linear layer."""
    classifier = NonNegative(features, outputs, bias) if rectify_weights else nn.Linear(features, outputs, bias=bias)
    return nn.Sequential(RepReLU(), classifier)


nonneg_ce.head = head  # type: ignore[attr-defined]
