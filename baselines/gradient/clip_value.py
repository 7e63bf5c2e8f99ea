from __future__ import annotations

from torch import Tensor
from torch.nn.utils import clip_grad_value_
from torch.optim import Optimizer

from suite import LogUniform, gradient
from suite.train.step import Closure, Stepper


@gradient("clip-value", defaults={"max_value": 0.1}, space={"max_value": LogUniform(1e-3, 10.0)}, confidence="known")
class ClipValue(Stepper):
    """Element-wise clipping of the gradient to [-c, c].

    Parameters
    ----------
    max_value : c.
    """

    def __init__(self, optimizer: Optimizer, *, max_value: float) -> None:
        super().__init__(optimizer)
        self.max_value = max_value

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        clip_grad_value_(list(self.parameters()), self.max_value)
        return loss
