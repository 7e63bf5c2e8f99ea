"""What the initialisations share: the parameters of which their papers say nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from suite.train.roles import ParamInfo

EMBEDDING_STD = 0.02


def for_weights(draw: Callable[..., None]) -> Callable[..., None]:
    """Let `draw` fill the weights (roles matrix, conv, head); treat the rest alike in every init.

    Biases become 0 and embeddings N(0, 0.02²) as in GPT-2. Normalisation and
    activation parameters stay at the values their own modules start from.
    """

    @functools.wraps(draw)
    def fill(tensor: Tensor, info: ParamInfo, generator: torch.Generator, **hp: object) -> None:
        if info.role == "bias":
            tensor.zero_()
        elif info.role == "embedding":
            tensor.normal_(0.0, EMBEDDING_STD, generator=generator)
        elif info.role not in ("norm", "other"):
            draw(tensor, info, generator, **hp)

    return fill
