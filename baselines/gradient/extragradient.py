from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from baselines.gradient.displacement import displaced
from suite import LogUniform, Paper, gradient
from suite.train.step import Closure, Stepper

PAPER = Paper(
    "Convergence of Proximal Point and Extragradient-Based Methods Beyond Monotonicity: "
    "the Case of Negative Comonotonicity",
    arxiv="2210.13831",
    year=2022,
)
DEFAULTS = {"ratio": 1.0}
SPACE = {"ratio": LogUniform(0.5, 10.0)}
FAMILIES = ("vision", "pde")


class Extrapolation(Stepper):
    """Gradients at the point that a plain gradient step of size ratio * lr leads to.

    Parameters
    ----------
    ratio : extrapolation step over the learning rate; 1 is the classical choice.
    """

    def __init__(self, optimizer: Optimizer, *, ratio: float) -> None:
        super().__init__(optimizer)
        self.ratio = ratio

    def trainable(self) -> list[Tensor]:
        """All parameters of the groups, with or without a gradient."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def rates(self) -> list[float]:
        """Extrapolation step of each of `trainable`, negative."""
        return [-self.ratio * float(g["lr"]) for g in self.optimizer.param_groups for _ in g["params"]]


@gradient(
    "extragradient",
    paper=PAPER,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    confidence="known",
    passes=2.0,
)
class Extragradient(Extrapolation):
    """Extragradient: y = x - r lr g(x), then the optimizer's step at x with g(y).

    With plain gradient descent the step is x - lr g(y). The loss returned is the
    one at x.

    Parameters
    ----------
    ratio : r.
    """

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        moves = [(p, p.grad * r) for p, r in zip(self.trainable(), self.rates(), strict=True) if p.grad is not None]
        with displaced([p for p, _ in moves], [move for _, move in moves]):
            closure()
        return loss


@gradient(
    "optimistic-gradient",
    paper=PAPER,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="extragradient",
    confidence="known",
)
class OptimisticGradient(Extrapolation):
    """Optimistic gradient: y_t = x_t - r lr g(y_{t-1}), then the optimizer's step at x_t with g(y_t).

    One pass a step: the extrapolation uses the previous gradient, zero at first.
    The loss returned is the one at y_t.

    Parameters
    ----------
    ratio : r.
    """

    def __init__(self, optimizer: Optimizer, *, ratio: float) -> None:
        super().__init__(optimizer, ratio=ratio)
        self.previous = [torch.zeros_like(p) for p in self.trainable()]

    def gradients(self, closure: Closure) -> Tensor:
        parameters = self.trainable()
        with displaced(parameters, torch._foreach_mul(self.previous, self.rates())):
            loss = closure()
        for previous, p in zip(self.previous, parameters, strict=True):
            previous.zero_() if p.grad is None else previous.copy_(p.grad)
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {f"previous.{i}": tensor for i, tensor in enumerate(self.previous)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for i, tensor in enumerate(self.previous):
            tensor.copy_(state[f"previous.{i}"])
