from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from baselines.reparam.common import HIDDEN, per_unit, weights
from suite import Paper, reparam

CONDITIONING = Paper("Weight Conditioning for Smooth Optimization of Neural Networks", arxiv="2409.03424", year=2024)


class RowEquilibrated(nn.Module):
    """W with every row (one per output unit) divided by its length."""

    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.detach = detach

    def forward(self, weight: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(weight.flatten(1), dim=1).clamp(min=1e-12)
        return weight / per_unit(lengths.detach() if self.detach else lengths, weight)


@reparam(
    "weight-conditioning",
    paper=CONDITIONING,
    defaults={"detach": False},
    families=("vision", "pde"),
    confidence="partly",
)
@reparam(
    "weight-conditioning-detach",
    paper=CONDITIONING,
    defaults={"detach": True},
    families=("vision", "pde"),
    system="weight-conditioning",
    confidence="partly",
    surrogate=True,
)
def weight_conditioning(model: nn.Module, *, detach: bool = False) -> None:
    """Row equilibration W_i/‖W_i‖ in all layers but the last; biases are untouched.

    With `detach` the row lengths are constants of the backward pass.
    """
    for module, name, _ in weights(model, HIDDEN):
        parametrize.register_parametrization(module, name, RowEquilibrated(detach))
