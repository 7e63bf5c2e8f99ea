from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from baselines.loss.common import wide
from baselines.loss.heads import Cosine
from suite import LogUniform, Paper, loss

PSL = Paper(
    "PSL: Rethinking and Improving Softmax Loss from Pairwise Perspective for Recommendation",
    arxiv="2411.00163",
    year=2024,
)
TAU = 2.0  # the margins d lie in [-1, 1]
DEFAULTS = {"temperature": 0.1}
SPACE = {"temperature": LogUniform(0.01, 1.0)}
FAMILIES = ("vision", "language")


def head(features: int, outputs: int, bias: bool, *, temperature: float) -> nn.Module:
    """cos(f, w_c)/τ, divided by the temperature τ*, so that the softmax of the logits is that of the loss."""
    return Cosine(features, outputs, 1.0 / (TAU * temperature))


def pairwise(logits: Tensor, targets: Tensor, temperature: float, surrogate: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of log Σ_{j≠y} surrogate(d_j)^(1/τ*), d_j = τ*·(z_j - z_y)."""
    z = wide(logits)
    margins = temperature * (z - z.gather(-1, targets[:, None]))
    powers = surrogate(margins).clamp(min=torch.finfo(z.dtype).tiny).log() / temperature
    own = torch.zeros_like(z, dtype=torch.bool).scatter(-1, targets[:, None], True)
    return powers.masked_fill(own, -torch.inf).logsumexp(-1).mean()


@loss(
    "psl-tanh",
    paper=PSL,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="psl",
    confidence="verified",
)
def psl_tanh(logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Pairwise softmax loss with surrogate tanh(d) + 1 of the margins d between cosine scores.

    log Σ_{j≠y} (tanh(d_j) + 1)^(1/τ*), with d_j = s_j - s_y, s_c = cos(f, w_c)/2 and all other
    classes as negatives. Between an indicator of d >= 0 and exp(d), which would be the
    softmax loss. The output layer gives s/τ*.

    Parameters
    ----------
    temperature : τ*; 1 in the authors' command line, tuned from .01 to .5 in their grids.
    """
    return pairwise(logits, targets, temperature, lambda d: d.tanh() + 1)


@loss(
    "psl-atan",
    paper=PSL,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="psl",
    confidence="verified",
)
def psl_atan(logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Pairwise softmax loss with surrogate atan(d) + 1: see `psl-tanh`."""
    return pairwise(logits, targets, temperature, lambda d: d.atan() + 1)


@loss(
    "psl-relu",
    paper=PSL,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="psl",
    confidence="verified",
)
def psl_relu(logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Pairwise softmax loss with surrogate max(d + 1, 0): see `psl-tanh`.

    At d = -1, the smallest margin, where it would be log 0, a term has no gradient.
    """
    return pairwise(logits, targets, temperature, lambda d: torch.relu(d + 1))


psl_tanh.head = psl_atan.head = psl_relu.head = head  # type: ignore[attr-defined]
