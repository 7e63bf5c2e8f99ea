from __future__ import annotations

import math

import torch
from torch import Tensor

from suite import LogUniform, Paper, init
from suite.train.roles import ParamInfo

BRANCHES_PER_BLOCK = 2  # a transformer block's attention and feed-forward branches


@init(
    "lir",
    paper=Paper("Variance Control via Weight Rescaling in LLM Pre-training", arxiv="2503.17500", year=2025),
    defaults={"std": 0.02},
    space={"std": LogUniform(0.002, 0.2)},
    families=("language", "vision"),
    confidence="verified",
)
def lir(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, std: float = 0.02) -> None:
    """Layer-index rescaling: N(0, std²/l) for the weights of block l = 1, 2, ...; std outside the blocks; biases 0.

    It reaches every projection of a block. A block is two residual branches; a
    model without residual branches gets N(0, std²) throughout.
    """
    if info.role == "bias":
        tensor.zero_()
    elif info.role not in ("norm", "other"):
        inside = info.role in ("matrix", "conv") and info.branch <= info.depth
        block = math.ceil(info.branch / BRANCHES_PER_BLOCK) if inside else 1
        tensor.normal_(0.0, std / math.sqrt(block), generator=generator)
