from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from baselines.init.common import for_weights
from suite import IntUniform, LogUniform, Paper, Uniform, init
from suite.train.roles import ParamInfo

PSEUDO_IID = Paper(
    "Beyond IID weights: sparse and low-rank deep Neural Networks are also Gaussian Processes", arxiv="2310.16597"
)
RICH_LAZY = Paper("How connectivity structure shapes rich and lazy learning in neural circuits", arxiv="2310.08513")


def iid(tensor: Tensor, info: ParamInfo, generator: torch.Generator, variance: float) -> None:
    """N(0, variance/fan_in)."""
    tensor.normal_(0.0, math.sqrt(variance / info.fan_in), generator=generator)


@init(
    "lowrank-init",
    paper=PSEUDO_IID,
    defaults={"rank": 0.25, "c_w": 1.0},
    space={"rank": Uniform(0.05, 1.0), "c_w": LogUniform(0.5, 4.0)},
    families=("pde",),
    confidence="partly",
)
@for_weights
def low_rank(
    tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, rank: float = 0.25, c_w: float = 1.0
) -> None:
    """Hidden weights Q·P: Q (out, r) with Haar-random orthonormal columns, P (r, fan_in) Gaussian.

    r is the share `rank` of the outputs, and P is scaled so that every entry has
    variance C_W/fan_in. The head, and a layer with at most r inputs, is iid.
    """
    out, fan_in = len(tensor), info.fan_in
    r = max(1, round(rank * out))
    if info.role == "head" or fan_in <= r:
        iid(tensor, info, generator, c_w)
        return
    q = nn.init.orthogonal_(torch.empty(out, r, dtype=tensor.dtype), generator=generator)
    p = torch.empty(r, fan_in, dtype=tensor.dtype)
    p.normal_(0.0, math.sqrt(c_w * out / (r * fan_in)), generator=generator)
    tensor.copy_((q @ p).view_as(tensor))


@init(
    "block-sparse-init",
    paper=PSEUDO_IID,
    defaults={"keep": 0.5, "block": 8, "c_w": 1.0},
    space={"keep": Uniform(0.1, 1.0), "block": IntUniform(1, 16), "c_w": LogUniform(0.5, 4.0)},
    families=("pde",),
    system="lowrank-init",
    confidence="partly",
)
@for_weights
def block_sparse(
    tensor: Tensor,
    info: ParamInfo,
    generator: torch.Generator,
    *,
    keep: float = 0.5,
    block: int = 8,
    c_w: float = 1.0,
) -> None:
    """Gaussian hidden weights under a block mask, rows and columns then shuffled; variance C_W/fan_in on average.

    Every row of blocks keeps the share `keep` of its blocks, at least one. The head,
    and a layer no wider than a block, is iid.
    """
    iid(tensor, info, generator, c_w)
    out, fan_in = len(tensor), info.fan_in
    if info.role == "head" or fan_in <= block:
        return
    columns = math.ceil(fan_in / block)
    kept = max(1, round(keep * columns))
    order = torch.rand(math.ceil(out / block), columns, generator=generator).argsort(1)
    mask = (order < kept).repeat_interleave(block, 0)[:out].repeat_interleave(block, 1)[:, :fan_in]
    mask = mask[torch.randperm(out, generator=generator)][:, torch.randperm(fan_in, generator=generator)]
    tensor.mul_(mask.view_as(tensor) / mask.float().mean().sqrt())


@init(
    "svd-rank-init",
    paper=RICH_LAZY,
    defaults={"rank": 0.25},
    space={"rank": Uniform(0.02, 1.0)},
    families=("vision",),
    confidence="verified",
)
@for_weights
def svd_rank(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, rank: float = 0.25) -> None:
    """Hidden weights N(0, 1/fan_in) cut to their leading singular values, the share `rank`, at their first norm."""
    iid(tensor, info, generator, 1.0)
    if info.role == "head":
        return
    matrix = tensor.flatten(1)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    r = max(1, round(rank * len(s)))
    cut = (u[:, :r] * s[:r]) @ vh[:r]
    tensor.copy_((cut * (matrix.norm() / cut.norm())).view_as(tensor))
