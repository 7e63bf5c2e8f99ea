from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from baselines.init.common import for_weights
from suite import LogUniform, Paper, init
from suite.train.roles import ParamInfo

SAXE = Paper(
    "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", arxiv="1312.6120", year=2013
)
FEATURES = Paper("Feature Learning and Generalization in Deep Networks with Orthogonal Weights", arxiv="2310.07765")


@init(
    "orthogonal",
    paper=SAXE,
    defaults={"gain": 1.0},
    space={"gain": LogUniform(0.5, 2.0)},
    system="orthogonal-init",
)
@for_weights
def orthogonal(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, gain: float = 1.0) -> None:
    """Haar-random semi-orthogonal matrix times gain; kernels as (out, in·kh·kw) matrices.

    Gain 1 suits linear and tanh nets, √2 ReLU nets.
    """
    nn.init.orthogonal_(tensor, gain, generator=generator)


@init("orthogonal-critical", paper=FEATURES, families=("pde",), system="orthogonal-init", confidence="partly")
@for_weights
def orthogonal_critical(tensor: Tensor, info: ParamInfo, generator: torch.Generator) -> None:
    """Orthogonal weights at the critical point of tanh networks: C_W = 1, C_b = 0.

    A rectangular n_out×n_in layer is semi-orthogonal times √(max(n_out, n_in)/n_in),
    so that every entry has variance 1/n_in.
    """
    nn.init.orthogonal_(tensor, math.sqrt(max(len(tensor), info.fan_in) / info.fan_in), generator=generator)
