from __future__ import annotations

from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from suite import LogUniform, Paper, gradient
from suite.train.step import Closure, Stepper


@gradient(
    "grad-clip",
    paper=Paper("On the difficulty of training Recurrent Neural Networks", arxiv="1211.5063", year=2013),
    defaults={"max_norm": 1.0},
    space={"max_norm": LogUniform(0.03, 30.0)},
    confidence="known",
)
class GradClip(Stepper):
    """Global gradient-norm clipping, g * min(1, c / (||g||_2 + 1e-6)).

    The norm runs over all parameters together; the 1e-6 is PyTorch's.

    Parameters
    ----------
    max_norm : c, the largest norm that passes unchanged.
    """

    def __init__(self, optimizer: Optimizer, *, max_norm: float) -> None:
        super().__init__(optimizer)
        self.max_norm = max_norm

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        clip_grad_norm_(list(self.parameters()), self.max_norm)
        return loss
