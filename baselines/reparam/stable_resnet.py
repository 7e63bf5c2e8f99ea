from __future__ import annotations

import math
from functools import partial

from torch import nn

from baselines.reparam.common import Factor, residual_ends, scale_output
from suite import LogUniform, Paper, reparam

STABLE = Paper("Stable ResNet", arxiv="2010.12859", year=2020)


@reparam(
    "stable-uniform",
    paper=STABLE,
    defaults={"scale": 1.0},
    space={"scale": LogUniform(0.25, 4.0)},
    system="stable-resnet",
)
def stable_uniform(model: nn.Module, *, scale: float = 1.0) -> None:
    """x + (s/√L)·F(x) for each of the L residual branches; without any, the model stays as it is."""
    branches = residual_ends(model)
    for layer in branches:
        scale_output(layer, partial(Factor, factor=scale / math.sqrt(len(branches))))


@reparam(
    "stable-decreasing",
    paper=STABLE,
    defaults={"scale": 1.0},
    space={"scale": LogUniform(0.25, 4.0)},
    system="stable-resnet",
    confidence="partly",
)
def stable_decreasing(model: nn.Module, *, scale: float = 1.0) -> None:
    """x + s/(√l·ln(l + 1))·F_l(x) for residual branches l = 1, 2, ...; without any, the model stays as it is."""
    for index, layer in enumerate(residual_ends(model), start=1):
        scale_output(layer, partial(Factor, factor=scale / (math.sqrt(index) * math.log(index + 1))))
