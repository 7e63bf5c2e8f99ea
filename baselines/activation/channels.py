"""Where an activation's channels are, and parameters that follow them.

Channels are dim 1 of 4-d inputs (images) and the last dim of all others.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def channel_dim(x: Tensor) -> int:
    """Index of the channel dimension of `x`."""
    return 1 if x.ndim == 4 else -1


def learnable(value: float, features: int | None = None) -> nn.Parameter:
    """A parameter filled with `value`: one a channel, shape (features,), or one shared, shape ()."""
    return nn.Parameter(torch.full(() if features is None else (features,), float(value)))


def over_channels(parameter: Tensor, x: Tensor) -> Tensor:
    """`parameter`, of shape (channels,) or (), in the dtype of `x` and shaped to broadcast over its channels."""
    parameter = parameter.to(x.dtype)
    return parameter[:, None, None] if parameter.ndim and x.ndim == 4 else parameter


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x where x > 0, slope * x elsewhere, for a slope of shape (channels,) or ().

    ``torch.nn.functional.prelu`` takes the channels at dim 1 whatever the number of dimensions.
    """
    slope = slope.to(x.dtype)
    if slope.ndim == 0 or x.ndim in (2, 4):
        return F.prelu(x, slope)
    return F.prelu(x.reshape(-1, x.shape[-1]), slope).view_as(x)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """First and second half of the channels of `x`, as views.

    Raises
    ------
    ValueError : the number of channels is odd.
    """
    dim = channel_dim(x)
    if x.shape[dim] % 2:
        raise ValueError(f"pairs channels, so their number must be even; got {x.shape[dim]}")
    first, second = x.chunk(2, dim)
    return first, second


def to_groups(x: Tensor, size: int) -> Tensor:
    """`x` as (..., groups, size): neighbouring channels grouped and moved to the last two dims, a view.

    Raises
    ------
    ValueError : the number of channels is not a multiple of `size`.
    """
    channels = x.shape[channel_dim(x)]
    if channels % size:
        raise ValueError(f"works on groups of {size} channels, and {channels} channels are not a multiple of that")
    return x.movedim(channel_dim(x), -1).unflatten(-1, (channels // size, size))


def from_groups(groups: Tensor, ndim: int) -> Tensor:
    """Inverse of `to_groups` for an input that had `ndim` dimensions."""
    return groups.flatten(-2).movedim(-1, 1 if ndim == 4 else -1)
