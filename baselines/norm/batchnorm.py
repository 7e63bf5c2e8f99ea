from __future__ import annotations

from torch import Tensor, nn

from baselines.norm.common import rows
from suite import LogUniform, Paper, norm


@norm(
    "batchnorm",
    paper=Paper("Batch Normalization: Accelerating Deep Network Training", arxiv="1502.03167", year=2015),
    defaults={"eps": 1e-5, "momentum": 0.1},
    space={"momentum": LogUniform(0.005, 0.5)},
    families=("vision",),
)
class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Every channel to mean 0 and variance 1 over the batch and all places; running statistics at test time."""

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"batch normalisation needs a batch and channels, got shape {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        return rows(super().forward, x)
