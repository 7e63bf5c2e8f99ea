from __future__ import annotations

from torch import Tensor, nn

from baselines.norm.common import channels_last
from suite import Paper, norm


@norm(
    "layernorm",
    paper=Paper("Layer Normalization", arxiv="1607.06450", year=2016),
    defaults={"eps": 1e-5},
)
class LayerNorm(nn.LayerNorm):
    """The channels of every token (or pixel) to mean 0 and variance 1; gain and bias."""

    def forward(self, x: Tensor) -> Tensor:
        return channels_last(super().forward, x)
