from __future__ import annotations

import torch
from torch import Tensor

from baselines.loss.common import log_likelihood, power_loss
from suite import Paper, Uniform, loss

COMP_SUM = Paper("Cross-Entropy Loss Functions: Theoretical Analysis and Applications", arxiv="2304.07288", year=2023)
LINEAR_FROM = 30.0


@loss("sum-exp", paper=COMP_SUM, families=("vision", "language"), system="comp-sum")
def sum_exp(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum-exponential loss u = Σ_{j≠y} exp(z_j - z_y) = 1/p - 1, the comp-sum loss at τ = 0.

    Where -log p exceeds 30 the exponential goes on as its tangent in -log p,
    so that no finite logits overflow.
    """
    nll = -log_likelihood(logits, targets)
    bent = nll.clamp(max=LINEAR_FROM)
    return (torch.expm1(bent) + (nll - bent) * torch.exp(bent.detach())).mean()


@loss(
    "gce",
    paper=COMP_SUM,
    defaults={"tau": 1.7},
    space={"tau": Uniform(1.05, 1.95)},
    families=("vision", "language"),
    system="comp-sum",
)
def generalised_cross_entropy(logits: Tensor, targets: Tensor, *, tau: float = 1.7) -> Tensor:
    """(1 - p^(τ-1))/(τ - 1), the comp-sum loss for 1 < τ < 2: between cross-entropy (τ = 1) and 1 - p (τ = 2)."""
    return power_loss(log_likelihood(logits, targets), tau - 1).mean()


@loss("mae-comp", paper=COMP_SUM, families=("vision", "language"), system="comp-sum")
def mean_absolute_error(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - p: the comp-sum loss at τ = 2, half the ℓ1 distance of softmax and one-hot target."""
    return power_loss(log_likelihood(logits, targets), 1.0).mean()
