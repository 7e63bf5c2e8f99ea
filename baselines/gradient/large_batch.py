"""Large batches at an unchanged budget of examples: several steps' batches make one update, at a scaled rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from suite import IntUniform, Paper, gradient
from suite.train.step import Closure, Stepper

MATRIX_THEORY = Paper(
    "Learning Rates as a Function of Batch Size: A Random Matrix Theory Approach to Neural Network Training",
    arxiv="2006.09092",
    year=2020,
)
TRAIN_LONGER = Paper(
    "Train longer, generalize better: closing the generalization gap in large batch training of neural networks",
    arxiv="1705.08741",
    year=2017,
)
DEFAULTS = {"batches": 4}
SPACE = {"batches": IntUniform(2, 16)}
FAMILIES = ("vision", "language")
CLIP = 5.0


@gradient(
    "large-batch",
    paper=TRAIN_LONGER,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="large-batch-regime",
    confidence="known",
)
class LargeBatch(Stepper):
    """One update for every `batches` steps, with the mean gradient of their batches: the control of the rate rules.

    The learning rate is the one of the step at which the update falls, times
    ``batches ** power``. Norms see the parts (ghost batches). Steps that are left over at the end of
    the budget make no update. An optimizer that evaluates its loss itself takes
    every step's batch alone, at the scaled rate.

    Parameters
    ----------
    batches : how many times larger the batch of an update is.
    """

    power = 0.0

    def __init__(self, optimizer: Optimizer, *, batches: int) -> None:
        super().__init__(optimizer)
        self.batches = batches
        self.count = 0
        self.tensors: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self.sums: list[Tensor | None] = [None] * len(self.tensors)

    def step(self, closure: Closure) -> Tensor:
        if self.needs_closure:
            return self.at_scaled_rate(lambda: super(LargeBatch, self).step(closure))
        loss = self.gradients(closure)
        self.collect()
        self.count += 1
        if self.count % self.batches == 0:
            self.release()
            self.at_scaled_rate(self.optimizer.step)
        return loss

    def collect(self) -> None:
        """Add the gradients in place to the sums."""
        for i, p in enumerate(self.tensors):
            if p.grad is not None:
                total = self.sums[i]
                self.sums[i] = p.grad.clone() if total is None else total.add_(p.grad)

    def release(self) -> None:
        """Leave the mean gradients in ``.grad`` and start anew."""
        for p, total in zip(self.tensors, self.sums, strict=True):
            p.grad = None if total is None else total.div_(self.batches)
        self.sums = [None] * len(self.tensors)

    def at_scaled_rate(self, update: Any) -> Any:
        """What `update` returns when it is called with every learning rate multiplied."""
        groups = self.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * self.batches**self.power
        try:
            return update()
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        sums = {f"sum.{i}": total for i, total in enumerate(self.sums) if total is not None}
        return {"count": self.count, **sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        for i, p in enumerate(self.tensors):
            kept = state.get(f"sum.{i}")
            self.sums[i] = None if kept is None else kept.to(p.device, copy=True)


@gradient(
    "linear-lr-scaling",
    paper=MATRIX_THEORY,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="batch-lr-rule",
    confidence="known",
)
class LinearRule(LargeBatch):
    """`large-batch` with the learning rate multiplied by `batches`: the rule for SGD."""

    power = 1.0


@gradient(
    "sqrt-lr-scaling",
    paper=MATRIX_THEORY,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="batch-lr-rule",
    confidence="known",
)
class RootRule(LargeBatch):
    """`large-batch` with the learning rate multiplied by the square root of `batches`: the rule for Adam."""

    power = 0.5


@gradient(
    "sqrt-lr-sgd",
    paper=TRAIN_LONGER,
    defaults=DEFAULTS,
    space=SPACE,
    families=("vision",),
    system="large-batch-regime",
    confidence="verified",
)
class RootRuleClipped(LargeBatch):
    """`large-batch` with the learning rate multiplied by the square root of `batches` and gradients clipped to norm 5.

    The paper's rule for SGD with momentum, with the clipping of its code. Its regime
    adaptation, as many updates as with small batches, needs `batches` times the budget.
    """

    power = 0.5

    def release(self) -> None:
        super().release()
        torch.nn.utils.clip_grad_norm_(list(self.parameters()), CLIP)
