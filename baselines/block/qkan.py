from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.block.common import matched_width, plain_parameters
from suite import Choice, IntUniform, Paper, block
from suite.train.jets import through
from suite.train.roles import mark, mark_residual

QVAF = Paper(
    "Quantum Variational Activation Functions Empower Kolmogorov-Arnold Networks", arxiv="2509.14026", year=2025
)
SPACE = {"repetitions": IntUniform(1, 6), "fast": Choice(False, True)}
FAMILIES = ("pde", "vision", "language")


def bloch_z(x: Tensor, theta: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """⟨Z⟩ of a qubit that re-uploads x, from |+⟩: Rz(θ_l1), Ry(θ_l2), Rz(w_l x + b_l) for l = 1..r, then Rz, Ry.

    In real numbers: the Bloch vector starts at (1, 0, 0), Rz(φ) turns it about the
    z axis and Ry(φ) about the y axis.

    Parameters
    ----------
    x : any shape.
    theta : (..., r + 1, 2), its leading dims broadcast against `x`.
    weight, bias : (..., r), likewise.
    """
    first = theta[..., 0, 0]
    (z, a), c = _turn(torch.zeros_like(first), first.cos(), theta[..., 0, 1]), first.sin()
    for repetition in range(weight.shape[-1]):
        about_z, about_y = theta[..., repetition + 1, :].unbind(-1)
        a, c = _turn(a, c, weight[..., repetition] * x + (bias[..., repetition] + about_z))
        z, a = _turn(z, a, about_y)
    return z


def _turn(u: Tensor, v: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """The plane vector (u, v) turned by `angle`."""
    sine, cosine = torch.sin(angle), torch.cos(angle)
    return u * cosine - v * sine, u * sine + v * cosine


class DARUANs(nn.Module):
    """a ⟨Z⟩(x) + c of a data re-uploading qubit for every channel or edge; see `bloch_z`.

    θ is Xavier-normal, the circuits' weights and a are 1, their biases and c 0 at
    the start; all are trained.

    Parameters
    ----------
    shape : of the channels (features,) or edges (outputs, inputs).
    repetitions : times that a circuit uploads its input.
    fast : read out |ψ₀| - |ψ₁| instead of ⟨Z⟩ = |ψ₀|² - |ψ₁|²; its slope is infinite at the poles.
    """

    def __init__(self, *shape: int, repetitions: int, fast: bool) -> None:
        super().__init__()
        self.fast = fast
        self.theta = nn.Parameter(nn.init.xavier_normal_(torch.empty(*shape, repetitions + 1, 2)))
        self.weight = nn.Parameter(torch.ones(*shape, repetitions))
        self.bias = nn.Parameter(torch.zeros(*shape, repetitions))
        self.gain = nn.Parameter(torch.ones(shape))
        self.shift = nn.Parameter(torch.zeros(shape))
        mark(self, "other")

    def read(self, x: Tensor) -> Tensor:
        """What the circuits measure, of `x` broadcast against their shape."""
        z = bloch_z(x, self.theta, self.weight, self.bias)
        return ((1 + z) / 2).clamp(min=0).sqrt() - ((1 - z) / 2).clamp(min=0).sqrt() if self.fast else z

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.read(x) + self.shift


def circuit_parameters(repetitions: int) -> int:
    """Parameters of one circuit of `DARUANs`."""
    return 4 * repetitions + 4


class QKANLayer(nn.Module):
    """y_j = Σ_i a_ji (⟨Z⟩_ji(x_i) + c_ji) + b_ji silu(x_i), a data re-uploading qubit on every edge.

    b starts at 1/2.

    Parameters
    ----------
    inputs, outputs : channels.
    repetitions, fast : of the circuits, see `DARUANs`.
    """

    def __init__(self, inputs: int, outputs: int, *, repetitions: int, fast: bool) -> None:
        super().__init__()
        self.circuits = DARUANs(outputs, inputs, repetitions=repetitions, fast=fast)
        self.base = nn.Parameter(torch.full((outputs, inputs), 0.5))
        mark(self, "other")

    def forward(self, x: Tensor) -> Tensor:
        edges = self.circuits.gain * (self.circuits.read(x[..., None, :]) + self.circuits.shift)
        return edges.sum(-1) + F.linear(F.silu(x), self.base)


@block(
    "daruan",
    paper=QVAF,
    system="qkan",
    defaults={"repetitions": 3, "fast": False, "matched": True},
    space=SPACE,
    families=FAMILIES,
    confidence="verified",
)
class DARUANFeedForward(nn.Module):
    """Feed-forward block W₂ φ(W₁ x + b₁) + b₂ with a trained single-qubit circuit φ a channel, at equal parameters.

    φ is a ⟨Z⟩(x) + c; see `bloch_z` for the circuit.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for.
    activation : not used; the circuits are the activation.
    repetitions, fast : of the circuits, see `DARUANs`.
    matched : scale `hidden` so that the parameters equal the plain block's.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module] | None = None,
        repetitions: int = 3,
        fast: bool = False,
        matched: bool = True,
    ) -> None:
        super().__init__()
        if matched:
            each = 2 * features + 1 + circuit_parameters(repetitions)
            hidden = matched_width(features, hidden, each=each, fixed=features)
        self.up = nn.Linear(features, hidden)
        self.circuits = DARUANs(hidden, repetitions=repetitions, fast=fast)
        self.down = mark_residual(nn.Linear(hidden, features))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(through(self.circuits, self.up(x)))


@block(
    "qkan",
    paper=QVAF,
    defaults={"repetitions": 3, "fast": False, "matched": True},
    space=SPACE,
    families=FAMILIES,
    confidence="verified",
)
class QKAN(nn.Module):
    """Two Kolmogorov-Arnold layers with a single-qubit circuit on every edge, at the plain block's parameters.

    An edge is a (⟨Z⟩(x) + c) + b silu(x); see `bloch_z` for the circuit.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for.
    activation : not used.
    repetitions, fast : of the circuits, see `DARUANs`.
    matched : take as many inner channels as give the plain block's parameters, else `hidden`.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module] | None = None,
        repetitions: int = 3,
        fast: bool = False,
        matched: bool = True,
    ) -> None:
        super().__init__()
        if matched:
            hidden = matched_width(features, hidden, each=2 * features * (circuit_parameters(repetitions) + 1))
        self.up = QKANLayer(features, hidden, repetitions=repetitions, fast=fast)
        self.down = QKANLayer(hidden, features, repetitions=repetitions, fast=fast)
        mark_residual(self.down)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x))


