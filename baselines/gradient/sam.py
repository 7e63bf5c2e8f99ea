from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from baselines.gradient.displacement import displaced, global_norm, gradients_of
from suite import LogUniform, Paper, gradient
from suite.train.step import Closure, Stepper


@gradient(
    "sam",
    paper=Paper("Sharpness-Aware Minimization for Efficiently Improving Generalization", arxiv="2010.01412", year=2021),
    defaults={"rho": 0.05},
    space={"rho": LogUniform(0.005, 1.0)},
    confidence="verified",
    passes=2.0,
)
class Sam(Stepper):
    """Sharpness-aware minimisation: the gradient at w + rho g / (||g||_2 + 1e-12) drives the step at w.

    The norm runs over all parameters. Both passes see the same batch and both run
    in training mode, so batch statistics are tracked twice a step. The loss
    returned is the one at w.

    Parameters
    ----------
    rho : length of the perturbation.
    """

    def __init__(self, optimizer: Optimizer, *, rho: float) -> None:
        super().__init__(optimizer)
        self.rho = rho

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        parameters = list(self.parameters())
        ascent = gradients_of(parameters)
        with displaced(parameters, torch._foreach_mul(ascent, self.rho / (global_norm(ascent) + 1e-12))):
            closure()
        return loss
