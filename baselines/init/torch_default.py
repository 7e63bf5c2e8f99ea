from __future__ import annotations

import math

import torch
from torch import Tensor

from suite import Paper, init
from suite.train.roles import ParamInfo, fans

LECUN_BOTTOU = Paper("Efficient BackProp", url="https://doi.org/10.1007/3-540-49430-8_2", year=1998)


@init("torch-default", paper=LECUN_BOTTOU, system="default-init")
def torch_default(tensor: Tensor, info: ParamInfo, generator: torch.Generator) -> None:
    """torch's own start: weights and biases U(±1/√fan_in), embeddings N(0, 1).

    A bias takes the fan-in of the weight beside it, and is 0 where there is none.
    Normalisation parameters stay at gain 1 and bias 0, where their modules put them.
    """
    if info.role in ("norm", "other"):
        return
    if info.role == "embedding":
        tensor.normal_(generator=generator)
        return
    fan_in = info.fan_in
    if info.role == "bias":
        weight = getattr(info.module, "weight", None)
        fan_in = fans(weight)[0] if weight is not None else 0
    bound = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
    tensor.uniform_(-bound, bound, generator=generator)
