"""What the blocks share: widths at which they have the plain block's parameters."""

from __future__ import annotations


def plain_parameters(features: int, hidden: int) -> int:
    """Parameters of the plain block, two matrices with biases."""
    return 2 * features * hidden + hidden + features


def matched_width(features: int, hidden: int, *, each: int, fixed: int = 0) -> int:
    """Inner width at which a block has as many parameters as the plain block of `hidden`, to the nearest unit.

    Parameters
    ----------
    each : parameters that one more unit of width adds.
    fixed : parameters whatever the width.
    """
    return max(1, round((plain_parameters(features, hidden) - fixed) / each))
