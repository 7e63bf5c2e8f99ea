from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.init.common import for_weights
from suite import LogUniform, Paper, init
from suite.train.roles import ParamInfo


@init(
    "zero-residual",
    paper=Paper("Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", arxiv="1706.02677", year=2017),
    defaults={"gain": 1.0},
    space={"gain": LogUniform(0.25, 4.0)},
)
@for_weights
def zero_residual(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, gain: float = 1.0) -> None:
    """Weights that end a residual branch 0, so that the net starts as its skip path; others N(0, gain²/fan_in)."""
    if info.residual_out:
        tensor.zero_()
    else:
        tensor.normal_(0.0, gain / math.sqrt(info.fan_in), generator=generator)
