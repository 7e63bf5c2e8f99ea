from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.attention.recurrence import linear_recurrence
from suite import Paper, attention
from suite.train.roles import mark, mark_residual

PAPER = Paper("Hierarchically Gated Recurrent Neural Network for Sequence Modeling", arxiv="2311.04823", year=2023)
CAUSAL = ("language", "rlvr")


class Bounds(nn.Module):
    """Lower bounds of the forget gates of a model's layers, learnt together: 0 in the first, then growing.

    Parameters
    ----------
    layers, features : numbers of layers and of channels.
    """

    def __init__(self, layers: int, features: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers, features))
        mark(self, "other")

    def forward(self, layer: int) -> Tensor:
        """Sum over the layers before `layer` of the softmax over layers, (features,)."""
        return self.logits.softmax(0)[:layer].sum(0)


class GatedRecurrence(nn.Module):
    """What both forms share: projections, bounded forget gates and the output.

    Parameters
    ----------
    features : channels.
    heads : divides `features`; the recurrence mixes no channels, so that it changes nothing.
    causal : must be True.
    parts : inputs of the recurrence per channel, 2 for complex numbers.
    bias : biases of both projections.
    norm : normalises what the recurrence gives.

    Raises
    ------
    ValueError : `causal` is False, or `heads` does not divide `features`.
    """

    def __init__(self, features: int, heads: int, causal: bool, *, parts: int, bias: bool, norm: nn.Module) -> None:
        super().__init__()
        if not causal:
            raise ValueError(f"{type(self).__name__} is a recurrence over time: it has no non-causal form")
        if features % heads:
            raise ValueError(f"{heads} heads do not divide {features} features")
        self.parts = parts
        self.inputs = nn.Linear(features, (2 * parts + 1) * features, bias=bias)
        self.scale = mark(norm, "norm")
        self.out = mark_residual(nn.Linear(parts * features, features, bias=bias))
        self.stack: tuple[nn.Module, int] | None = None

    def place(self, index: int, stack: Sequence[nn.Module]) -> None:
        """Share the bounds, which the stack's first layer holds."""
        if index == 0:
            self.bounds = Bounds(len(stack), self.out.out_features)  # type: ignore[arg-type]
        self.stack = (stack[0], index)  # in a tuple, so that the first layer does not become a submodule

    def forget(self, gate: Tensor) -> Tensor:
        """λ = γ + (1 - γ)·σ(gate), γ the layer's lower bound: 0 in a layer that stands alone."""
        share = torch.sigmoid(gate)
        if self.stack is None:
            return share
        first, index = self.stack
        bound = first.bounds(index).to(gate)  # type: ignore[operator]
        return bound + (1 - bound) * share

    def scan(self, keep: Tensor, inputs: Tensor) -> Tensor:
        """States (time, batch, parts·features) from gates (time, batch, features) and inputs in [0, 1] parts."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        width = self.parts * x.shape[-1]
        inputs, gate, out_gate = self.inputs(x.transpose(0, 1)).split([width, x.shape[-1], width], dim=-1)
        kind = torch.promote_types(x.dtype, torch.float32)
        states = self.scan(self.forget(gate.to(kind)), F.silu(inputs).to(kind)).to(x.dtype)
        return self.out(self.scale(states) * F.silu(out_gate)).transpose(0, 1)


@attention("hgrn", paper=PAPER, families=CAUSAL, confidence="verified", vmap=False)
class HGRN(GatedRecurrence):
    """h_t = λ_t e^{iθ} h_{t-1} + (1 - λ_t) c_t; out W_o(LN[Re h, Im h] ⊙ SiLU(W_g x)), λ bounded below by layer.

    c = SiLU(W x), complex; λ = γ + (1 - γ)·σ(W_λ x) with the bounds γ of `Bounds`; a
    learnt angle θ_j, 10000^(-2j/d) at the start, per channel.
    """

    def __init__(self, features: int, heads: int, causal: bool) -> None:
        super().__init__(features, heads, causal, parts=2, bias=True, norm=nn.LayerNorm(2 * features))
        self.theta = nn.Parameter(10000.0 ** (-2 / features * torch.arange(features)))

    def scan(self, keep: Tensor, inputs: Tensor) -> Tensor:
        real, imaginary = inputs.chunk(2, dim=-1)
        turned = torch.polar(keep, self.theta.to(keep).expand_as(keep))
        states = linear_recurrence(turned, torch.complex((1 - keep) * real, (1 - keep) * imaginary))
        return torch.cat([states.real, states.imag], dim=-1)


@attention("hgrn-real", paper=PAPER, families=CAUSAL, system="hgrn", confidence="verified", vmap=False)
class RealHGRN(GatedRecurrence):
    """h_t = λ_t h_{t-1} + (1 - λ_t) SiLU(W x); out W_o(RMSNorm(h) ⊙ SiLU(W_g x)): `hgrn` without angles and biases."""

    def __init__(self, features: int, heads: int, causal: bool) -> None:
        super().__init__(features, heads, causal, parts=1, bias=False, norm=nn.RMSNorm(features, eps=1e-5))

    def scan(self, keep: Tensor, inputs: Tensor) -> Tensor:
        return linear_recurrence(keep, (1 - keep) * inputs)
