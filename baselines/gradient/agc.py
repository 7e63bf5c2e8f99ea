from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from suite import LogUniform, Paper, gradient
from suite.train.step import Closure, Stepper


@gradient(
    "agc",
    paper=Paper("High-Performance Large-Scale Image Recognition Without Normalization", arxiv="2102.06171", year=2021),
    defaults={"clipping": 0.01, "eps": 1e-3},
    space={"clipping": LogUniform(1e-3, 1.0)},
    confidence="known",
)
class AdaptiveGradClip(Stepper):
    """Adaptive gradient clipping: each unit's gradient at most lambda times the unit's weight norm.

    A unit is a row of a matrix or of a kernel flattened to (out, rest); vectors and
    scalars are one unit. The output layer's weight is left alone, as in the paper.

    Parameters
    ----------
    clipping : lambda.
    eps : least weight norm that counts, so that units at zero can move.
    """

    def __init__(self, optimizer: Optimizer, *, clipping: float, eps: float) -> None:
        super().__init__(optimizer)
        self.clipping = clipping
        self.eps = eps

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        clipped = [g for g in self.optimizer.param_groups if g.get("role") != "head"]
        pairs = [(p.detach(), p.grad) for group in clipped for p in group["params"] if p.grad is not None]
        if pairs:
            factors = [unit_norms(weight) for weight, _ in pairs]
            lengths = [unit_norms(grad) for _, grad in pairs]
            torch._foreach_clamp_min_(factors, self.eps)
            torch._foreach_mul_(factors, self.clipping)
            torch._foreach_clamp_min_(lengths, 1e-6)
            torch._foreach_div_(factors, lengths)
            torch._foreach_clamp_max_(factors, 1.0)
            torch._foreach_mul_([grad for _, grad in pairs], factors)
        return loss


def unit_norms(tensor: Tensor) -> Tensor:
    """Euclidean norms of the units of `tensor`, in a shape that broadcasts with it."""
    if tensor.squeeze().ndim <= 1:
        return torch.linalg.vector_norm(tensor)
    return torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)
