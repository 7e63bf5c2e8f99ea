from __future__ import annotations

from torch import Tensor

from suite import Paper, gradient
from suite.train.step import Closure, Stepper


@gradient(
    "gradient-centralization",
    paper=Paper(
        "Gradient Centralization: A New Optimization Technique for Deep Neural Networks",
        arxiv="2004.01461",
        year=2020,
    ),
    confidence="known",
)
class GradientCentralization(Stepper):
    """Gradient centralisation: every output unit's gradient minus its mean.

    The mean runs over all dimensions but the first, for tensors of two or more
    dimensions; the others keep their gradient.
    """

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        for p in self.parameters():
            if p.ndim > 1 and p.grad is not None:
                p.grad.sub_(p.grad.mean(dim=tuple(range(1, p.ndim)), keepdim=True))
        return loss
