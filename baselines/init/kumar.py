from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.init.common import for_weights
from suite import Choice, Paper, init
from suite.train.roles import ParamInfo

AT_ZERO = {"tanh": (0.0, 1.0), "sigmoid": (0.5, 0.25), "silu": (0.0, 0.5), "gelu": (0.0, 0.5)}


@init(
    "kumar",
    paper=Paper("On weight initialization in deep neural networks", arxiv="1704.08863", year=2017),
    defaults={"nonlinearity": "tanh"},
    space={"nonlinearity": Choice("tanh", "sigmoid", "silu", "gelu", "relu")},
    families=("pde",),
    system="kumar-init",
)
@for_weights
def kumar(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, nonlinearity: str = "tanh") -> None:
    """Normal with variance 1/(fan_in·g'(0)²·(1 + g(0)²)) for a nonlinearity g smooth at 0, 2/fan_in for ReLU."""
    if nonlinearity == "relu":
        variance = 2.0 / info.fan_in
    else:
        value, slope = AT_ZERO[nonlinearity]
        variance = 1.0 / (info.fan_in * slope**2 * (1 + value**2))
    tensor.normal_(0.0, math.sqrt(variance), generator=generator)
