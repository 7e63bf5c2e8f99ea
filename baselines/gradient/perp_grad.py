from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from suite import Paper, gradient
from suite.train.step import Closure, Stepper

TINY = 1e-30


@gradient(
    "perp-grad",
    paper=Paper("Grokking at the Edge of Numerical Stability", arxiv="2501.04697", year=2025),
    families=("vision", "language", "pde"),
    confidence="verified",
)
class PerpGrad(Stepper):
    """Orthogonal gradient: the part of each tensor's gradient at right angles to its weights, at the old norm.

    h = g - <w, g> / (||w||^2 + 1e-30) w, then g <- h ||g|| / (||h|| + 1e-30), for every
    tensor. Tensors of one element have no orthogonal direction and keep their
    gradient.
    """

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        pairs = [(p.detach(), p.grad) for p in self.parameters() if p.numel() > 1 and p.grad is not None]
        if pairs:
            make_orthogonal_([grad for _, grad in pairs], [weight for weight, _ in pairs])
        return loss


def make_orthogonal_(gradients: list[Tensor], weights: list[Tensor]) -> None:
    """Replace each gradient by its part orthogonal to its weight, at its own norm."""
    dots = torch.stack([torch.dot(w.flatten(), g.flatten()) for w, g in zip(weights, gradients, strict=True)])
    along = (dots / (norms(weights).square() + TINY)).unbind()
    orthogonal = torch._foreach_sub(gradients, torch._foreach_mul(weights, along))
    scales = (norms(gradients) / (norms(orthogonal) + TINY)).unbind()
    torch._foreach_copy_(gradients, torch._foreach_mul(orthogonal, scales))


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each tensor, (n,)."""
    return torch.stack(torch._foreach_norm(list(tensors)))
