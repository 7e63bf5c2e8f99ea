from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from baselines.init.common import for_weights
from suite import Paper, Uniform, init
from suite.train.roles import ParamInfo

SPARSE_PAPER = Paper(
    "Deep Neural Network Initialization with Sparsity Inducing Activations", arxiv="2402.16184", year=2024
)
SPACE = {"tau": Uniform(0.0, 1.5), "m": Uniform(0.5, 3.0)}


def critical_variances(tau: float, m: float, odd: bool) -> tuple[float, float]:
    """(σ_w², σ_b²) at which pre-activations of variance 1 keep it and slopes have mean square 1/σ_w².

    With Z ~ N(0, 1), σ_w² = 1/P(φ'(Z) ≠ 0) and σ_b² = 1 - σ_w² E[φ(Z)²].

    Parameters
    ----------
    tau, m : of the activation φ, which is z - τ clipped to [0, m].
    odd : φ is that of |z|, times sign(z).

    Raises
    ------
    ValueError : `tau` is negative or `m` not positive.
    """
    if tau < 0 or m <= 0:
        raise ValueError(f"tau must not be negative and m must be positive, got {tau} and {m}")
    normal, top = NormalDist(), tau + m
    inside = normal.cdf(top) - normal.cdf(tau)
    linear = normal.pdf(tau) - normal.pdf(top)
    square = inside + tau * normal.pdf(tau) - top * normal.pdf(top)
    moment = square - 2 * tau * linear + tau**2 * inside + m**2 * normal.cdf(-top)
    return 1 / ((1 + odd) * inside), 1 - moment / inside


@init(
    "cst-clip-init",
    paper=SPARSE_PAPER,
    system="clipped-sparse",
    defaults={"tau": 1.0364, "m": 1.1704, "odd": True},
    space=SPACE,
    families=("vision",),
    confidence="partly",
)
@init(
    "crelu-clip-init",
    paper=SPARSE_PAPER,
    system="clipped-sparse",
    defaults={"tau": 0.5244, "m": 1.4469, "odd": False},
    space=SPACE,
    families=("vision",),
    confidence="partly",
)
def clipped_sparse(
    tensor: Tensor,
    info: ParamInfo,
    generator: torch.Generator,
    *,
    tau: float = 0.5244,
    m: float = 1.4469,
    odd: bool = False,
) -> None:
    """Edge of chaos of a clipped sparse activation: weights N(0, σ_w²/fan_in), biases N(0, σ_b²).

    The variances are those of `critical_variances`. It is meant for the activation of
    the same τ and m (`crelu-clip+crelu-clip-init`, `cst-clip+cst-clip-init`) in
    networks without normalisation.
    """
    weight, bias = critical_variances(tau, m, odd)
    if info.role == "bias":
        tensor.normal_(0.0, math.sqrt(bias), generator=generator)
    else:
        gaussian(tensor, info, generator, variance=weight)


@for_weights
def gaussian(tensor: Tensor, info: ParamInfo, generator: torch.Generator, *, variance: float) -> None:
    """N(0, variance/fan_in)."""
    tensor.normal_(0.0, math.sqrt(variance / info.fan_in), generator=generator)
