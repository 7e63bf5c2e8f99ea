"""Weights moved for the length of one gradient, shared by the methods that look elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def displaced(parameters: Sequence[Tensor], by: Sequence[Tensor]) -> Iterator[None]:
    """Add `by` to the parameters inside the context; outside they are bit-identical to before."""
    saved = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        torch._foreach_add_(list(parameters), list(by))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(parameters), saved)


def gradients_of(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of parameters that have one, not copied."""
    return [p.grad for p in parameters if p.grad is not None]


def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all tensors together, a scalar tensor."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
