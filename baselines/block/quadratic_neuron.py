from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from baselines.block.common import matched_width
from suite import LogUniform, Paper, block
from suite.train.roles import mark, mark_residual

RELINEAR = Paper("On Expressivity and Trainability of Quadratic Networks", arxiv="2110.06081", year=2021)
SPACE = {"shrink": LogUniform(1e-3, 1.0)}


class ZeroLinear(nn.Linear):
    """A linear map that starts at 0 and that an init leaves alone."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        with torch.no_grad():
            self.weight.zero_()
            self.bias.zero_()
        mark(self, "other")


class QuadraticLinear(nn.Module):
    """Quadratic neurons, (w_r·x + b_r)(w_g·x + b_g) + w_b·(x ⊙ x) + c, which start as plain ones (ReLinear).

    w_g, w_b and c start at 0 and b_g at 1. All four are stored divided by
    `shrink`: an Adam step moves them `shrink` times as far as w_r, a plain gradient
    step shrink² times.

    Parameters
    ----------
    inputs, outputs : channels.
    shrink : factor on the stored quadratic weights.
    compact : leaves out the factor w_g·x + b_g.
    """

    def __init__(self, inputs: int, outputs: int, *, shrink: float, compact: bool = False) -> None:
        super().__init__()
        self.shrink = shrink
        self.linear = nn.Linear(inputs, outputs)
        self.gate = None if compact else ZeroLinear(inputs, outputs)
        self.square = ZeroLinear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if self.gate is not None:
            y = y * (1 + self.shrink * self.gate(x))
        return y + self.shrink * self.square(x * x)


class _QuadraticFeedForward(nn.Module):
    """Feed-forward block of two layers of quadratic neurons around the recipe's activation.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for.
    activation : makes the activation for a number of channels.
    shrink : see `QuadraticLinear`.
    matched : scale `hidden` so that the parameters equal the plain block's.
    """

    compact = False

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module],
        shrink: float = 0.01,
        matched: bool = True,
    ) -> None:
        super().__init__()
        parts = 2 if self.compact else 3
        if matched:
            hidden = matched_width(features, hidden, each=parts * (2 * features + 1), fixed=parts * features)
        self.up = QuadraticLinear(features, hidden, shrink=shrink, compact=self.compact)
        self.activation = activation(hidden)
        width = int(hidden * getattr(self.activation, "width_factor", 1))
        self.down = QuadraticLinear(width, features, shrink=shrink, compact=self.compact)
        mark_residual(self.down.linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


@block(
    "quadratic-neuron",
    paper=RELINEAR,
    defaults={"shrink": 0.01, "matched": True},
    space=SPACE,
    families=("vision", "pde"),
    confidence="verified",
)
class QuadraticFeedForward(_QuadraticFeedForward):
    """Two layers of quadratic neurons, (w_r·x + b_r)(w_g·x + b_g) + w_b·(x ⊙ x) + c, at the plain block's parameters.

    They start as plain neurons. The default `shrink` of .01 gives gradient descent
    the published ratio of learning rates, 1e-5 to .1.
    """


@block(
    "quadratic-compact",
    paper=RELINEAR,
    system="quadratic-neuron",
    defaults={"shrink": 0.01, "matched": True},
    space=SPACE,
    families=("vision", "pde"),
    confidence="verified",
)
class CompactQuadraticFeedForward(_QuadraticFeedForward):
    """Two layers of quadratic neurons without interaction, w_r·x + b + w_b·(x ⊙ x) + c, at equal parameters.

    They start as plain neurons.
    """

    compact = True


@block(
    "quadratic-rezero",
    paper=RELINEAR,
    system="quadratic-neuron",
    defaults={"shrink": 0.1, "matched": True},
    space=SPACE,
    families=("vision",),
    confidence="verified",
)
class GatedQuadraticFeedForward(_QuadraticFeedForward):
    """The block of quadratic neurons times a learned gate that starts at 0 (ReZero), at the plain block's parameters.

    The default `shrink` of .1 gives gradient descent the published ratio of
    learning rates, 1e-3 to .1. It needs a residual stream around it, so it has no
    place in a plain chain of layers.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module],
        shrink: float = 0.1,
        matched: bool = True,
    ) -> None:
        super().__init__(features, hidden, activation, shrink, matched)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * super().forward(x)
