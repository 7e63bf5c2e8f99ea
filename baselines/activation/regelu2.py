from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite import Paper, activation

REGELU2_PAPER = Paper(
    "Reducing Fine-Tuning Memory Overhead by Approximate and Memory-Sharing Backpropagation",
    arxiv="2406.16282",
    year=2024,
)


def pack(codes: Tensor) -> Tensor:
    """Two-bit codes (uint8, any shape) four to a byte, flat."""
    flat = codes.reshape(-1)
    quads = F.pad(flat, (0, -flat.shape[0] % 4)).view(-1, 4)
    return quads[:, 0] | quads[:, 1] << 2 | quads[:, 2] << 4 | quads[:, 3] << 6


def unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Inverse of `pack` for codes of `shape`."""
    quads = torch.stack([packed >> bits & 3 for bits in (0, 2, 4, 6)], -1)
    return quads.flatten()[: torch.Size(shape).numel()].view(shape)


class _StepSlope(torch.autograd.Function):
    """Value of `value`; gradient times ``levels[code]``, with two bits an element kept for the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, value: Tensor, packed: Tensor, levels: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2], inputs[3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        packed, levels = ctx.saved_tensors
        codes = unpack(packed, grad.shape)
        return grad * levels.to(grad.dtype)[codes.int()], None, None, None


class _StepGradient(nn.Module):
    """A smooth function whose derivative is replaced by Σ a_k 1[x > c_k], k = 1, 2, 3.

    Parameters
    ----------
    function : the exact forward pass.
    heights, thresholds : a_k and c_k, with c_k ascending and the a_k summing to 1.
    """

    levels: Tensor

    def __init__(
        self, function: Callable[[Tensor], Tensor], heights: tuple[float, ...], thresholds: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.function = function
        self.thresholds = thresholds
        levels = [0.0, heights[0], heights[0] + heights[1], 1.0]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        fixed = x.detach()
        low, middle, high = self.thresholds
        codes = (fixed > low).byte() + (fixed > middle).byte() + (fixed > high).byte()
        return _StepSlope.apply(x, self.function(fixed), pack(codes), self.levels)


@activation(
    "regelu2",
    paper=REGELU2_PAPER,
    families=("vision", "language"),
    confidence="verified",
    surrogate=True,
)
class ReGELU2(_StepGradient):
    """Exact GELU forward, a four-level step function as its derivative (2 bits an element kept)."""

    def __init__(self) -> None:
        super().__init__(
            F.gelu,
            (-0.04922261145617846, 1.0979632065417297, -0.048740595085551286),
            (-3.1858810036855245, -0.001178821281161997, 3.190832613414926),
        )


@activation(
    "resilu2",
    paper=REGELU2_PAPER,
    system="regelu2",
    families=("vision", "language"),
    confidence="verified",
    surrogate=True,
)
class ReSiLU2(_StepGradient):
    """Exact SiLU forward, a four-level step function as its derivative (2 bits an element kept)."""

    def __init__(self) -> None:
        super().__init__(
            F.silu,
            (-0.04060357190528599, 1.080925428529668, -0.040321856624382146),
            (-6.3050461001646445, -0.0008684942046214787, 6.325815242089708),
        )
