from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from baselines.regularizer.common import total, weights
from suite import LogUniform, Paper, regularizer


@regularizer(
    "ortho-penalty",
    paper=Paper("All You Need is Beyond a Good Init", arxiv="1703.01827", year=2017),
    defaults={"strength": 1e-4},
    space={"strength": LogUniform(1e-5, 1e-3)},
    families=("vision",),
    confidence="partly",
)
def ortho_penalty(model: nn.Module, *, strength: float = 1e-4) -> Callable[[], Tensor]:
    """(λ/2)·Σ‖WᵀW - I‖² (Frobenius) of hidden layers, W as (fan_in, filters): orthonormal filters.

    The paper uses it in place of L2 on convolutions; its modulation of errors is left out.
    """
    penalised = weights(model, ("matrix", "conv"))

    def deviation(w: Tensor) -> Tensor:
        filters = w.flatten(1)
        gram = filters @ filters.mT
        return (gram - torch.eye(len(gram), dtype=w.dtype, device=w.device)).square().sum()

    return lambda: 0.5 * strength * total([deviation(w) for w in penalised])
