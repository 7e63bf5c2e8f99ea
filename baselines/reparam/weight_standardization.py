from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from baselines.reparam.common import per_unit, weights
from suite import Paper, reparam


class Standardised(nn.Module):
    """(W - mean)/√(var + eps) along each output unit's inputs."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, weight: Tensor) -> Tensor:
        var, mean = torch.var_mean(weight.flatten(1), dim=1, unbiased=False)
        return (weight - per_unit(mean, weight)) * per_unit((var + self.eps).rsqrt(), weight)


@reparam(
    "weight-standardization",
    paper=Paper("Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", arxiv="1903.10520"),
    defaults={"eps": 1e-5},
    families=("vision",),
)
def weight_standardization(model: nn.Module, *, eps: float = 1e-5) -> None:
    """Convolution kernels with mean 0 and variance 1 along every output channel; a normalisation should follow."""
    for module, name, _ in weights(model, ("conv",)):
        parametrize.register_parametrization(module, name, Standardised(eps))
