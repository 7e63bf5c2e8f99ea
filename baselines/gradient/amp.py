from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from baselines.gradient.displacement import displaced, global_norm, gradients_of
from suite import LogUniform, Paper, gradient
from suite.train.step import Closure, Stepper

PAPER = Paper("Regularizing Neural Networks via Adversarial Model Perturbation", arxiv="2010.04925", year=2021)
DEFAULTS = {"epsilon": 0.5, "inner_rate": 1.0, "inner_steps": 1}
SPACE = {"epsilon": LogUniform(0.01, 2.0), "inner_rate": LogUniform(0.1, 10.0)}
FAMILIES = ("vision", "language", "pde")


@gradient(
    "amp",
    paper=PAPER,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    confidence="verified",
    passes=2.0,
)
class Amp(Stepper):
    """Adversarial model perturbation, each tensor held to its own ball (the authors' code).

    From d = 0, `inner_steps` times: d <- d + inner_rate * grad L(w + d), shrunk to
    norm epsilon where it is longer. The gradient at w + d drives the step at w; the
    loss returned is the one at w. A step costs inner_steps + 1 passes.

    Parameters
    ----------
    epsilon : radius of the ball.
    inner_rate : ascent step; its own unit, not a learning rate of the task.
    inner_steps : ascent steps.
    """

    def __init__(self, optimizer: Optimizer, *, epsilon: float, inner_rate: float, inner_steps: int) -> None:
        super().__init__(optimizer)
        self.epsilon = epsilon
        self.inner_rate = inner_rate
        self.inner_steps = inner_steps

    def norms(self, delta: list[Tensor]) -> list[Tensor]:
        """The norm that the ball of each tensor holds."""
        return list(torch._foreach_norm(delta))

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        parameters = list(self.parameters())
        delta = [torch.zeros_like(p) for p in parameters]
        for _ in range(self.inner_steps):
            torch._foreach_add_(delta, gradients_of(parameters), alpha=self.inner_rate)
            torch._foreach_mul_(delta, [self.epsilon / n.clamp(min=self.epsilon) for n in self.norms(delta)])
            with displaced(parameters, delta):
                closure()
        return loss


@gradient(
    "amp-global",
    paper=PAPER,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="amp",
    confidence="verified",
    passes=2.0,
)
class AmpGlobal(Amp):
    """Adversarial model perturbation with one ball for all parameters together, as the paper's text has it."""

    def norms(self, delta: list[Tensor]) -> list[Tensor]:
        return [global_norm(delta)] * len(delta)
