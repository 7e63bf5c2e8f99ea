"""One training step: gradients from a closure, then the optimizer's update.

What an optimizer or a stepper may ask of the training loop, by having the method or attribute:

======================================  ==========================================================
``needs_closure = True``                (optimizer) evaluates the loss itself, as L-BFGS does
``set_hessian_vector(product)``         (optimizer) is given a `HessianVector` of the current batch
``set_horizon(total)``                  is told the whole budget before the first step
``set_targets(total)``                  (optimizer) is told how many predictions the whole run trains on
``set_progress(share)``                 is told before each step the share of the budget used
``set_model(model)``                    (stepper) is given the model before the first step
``set_held_out(closure)``               (stepper) is given a `Closure` of fresh held-out batches
======================================  ==========================================================

Modules of the model may have ``set_progress`` as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

Closure = Callable[[], Tensor]
HessianVector = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]


def hessian_vector(loss: Closure, parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
    """Hessian of `loss()` in the parameters times `vectors`: the gradient of the gradient's product with them.

    Gradients in ``.grad`` are left alone. It costs a forward pass, a backward
    pass with a graph and a backward pass through both: about two forward-backward passes.

    Parameters
    ----------
    loss : computes the scalar, with a graph.
    parameters : what it is differentiated in.
    vectors : one tensor of each parameter's shape.

    Returns
    -------
    One tensor of each parameter's shape; zeros where the loss does not depend on it, or linearly.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        gradients = torch.autograd.grad(loss(), parameters, create_graph=True, allow_unused=True)
        curved = [(g * v).sum() for g, v in zip(gradients, vectors, strict=True) if g is not None and g.requires_grad]
        if not curved:
            return [torch.zeros_like(p) for p in parameters]
        along = torch.stack([product.to(curved[0].device, curved[0].dtype) for product in curved]).sum()
        return list(torch.autograd.grad(along, parameters, allow_unused=True, materialize_grads=True))


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
