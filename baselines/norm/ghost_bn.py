from __future__ import annotations

import torch
from torch import Tensor

from baselines.norm.batchnorm import BatchNorm
from suite import Choice, Paper, norm


@norm(
    "ghost-bn",
    paper=Paper("Train longer, generalize better", arxiv="1705.08741", year=2017),
    defaults={"ghost": 16, "eps": 1e-5, "momentum": 0.1},
    space={"ghost": Choice(8, 16, 32, 64, 128)},
    families=("vision",),
    confidence="verified",
)
class GhostBatchNorm(BatchNorm):
    """Batch normalisation by the statistics of `ghost` examples at a time.

    Running statistics take in every chunk in turn; a last, short chunk keeps its
    own statistics. The paper cuts batches of 2,048 and more into chunks of 128.
    """

    def __init__(self, features: int, ghost: int = 16, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(features, eps, momentum)
        self.ghost = ghost

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return torch.cat([super(GhostBatchNorm, self).forward(chunk) for chunk in x.split(self.ghost)])
