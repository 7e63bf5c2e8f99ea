"""One training step: gradients from a closure, then the optimizer's update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

Closure = Callable[[], Tensor]


class Stepper:
    """Takes one step of `optimizer`; the base class of every method of slot ``gradient``.

    A method overrides `gradients` (clip, project, a second pass at perturbed
    weights) or `step` itself (project the weights after the update).

    Parameters
    ----------
    optimizer : the recipe's optimizer. One with ``needs_closure = True``
        (L-BFGS) evaluates the closure itself, as often as it needs.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.needs_closure = bool(getattr(optimizer, "needs_closure", False))

    def gradients(self, closure: Closure) -> Tensor:
        """Leave the step's gradients in ``.grad`` and return the loss.

        `closure` zeroes the gradients, computes the loss of the current batch at
        the current weights, back-propagates it and returns it detached; each
        call is one forward-backward pass and is counted.
        """
        return closure()

    def step(self, closure: Closure) -> Tensor:
        """One update of the weights; returns the loss before it."""
        if self.needs_closure:
            return self.optimizer.step(lambda: self.gradients(closure))  # type: ignore[arg-type, return-value]
        loss = self.gradients(closure)
        self.optimizer.step()
        return loss

    def parameters(self) -> Iterator[Tensor]:
        """All parameters of the optimizer's groups that have a gradient."""
        for group in self.optimizer.param_groups:
            yield from (p for p in group["params"] if p.grad is not None)

    def state_dict(self) -> dict[str, Any]:
        """State of the wrapper itself (not the optimizer's); tensors and plain numbers only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
