from __future__ import annotations

import math

from torch import Tensor, nn

from baselines.norm.common import rows
from suite import Choice, Paper, norm


@norm(
    "groupnorm",
    paper=Paper("Group Normalization", arxiv="1803.08494", year=2018),
    defaults={"groups": 8, "eps": 1e-5},
    space={"groups": Choice(1, 2, 4, 8, 16, 32)},
    families=("vision", "pde"),
)
class GroupNorm(nn.GroupNorm):
    """Mean 0 and variance 1 within each of `groups` channel groups of an example (of a token).

    The paper's 32 groups are for widths from 64 up; 8 keeps groups of two and more
    from width 16. Where `groups` does not divide the width, their common divisor does.
    """

    def __init__(self, features: int, groups: int = 8, eps: float = 1e-5) -> None:
        super().__init__(math.gcd(groups, features), features, eps)

    def forward(self, x: Tensor) -> Tensor:
        return rows(super().forward, x)
