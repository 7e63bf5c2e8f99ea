from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.init.common import for_weights
from suite import LogUniform, Paper, init
from suite.train.roles import ParamInfo


@init(
    "gaussian-critical",
    paper=Paper("Exponential expressivity in deep neural networks through transient chaos", arxiv="1606.05340"),
    defaults={"c_w": 1.0},
    space={"c_w": LogUniform(0.5, 4.0)},
)
@for_weights
def gaussian_critical(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, c_w: float = 1.0) -> None:
    """N(0, C_W/fan_in); critical for tanh at C_W = 1, for ReLU at 2."""
    tensor.normal_(0.0, math.sqrt(c_w / info.fan_in), generator=generator)
