from __future__ import annotations

import torch
from torch import Tensor

from suite import LogUniform, init
from suite.train.roles import ParamInfo


@init(
    "normal",
    defaults={"std": 0.02},
    space={"std": LogUniform(0.002, 0.2)},
    families=("vision", "language", "rlvr"),
)
def normal(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, std: float = 0.02) -> None:
    """N(0, std²) for every weight and embedding, whatever its fan and depth; biases 0."""
    if info.role == "bias":
        tensor.zero_()
    elif info.role not in ("norm", "other"):
        tensor.normal_(0.0, std, generator=generator)
