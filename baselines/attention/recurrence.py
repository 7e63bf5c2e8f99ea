"""Linear recurrences over time with a decay of their own for every entry of the state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def run(decay: Tensor, inputs: Tensor) -> Tensor:
    """States of `linear_recurrence`: step by step, on a GPU by doubling the reach of each step."""
    if not inputs.is_cuda:
        states = torch.empty_like(inputs)
        state = torch.zeros_like(inputs[0])
        for t in range(len(inputs)):
            state = torch.addcmul(inputs[t], decay[t], state, out=states[t])
        return states
    reach = 1
    while reach < len(inputs):
        inputs = torch.cat([inputs[:reach], torch.addcmul(inputs[reach:], decay[reach:], inputs[:-reach])])
        decay = torch.cat([decay[:reach], decay[reach:] * decay[:-reach]])
        reach *= 2
    return inputs


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay: Tensor, inputs: Tensor) -> Tensor:
        states = run(decay, inputs)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        nothing = torch.zeros_like(states[:1])
        later = torch.cat([decay[1:], nothing]).conj()
        reached = run(later.flip(0), gradient.flip(0)).flip(0)
        return reached * torch.cat([nothing, states[:-1]]).conj(), reached


def linear_recurrence(decay: Tensor, inputs: Tensor) -> Tensor:
    """States h_t = a_t h_{t-1} + u_t with h_{-1} = 0, entry by entry.

    Parameters
    ----------
    decay, inputs : a and u, (time, ...) of one shape and type, real or complex.

    Returns
    -------
    (time, ...).
    """
    return _Recurrence.apply(decay.contiguous(), inputs.contiguous())
