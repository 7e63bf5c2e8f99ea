"""An activation's shape: values and derivative on a fixed grid, from the code itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from suite.registry import Method

LOW, HIGH, POINTS = -6.0, 6.0, 121
CHANNELS = 16  # what activations that group channels take as one group, two or four


def activation_portrait(method: Method, hp: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Values and derivatives of a pointwise activation in evaluation mode.

    Returns
    -------
    ``{"kind": "activation", "x": [...], "y": [...], "dy": [...]}`` with 5
    significant digits, or None where the activation is not pointwise (it mixes
    channels or changes their number), so that there is no curve to draw.
    """
    module = method.make(**(hp or {})).double().eval()
    if getattr(module, "width_factor", 1) != 1:
        return None
    x = torch.linspace(LOW, HIGH, POINTS, dtype=torch.float64)[:, None].repeat(1, CHANNELS).requires_grad_(True)
    y = module(x)
    if y.shape != x.shape or not torch.allclose(y[:, 0], y[:, 1], equal_nan=True):
        return None
    shifts = torch.tensor([i * (-1) ** i for i in range(CHANNELS)], dtype=torch.float64)
    for others in (shifts, -shifts):
        if not torch.allclose(module(x.detach() + others)[:, 0], y.detach()[:, 0], equal_nan=True):
            return None
    if y.requires_grad:
        (slope,) = torch.autograd.grad(y[:, 0].sum(), x)
    else:
        slope = torch.zeros_like(x)
    return {"kind": "activation", "x": _digits(x[:, 0]), "y": _digits(y[:, 0]), "dy": _digits(slope[:, 0])}


def _digits(values: torch.Tensor) -> list[float]:
    return [float(f"{v:.5g}") for v in values.detach().tolist()]
