from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.attention.recurrence import linear_recurrence
from suite import Choice, Paper, attention
from suite.train.roles import mark, mark_residual

NEGATIVE = Paper("Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues", arxiv="2411.12537", year=2024)
MAMBA = Paper("Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arxiv="2312.00752", year=2023)
DEFAULTS = {"expand": 1, "state": 16, "conv": 4}
SPACE = {"expand": Choice(1, 2), "state": Choice(8, 16, 32)}
CAUSAL = ("language", "rlvr")


class StateSpace(nn.Module):
    """The parameters that are no projections: rates A, step bias and skip D.

    At the start A = -1, ..., -N in every channel, softplus(bias) runs in log space from
    0.001 to 0.1 over the channels (the quantiles of the usual random start), D = 1.
    """

    def __init__(self, channels: int, state: int) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(channels, 1))
        self.step_bias = nn.Parameter(torch.logspace(-3.0, -1.0, channels).expm1().log())
        self.skip = nn.Parameter(torch.ones(channels))
        mark(self, "other")


@attention("mamba", paper=MAMBA, defaults=DEFAULTS, space=SPACE, families=CAUSAL, confidence="verified", vmap=False)
class Mamba(nn.Module):
    """Selective state space: h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t, y_t = C_t·h_t + D x_t, then W_o(y ⊙ SiLU(z)).

    Δ, B and C are linear in x, which went through a short causal convolution and SiLU.
    The paper's inner width, 2·features, is for blocks that stand for attention and
    feed-forward together; with `expand` = 1 the mixer has about the parameters of attention.

    Parameters
    ----------
    features : channels.
    heads : divides `features`; the recurrence mixes no channels, so that it changes nothing.
    causal : must be True.
    expand : inner channels over `features`.
    state : N, states per channel.
    conv : tokens the short convolution sees.

    Raises
    ------
    ValueError : `causal` is False, or `heads` does not divide `features`.
    """

    def __init__(
        self, features: int, heads: int, causal: bool, *, expand: int = 1, state: int = 16, conv: int = 4
    ) -> None:
        super().__init__()
        if not causal:
            raise ValueError(f"{type(self).__name__} is a recurrence over time: it has no non-causal form")
        if features % heads:
            raise ValueError(f"{heads} heads do not divide {features} features")
        inner, rank = expand * features, math.ceil(features / 16)
        self.sizes = (rank, state, state)
        self.inputs = nn.Linear(features, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, conv, groups=inner)
        self.select = nn.Linear(inner, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, inner, bias=False)
        self.space = StateSpace(inner, state)
        self.out = mark_residual(nn.Linear(inner, features, bias=False))

    def decay(self, exponent: Tensor) -> Tensor:
        """Factor of the state from Δ A."""
        return exponent.exp()

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.inputs(x).chunk(2, dim=-1)
        values = F.silu(self.conv(F.pad(values.mT, (self.conv.kernel_size[0] - 1, 0)))).mT
        rank, b, c = self.select(values).transpose(0, 1).split(self.sizes, dim=-1)
        kind = torch.promote_types(x.dtype, torch.float32)
        step = F.softplus((self.step(rank) + self.space.step_bias).to(kind))[..., None]
        written = step * b.to(kind)[..., None, :] * values.transpose(0, 1).to(kind)[..., None]
        states = linear_recurrence(self.decay(-step * self.space.log_rate.to(kind).exp()), written)
        read = (states @ c.to(kind)[..., None])[..., 0].to(x.dtype).transpose(0, 1)
        return self.out((read + self.space.skip * values) * F.silu(gate))


@attention(
    "mamba-neg",
    paper=NEGATIVE,
    defaults=DEFAULTS,
    space=SPACE,
    families=CAUSAL,
    system="neg-eig-rnn",
    confidence="verified",
    vmap=False,
)
class NegativeMamba(Mamba):
    """`mamba` with the factor 2·exp(Δ A) - 1 in place of exp(Δ A): between -1 and 1."""

    def decay(self, exponent: Tensor) -> Tensor:
        return 2 * exponent.exp() - 1
