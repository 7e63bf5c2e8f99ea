from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.init.common import for_weights
from suite import Choice, Paper, init
from suite.train.roles import ParamInfo


@init(
    "he",
    paper=Paper("Delving Deep into Rectifiers", arxiv="1502.01852", year=2015),
    defaults={"mode": "fan_in"},
    space={"mode": Choice("fan_in", "fan_out")},
)
@for_weights
def he(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, mode: str = "fan_in") -> None:
    """Normal with variance 2/fan: keeps the second moment through ReLU layers."""
    nn.init.kaiming_normal_(tensor, mode=mode, nonlinearity="relu", generator=generator)
