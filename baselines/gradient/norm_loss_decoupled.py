from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from suite import LogUniform, Paper, gradient
from suite.train.step import Closure, Stepper

WEIGHTS = ("matrix", "conv", "embedding", "head")
EPS = 1e-8


@gradient(
    "norm-loss-decoupled",
    paper=Paper("Norm Loss: An efficient yet effective regularization method", arxiv="2103.06583", year=2021),
    defaults={"strength": 1e-4},
    space={"strength": LogUniform(1e-6, 1e-2)},
    families=("vision",),
    system="norm-loss",
    confidence="partly",
)
class NormLossDecoupled(Stepper):
    """Norm loss as a decay: w_c <- w_c (1 - 2 lr strength (1 - 1/(||w_c|| + 1e-8))) before each update.

    w_c are the weights of one output channel, of every weight of two or more dimensions; the
    norm of a 3-d weight is over its dim 1 alone, as in `norm-loss`. It stands in
    place of the optimizer's own weight decay, which it sets to 0. Its gradient goes past
    the optimizer's moments. An optimizer that evaluates its loss itself is decayed before its step.

    Parameters
    ----------
    strength : weight of the norm loss.
    """

    def __init__(self, optimizer: Optimizer, *, strength: float) -> None:
        super().__init__(optimizer)
        self.strength = strength
        for group in optimizer.param_groups:
            if "weight_decay" in group:
                group["weight_decay"] = 0.0

    def step(self, closure: Closure) -> Tensor:
        if self.needs_closure:
            self.pull()
            return super().step(closure)
        loss = self.gradients(closure)
        self.pull()
        self.optimizer.step()
        return loss

    @torch.no_grad()
    def pull(self) -> None:
        """Move every output channel's norm towards 1."""
        for group in self.optimizer.param_groups:
            if group.get("role", "matrix") in WEIGHTS:
                for w in (p for p in group["params"] if p.ndim > 1 and p.grad is not None):
                    dims = (1,) if w.ndim == 3 else tuple(range(1, w.ndim))
                    norms = torch.linalg.vector_norm(w, dim=dims, keepdim=True)
                    w.mul_(1 - 2 * group["lr"] * self.strength * (1 - 1 / (norms + EPS)))
