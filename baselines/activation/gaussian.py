"""Expectations under a Gaussian, safe at every finite and infinite input."""

import math

import torch
from torch import Tensor

_TAIL = 28.0  # erfc(28) and exp(-28²) are 0 in every floating-point dtype


def expected_relu(x: Tensor, sigma: float) -> Tensor:
    """E[max(0, x + σz)] for standard normal z: x Φ(x/σ) + σ φ(x/σ).

    Parameters
    ----------
    x : any shape.
    sigma : standard deviation, > 0.
    """
    x = x.clamp(min=-_TAIL * math.sqrt(2.0) * sigma)
    u = (x * (1.0 / (math.sqrt(2.0) * sigma))).clamp(max=_TAIL)
    return 0.5 * x * torch.erfc(-u) + (sigma / math.sqrt(2.0 * math.pi)) * torch.exp(-u * u)
