from __future__ import annotations

import math

import torch
from torch import Tensor

from suite import LogUniform, Paper, init
from suite.train.roles import ParamInfo


@init(
    "gpt2",
    paper=Paper("Language Models are Unsupervised Multitask Learners", year=2019),
    defaults={"std": 0.02},
    space={"std": LogUniform(0.002, 0.2)},
    families=("vision", "language", "rlvr"),
    system="gpt2-scaled-init",
)
def gpt2(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, std: float = 0.02) -> None:
    """N(0, std²) for every weight and embedding, std/√depth where a residual branch ends; biases 0.

    depth counts the residual branches: two a transformer block.
    """
    if info.role == "bias":
        tensor.zero_()
    elif info.role not in ("norm", "other"):
        scale = math.sqrt(info.depth) if info.residual_out else 1.0
        tensor.normal_(0.0, std / scale, generator=generator)
