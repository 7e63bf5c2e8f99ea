from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from suite import IntUniform, Paper, Uniform, gradient
from suite.train.step import Closure, Stepper


@gradient(
    "lookahead",
    paper=Paper("Lookahead Optimizer: k steps forward, 1 step back", arxiv="1907.08610", year=2019),
    defaults={"every": 5, "alpha": 0.5},
    space={"every": IntUniform(2, 20), "alpha": Uniform(0.2, 0.8)},
    confidence="known",
)
class Lookahead(Stepper):
    """Lookahead: after every k steps, slow <- slow + alpha (fast - slow) and fast <- slow.

    The fast weights are the model's; the slow ones start as their copy. The
    optimizer's state is kept over the reset. Evaluation between two resets sees the
    fast weights.

    Parameters
    ----------
    every : k.
    alpha : share of the way that the slow weights go.
    """

    def __init__(self, optimizer: Optimizer, *, every: int, alpha: float) -> None:
        super().__init__(optimizer)
        self.every = every
        self.alpha = alpha
        self.steps = 0
        self.fast: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self.slow = [p.detach().clone() for p in self.fast]

    def step(self, closure: Closure) -> Tensor:
        loss = super().step(closure)
        self.steps += 1
        if self.steps % self.every == 0:
            with torch.no_grad():
                torch._foreach_lerp_(self.slow, self.fast, self.alpha)
                torch._foreach_copy_(self.fast, self.slow)
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, **{f"slow.{i}": tensor for i, tensor in enumerate(self.slow)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for i, tensor in enumerate(self.slow):
            tensor.copy_(state[f"slow.{i}"])
