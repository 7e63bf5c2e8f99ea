from __future__ import annotations

from torch import Tensor

from baselines.loss.common import log_likelihood, power_loss
from suite import Paper, Uniform, loss


@loss(
    "poly-1",
    paper=Paper("PolyLoss: A Polynomial Expansion Perspective of Classification Losses", arxiv="2204.12511", year=2022),
    defaults={"epsilon": 2.0},
    space={"epsilon": Uniform(-1.0, 6.0)},
    families=("vision", "language"),
)
def poly1(logits: Tensor, targets: Tensor, *, epsilon: float = 2.0) -> Tensor:
    """-log p + ε·(1 - p), ε >= -1: cross-entropy with the first coefficient of its series in 1 - p changed."""
    log_p = log_likelihood(logits, targets)
    return (epsilon * power_loss(log_p, 1.0) - log_p).mean()
