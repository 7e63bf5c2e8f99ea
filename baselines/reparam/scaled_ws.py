from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from baselines.reparam.common import HIDDEN, per_unit, weights
from suite import Paper, reparam


class ScaledStandardised(nn.Module):
    """gain·(W - mean)/√max(N·var, floor) along each output unit's N inputs."""

    def __init__(self, weight: Tensor, floor: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(weight.new_ones(len(weight)))
        self.floor = floor

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.flatten(1)
        var, mean = torch.var_mean(rows, dim=1, unbiased=False)
        scale = self.gain * (var * rows.shape[1]).clamp(min=self.floor).rsqrt()
        return (weight - per_unit(mean, weight)) * per_unit(scale, weight)


@reparam(
    "scaled-ws",
    paper=Paper(
        "Characterizing signal propagation to close the performance gap in unnormalized ResNets",
        arxiv="2101.08692",
        year=2021,
    ),
    defaults={"floor": 1e-4},
    families=("vision",),
    system="nf-resnet",
    confidence="verified",
)
def scaled_weight_standardisation(model: nn.Module, *, floor: float = 1e-4) -> None:
    """Hidden weights gain·(W - mean)/√max(N·var, 1e-4) along the fan-in N, a gain (1 at the start) per output unit.

    The paper scales the nonlinearities to unit variance as well and drops normalisation.
    """
    for module, name, _ in weights(model, HIDDEN):
        parametrize.register_parametrization(module, name, ScaledStandardised(getattr(module, name), floor))
