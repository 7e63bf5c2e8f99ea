"""What the architectures share: sizes at which they have the parameters of the task's own network."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from suite.train.build import Build, Interface


def nearest_size(build: Build, interface: Interface, make: Callable[[int], nn.Module], start: int = 1) -> int:
    """The size for which ``make(size)`` has as many parameters as the task's own network, or nearly so.

    Parameters
    ----------
    make : makes the network of a size; its parameters grow with the size.
    start : smallest size.
    """
    target = build.parameters(interface.own)

    def count(size: int) -> int:
        return build.parameters(lambda: make(size))

    low, high = start, start + 1
    while count(high) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < target else (low, middle)
    return min((low, high), key=lambda size: abs(count(size) - target))
