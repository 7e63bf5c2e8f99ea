from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines.norm.common import per_channel, positions
from suite import Choice, LogUniform, Paper, Uniform, norm


@norm(
    "bn-orth-shaped",
    paper=Paper(
        "Towards Training Without Depth Limits: Batch Normalization Without Gradient Explosion",
        arxiv="2310.02012",
        year=2023,
    ),
    defaults={"gamma": 0.5, "centre": False, "eps": 1e-5, "momentum": 0.1},
    space={"gamma": Uniform(0.0, 1.0), "centre": Choice(False, True), "momentum": LogUniform(0.005, 0.5)},
    families=("vision",),
    confidence="partly",
)
class ShapedBatchNorm(nn.Module):
    """(l + 1)^-γ · x/√(mean_batch(x²) + eps) in norm l = 0, 1, ...: batch normalisation without mean, gain and bias.

    The factor shapes the activation that follows, act((l + 1)^-γ x), the less nonlinear the
    deeper (a positively homogeneous one does not see it). The paper takes it on
    orthogonal weights (`bn-orth-shaped+orthogonal`) and sweeps γ; it has no running
    statistics, which are used here at test time as in batch normalisation.

    Parameters
    ----------
    features : channels.
    gamma : γ.
    centre : subtract the mean before.
    eps : added to the mean square.
    momentum : share of a new batch in the running statistics.
    """

    running_mean: Tensor
    running_square: Tensor

    def __init__(
        self, features: int, gamma: float = 0.5, centre: bool = False, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.gamma, self.centre, self.eps, self.momentum = gamma, centre, eps, momentum
        self.factor = 1.0
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_square", torch.ones(features))

    def place(self, index: int, stack: Sequence[nn.Module]) -> None:
        """Take the factor of norm number `index` of the model."""
        self.factor = float((index + 1) ** -self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        if self.centre:
            mean = x.mean(positions(x)) if self.training else self.running_mean
            x = x - per_channel(mean, x)
            self.keep(self.running_mean, mean)
        square = x.square().mean(positions(x)) if self.training else self.running_square
        self.keep(self.running_square, square)
        return x * per_channel(self.factor * (square + self.eps).rsqrt(), x)

    def keep(self, running: Tensor, value: Tensor) -> None:
        """Take a batch's statistic into the running one, in training."""
        if self.training:
            running.lerp_(value.detach(), self.momentum)
