from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from baselines.regularizer.common import total, weights
from suite import LogUniform, Paper, regularizer


@regularizer(
    "l2",
    paper=Paper("A Simple Weight Decay Can Improve Generalization", year=1991),
    defaults={"strength": 1e-4},
    space={"strength": LogUniform(1e-6, 1e-2)},
    system="weight-decay",
)
def l2(model: nn.Module, *, strength: float = 1e-4) -> Callable[[], Tensor]:
    """(λ/2)·‖w‖² of weights and embeddings: adds λ·w to the gradient."""
    penalised = weights(model)
    return lambda: 0.5 * strength * total([w.square().sum() for w in penalised])


@regularizer(
    "l1",
    paper=Paper("Regression Shrinkage and Selection via the Lasso", year=1996),
    defaults={"strength": 1e-5},
    space={"strength": LogUniform(1e-7, 1e-3)},
    system="weight-decay",
)
def l1(model: nn.Module, *, strength: float = 1e-5) -> Callable[[], Tensor]:
    """λ·Σ|w| of weights and embeddings."""
    penalised = weights(model)
    return lambda: strength * total([w.abs().sum() for w in penalised])