@block(
    "hqkan",
    paper=QVAF,
    system="qkan",
    defaults={"repetitions": 1, "fast": False, "widening": 1, "matched": False},
    space={**SPACE, "widening": Choice(1, 2, 4)},
    families=FAMILIES,
    confidence="verified",
)
class HQKAN(nn.Module):
    """Linear map to k = ⌈log₂ features⌉ channels, a k to k QKAN layer, linear map back.

    It has far fewer parameters than the plain block by design; `widening` 4 is the
    paper's HQKAN-44. The paper's language model shares the circuits in three groups
    of edges; here every edge has its own.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for, of use with `matched` only.
    activation : not used.
    repetitions, fast : of the circuits, see `DARUANs`.
    widening : factor on k.
    matched : take the k that gives the plain block's parameters instead.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module] | None = None,
        repetitions: int = 1,
        fast: bool = False,
        widening: int = 1,
        matched: bool = False,
    ) -> None:
        super().__init__()
        width = widening * max(1, math.ceil(math.log2(features)))
        if matched:
            width = self.matched(features, hidden, circuit_parameters(repetitions) + 1)
        self.down = nn.Linear(features, width)
        self.middle = QKANLayer(width, width, repetitions=repetitions, fast=fast)
        self.up = mark_residual(nn.Linear(width, features))

    @staticmethod
    def matched(features: int, hidden: int, edge: int) -> int:
        """The k for which edge k² + (2 features + 1) k + features is nearest to the plain block's parameters."""
        excess, slope = plain_parameters(features, hidden) - features, 2 * features + 1
        return max(1, round((math.sqrt(slope**2 + 4 * edge * excess) - slope) / (2 * edge)))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.middle(self.down(x)))
