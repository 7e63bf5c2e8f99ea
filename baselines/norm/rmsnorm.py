from __future__ import annotations

from torch import Tensor, nn

from baselines.norm.common import channels_last
from suite import Paper, norm


@norm(
    "rmsnorm",
    paper=Paper("Root Mean Square Layer Normalization", arxiv="1910.07467", year=2019),
    defaults={"eps": 1e-6},
)
class RMSNorm(nn.RMSNorm):
    """The channels of every token (or pixel) divided by their root mean square; gain, no bias."""

    def forward(self, x: Tensor) -> Tensor:
        return channels_last(super().forward, x)
