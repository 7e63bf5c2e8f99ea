from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from baselines.regularizer.common import total, weights
from suite import LogUniform, Paper, regularizer


@regularizer(
    "norm-loss",
    paper=Paper("Norm Loss: An efficient yet effective regularization method", arxiv="2103.06583", year=2021),
    defaults={"strength": 1e-4},
    space={"strength": LogUniform(1e-6, 1e-2)},
    families=("vision",),
    confidence="partly",
)
def norm_loss(model: nn.Module, *, strength: float = 1e-4) -> Callable[[], Tensor]:
    """λ·Σ(1 - ‖w_c‖)² over the weights w_c of every output channel: pulls them to the unit sphere.

    The norm of a 3-d weight is over its dim 1 alone, as in the reference.
    """
    penalised = weights(model)

    def channel(w: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(w, dim=(1,) if w.ndim == 3 else tuple(range(1, w.ndim)))
        return (1 - norms).square().sum()

    return lambda: strength * total([channel(w) for w in penalised])
