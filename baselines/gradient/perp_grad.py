from __future__ import annotations

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
        with torch.no_grad():
            for p in self.parameters():
                if p.numel() > 1 and p.grad is not None:
                    make_orthogonal_(p.grad, p)
        return loss


def make_orthogonal_(gradient: Tensor, weight: Tensor) -> None:
    """Replace `gradient` by its part orthogonal to `weight`, at its own norm."""
    g, w = gradient.flatten(), weight.flatten()
    orthogonal = g - torch.dot(w, g) / (torch.dot(w, w) + TINY) * w
    scale = torch.linalg.vector_norm(g) / (torch.linalg.vector_norm(orthogonal) + TINY)
    gradient.copy_((orthogonal * scale).view_as(gradient))
