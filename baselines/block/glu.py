import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite import Paper, block
from suite.train.roles import mark_residual

GLU_PAPER = Paper("GLU Variants Improve Transformer", arxiv="2002.05202", year=2020)


def matched_hidden(features: int, hidden: int, tolerance: float = 0.02) -> int:
    """Hidden width at which three matrices have as many parameters as the plain block of `hidden`.

    The whole number nearest to 2/3 `hidden` whose 3 · features · width parameters are within
    `tolerance` of the plain block's 2 · features · hidden + hidden + features (biases included);
    where no width is, the one with the nearest count.
    """
    exact = (2 * features * hidden + hidden + features) / (3 * features)
    low, high = math.ceil((1 - tolerance) * exact), math.floor((1 + tolerance) * exact)
    if low > high:
        return max(1, round(exact))
    return min(max(round(2 * hidden / 3), low), high)


class _GatedFeedForward(nn.Module):
    """Gated feed-forward block, W₂ (gate(W x) ⊙ V x), without biases.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for.
    activation : not used; the gate has its own nonlinearity.
    matched : scale `hidden` so that the parameters equal the plain block's.
    """

    def __init__(
        self, features: int, hidden: int, activation: Callable[[int], nn.Module] | None = None, matched: bool = True
    ) -> None:
        super().__init__()
        width = matched_hidden(features, hidden) if matched else hidden
        self.gate = nn.Linear(features, width, bias=False)
        self.value = nn.Linear(features, width, bias=False)
        self.down = nn.Linear(width, features, bias=False)
        mark_residual(self.down)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.nonlinearity(self.gate(x)) * self.value(x))

    def nonlinearity(self, gate: Tensor) -> Tensor:
        raise NotImplementedError


@block("glu", paper=GLU_PAPER, defaults={"matched": True}, families=("vision", "language"))
class GLU(_GatedFeedForward):
    """Gated linear unit feed-forward block, W₂ (σ(W x) ⊙ V x), without biases, at the plain block's parameters."""

    def nonlinearity(self, gate: Tensor) -> Tensor:
        return torch.sigmoid(gate)


@block("bilinear", paper=GLU_PAPER, system="glu", defaults={"matched": True}, families=("vision", "language"))
class Bilinear(_GatedFeedForward):
    """Bilinear feed-forward block, W₂ (W x ⊙ V x), without biases, at the plain block's parameters."""

    def nonlinearity(self, gate: Tensor) -> Tensor:
        return gate


@block("reglu", paper=GLU_PAPER, system="glu", defaults={"matched": True}, families=("vision", "language"))
class ReGLU(_GatedFeedForward):
    """ReLU-gated feed-forward block, W₂ (ReLU(W x) ⊙ V x), without biases, at the plain block's parameters."""

    def nonlinearity(self, gate: Tensor) -> Tensor:
        return F.relu(gate)


@block("geglu", paper=GLU_PAPER, system="glu", defaults={"matched": True}, families=("vision", "language"))
class GEGLU(_GatedFeedForward):
    """GELU-gated feed-forward block, W₂ (GELU(W x) ⊙ V x), without biases, at the plain block's parameters."""

    def nonlinearity(self, gate: Tensor) -> Tensor:
        return F.gelu(gate)


@block("swiglu", paper=GLU_PAPER, system="glu", defaults={"matched": True}, families=("vision", "language"))
class SwiGLU(_GatedFeedForward):
    """Swish-gated feed-forward block, W₂ (SiLU(W x) ⊙ V x), without biases, at the plain block's parameters."""

    def nonlinearity(self, gate: Tensor) -> Tensor:
        return F.silu(gate)
