from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.norm.common import per_channel, positions
from suite import LogUniform, Paper, norm


@norm(
    "mean-only-bn",
    paper=Paper("Weight Normalization", arxiv="1602.07868", year=2016),
    defaults={"momentum": 0.1},
    space={"momentum": LogUniform(0.005, 0.5)},
    families=("vision",),
    system="weightnorm",
    confidence="verified",
)
class MeanOnlyBatchNorm(nn.Module):
    """x less its channel means over the batch (running means at test time), plus a bias; no division.

    The paper uses it on weight-normalised layers: `weightnorm+mean-only-bn`.
    """

    running_mean: Tensor

    def __init__(self, features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.running_mean
        if self.training:
            mean = x.mean(positions(x))
            with torch.no_grad():
                self.running_mean.lerp_(mean.detach(), self.momentum)
        return x + per_channel(self.bias - mean, x)
