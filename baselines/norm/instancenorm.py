from __future__ import annotations

from torch import Tensor

from baselines.norm.common import Affine, places
from suite import Paper, norm


@norm(
    "instancenorm",
    paper=Paper("Instance Normalization: The Missing Ingredient for Fast Stylization", arxiv="1607.08022", year=2016),
    defaults={"eps": 1e-5},
    families=("vision",),
)
class InstanceNorm(Affine):
    """Every channel of every example to mean 0 and variance 1 over its places; gain and bias.

    Raises
    ------
    ValueError : an (n, C) input, which has no places.
    """

    def __init__(self, features: int, eps: float = 1e-5) -> None:
        super().__init__(features)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if not places(x):
            raise ValueError(f"instance normalisation needs places to average over, got shape {tuple(x.shape)}")
        centred = x - x.mean(places(x), keepdim=True)
        return self.affine(centred * (centred.square().mean(places(x), keepdim=True) + self.eps).rsqrt())
