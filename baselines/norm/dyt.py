from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.norm.common import Affine
from suite import LogUniform, Paper, norm


@norm(
    "dyt",
    paper=Paper("Transformers without Normalization", arxiv="2503.10622", year=2025),
    defaults={"alpha": 0.5},
    space={"alpha": LogUniform(0.1, 2.0)},
)
class DynamicTanh(Affine):
    """Dynamic tanh, gain·tanh(α·x) + bias: one learnt scalar α and no statistics."""

    def __init__(self, features: int, alpha: float = 0.5) -> None:
        super().__init__(features)
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))

    def forward(self, x: Tensor) -> Tensor:
        return self.affine(torch.tanh(self.alpha * x))
