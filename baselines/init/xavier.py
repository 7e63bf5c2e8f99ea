from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.init.common import for_weights
from suite import LogUniform, Paper, init
from suite.train.roles import ParamInfo

GLOROT = Paper(
    "Understanding the difficulty of training deep feedforward neural networks",
    url="https://proceedings.mlr.press/v9/glorot10a.html",
    year=2010,
)
GAIN = {"gain": LogUniform(0.25, 4.0)}


@init("xavier", paper=GLOROT, defaults={"gain": 1.0}, space=GAIN)
@for_weights
def xavier(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, gain: float = 1.0) -> None:
    """Uniform with variance gain²·2/(fan_in + fan_out)."""
    nn.init.xavier_uniform_(tensor, gain, generator=generator)


@init("xavier-normal", paper=GLOROT, defaults={"gain": 1.0}, space=GAIN, system="xavier")
@for_weights
def xavier_normal(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, gain: float = 1.0) -> None:
    """Normal with variance gain²·2/(fan_in + fan_out)."""
    nn.init.xavier_normal_(tensor, gain, generator=generator)
