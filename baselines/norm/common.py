"""Where the channels of a norm's input are: dim 1 of images (N, C, H, W), else the last dim."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def positions(x: Tensor) -> tuple[int, ...]:
    """The dims that are not channels: examples and places."""
    return (0, 2, 3) if x.ndim == 4 else tuple(range(x.ndim - 1))


def places(x: Tensor) -> tuple[int, ...]:
    """The dims within one example that are not channels; empty for (n, C)."""
    return (2, 3) if x.ndim == 4 else tuple(range(1, x.ndim - 1))


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) values in the shape that broadcasts against x."""
    return values.view(-1, 1, 1) if x.ndim == 4 else values


def channels_last(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function`, which works along the last dim, along the channels of x."""
    return function(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if x.ndim == 4 else function(x)


def rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function` of (n, C, ...) inputs, on images as they are and on (..., C) as (n, C)."""
    return function(x) if x.ndim == 4 else function(x.reshape(-1, x.shape[-1])).view_as(x)


class Affine(nn.Module):
    """Gain (1 at the start) and bias (0) of every channel."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def affine(self, x: Tensor) -> Tensor:
        return x * per_channel(self.weight, x) + per_channel(self.bias, x)
