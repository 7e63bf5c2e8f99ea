from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.attention.common import Mixer, visible
from suite import IntUniform, Paper, attention
from suite.train.roles import mark

SURVEY = Paper(
    "Fast weight programming and linear transformers: from machine learning to neurobiology",
    arxiv="2508.08435",
    year=2025,
)
LINEAR_DELTA = Paper("Linear Transformers Are Secretly Fast Weight Programmers", arxiv="2102.11174", year=2021)
NEGATIVE = Paper("Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues", arxiv="2411.12537", year=2024)
GATED = Paper("Gated Delta Networks: Improving Mamba2 with Delta Rule", arxiv="2412.06464", year=2024)
CAUSAL = ("language", "rlvr")


def decay_matrix(log_decay: Tensor) -> Tensor:
    """(..., t, s) products of the decays after s up to t, 0 for s > t, of (..., time) logarithms."""
    total = log_decay.cumsum(-1)
    past = visible(log_decay.shape[-1], log_decay.device)
    return torch.exp((total[..., :, None] - total[..., None, :]).masked_fill(~past, -torch.inf))


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor) -> Tensor:
    """Reads y_t = S_t q_t of the state S_t = a_t S_{t-1}(I - β_t k_t k_tᵀ) + β_t v_t k_tᵀ, S_0 = 0.

    S_t is a sum of u_s k_sᵀ, decayed, whose writes solve the triangular system
    u_t = β_t (v_t - Σ_{s<t} decay_ts (k_s·k_t) u_s): all steps at once.

    Parameters
    ----------
    q, k : (..., time, key width).
    v : (..., time, value width).
    beta : (..., time) writing strengths.
    decay : (..., time, time) products a_{s+1}···a_t, 0 for s > t.

    Returns
    -------
    (..., time, value width).
    """
    coupling = beta[..., None] * decay * (k @ k.mT)
    kind = torch.promote_types(v.dtype, torch.float32)
    writes = torch.linalg.solve_triangular(
        coupling.to(kind), (beta[..., None] * v).to(kind), upper=False, unitriangular=True
    )
    return (decay * (q @ k.mT)) @ writes.to(v.dtype)


def sum_normalised(x: Tensor) -> Tensor:
    """Non-negative features divided by their sum."""
    return x / (x.sum(-1, keepdim=True) + 1e-6)


def dpfp(x: Tensor, order: int) -> Tensor:
    """Deterministic parameter-free projection: products of (relu(x), relu(-x)) with its `order` first rotations."""
    parts = torch.cat([x, -x], -1).relu()
    return torch.cat([parts * parts.roll(i, -1) for i in range(1, order + 1)], -1)


class DeltaNet(Mixer):
    """Fast weights under the delta rule; causal by nature.

    Raises
    ------
    ValueError : `causal` is False.
    """

    def __init__(self, features: int, heads: int, causal: bool, *, gates: int = 1, **inner: nn.Module) -> None:
        super().__init__(features, heads, causal, gates=gates, **inner)
        if not causal:
            raise ValueError(f"{type(self).__name__} is a recurrence over time: it has no non-causal form")

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        decay = visible(q.shape[-2], q.device).to(q.dtype)
        return delta_rule(self.features_of(q), self.features_of(k), v, torch.sigmoid(gates[0]), decay)

    def features_of(self, x: Tensor) -> Tensor:
        """Feature map of queries and keys."""
        raise NotImplementedError


@attention("deltanet", paper=LINEAR_DELTA, families=CAUSAL, system="fast-weights", confidence="verified")
class EluDeltaNet(DeltaNet):
    """y = S q, S += β(v - S k)kᵀ with q, k through elu + 1 divided by its sum and β = σ(w·x) a head."""

    def features_of(self, x: Tensor) -> Tensor:
        return sum_normalised(F.elu(x) + 1)


@attention(
    "deltanet-dpfp",
    paper=LINEAR_DELTA,
    defaults={"order": 2},
    space={"order": IntUniform(1, 4)},
    families=CAUSAL,
    system="fast-weights",
    confidence="verified",
)
class DpfpDeltaNet(DeltaNet):
    """The delta rule on DPFP-ν features divided by their sum, ν = 2; reads are multiplied by 1/√d."""

    def __init__(self, features: int, heads: int, causal: bool, *, order: int = 2) -> None:
        super().__init__(features, heads, causal)
        self.order = order

    def features_of(self, x: Tensor) -> Tensor:
        return sum_normalised(dpfp(x, self.order))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        return super().mix(q, k, v, gates) / math.sqrt(v.shape[-1])


class ShortConv(nn.Module):
    """Causal depthwise convolution over the last `size` tokens, then SiLU: (batch, time, channels) -> the same."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv1d(channels, channels, size, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(F.pad(x.mT, (self.size - 1, 0)))).mT


def read_norm(width: int) -> nn.Module:
    """Normalises what a head reads to unit mean square."""
    return mark(nn.RMSNorm(width, eps=1e-6), "norm")


class ModernDeltaNet(DeltaNet):
    """Short convolutions and SiLU on q, k and v, unit-length q and k, reads normalised by their root mean square.

    Parameters
    ----------
    conv : tokens the short convolutions see.
    top : largest writing strength β = top·σ(w·x).
    """

    def __init__(
        self, features: int, heads: int, causal: bool, *, conv: int = 4, top: float = 1.0, gates: int = 1
    ) -> None:
        inner = {"conv": ShortConv(3 * features, conv), "scale": read_norm(features // heads)}
        super().__init__(features, heads, causal, gates=gates, **inner)
        self.top = top

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        b, t, c = x.shape
        parts = self.qkv(x)
        heads = self.conv(parts[..., : 3 * c]).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        gates = parts[..., 3 * c :].view(b, t, self.gates, self.heads).permute(2, 0, 3, 1)
        q, k, v = heads.unbind(0)
        return q, k, v, gates

    def decay(self, gates: Tensor) -> Tensor:
        """Decay matrix (batch, heads, time, time) or one that broadcasts to it."""
        return visible(gates.shape[-1], gates.device).to(gates.dtype)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return self.scale(delta_rule(q, k, v, self.top * torch.sigmoid(gates[0]), self.decay(gates)))


@attention(
    "deltanet-l2",
    paper=SURVEY,
    defaults={"conv": 4, "top": 1.0},
    families=CAUSAL,
    system="fast-weights",
)
@attention(
    "deltanet-neg",
    paper=NEGATIVE,
    defaults={"conv": 4, "top": 2.0},
    families=CAUSAL,
    system="neg-eig-rnn",
    confidence="verified",
)
class UnitDeltaNet(ModernDeltaNet):
    """The delta rule with unit-length SiLU keys; β = 2σ(w·x) lets its eigenvalues 1 - β be negative."""


class Decay(nn.Module):
    """log a_t = -A·softplus(g_t + b) for each head.

    At the start A runs from 1 to 16 and softplus(b), in log space, from 0.001 to 0.1
    over the heads: the quantiles of the usual random start.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.linspace(1.0, 16.0, heads).log())
        step = torch.logspace(-3.0, -1.0, heads)
        self.step_bias = nn.Parameter(step.expm1().log())
        mark(self, "other")

    def forward(self, gates: Tensor) -> Tensor:
        """(batch, heads, time) logarithms of the decays."""
        return -self.log_rate.exp()[:, None] * F.softplus(gates + self.step_bias[:, None])


@attention(
    "gated-deltanet",
    paper=GATED,
    defaults={"conv": 4},
    families=CAUSAL,
    system="fast-weights",
    confidence="partly",
)
class GatedDeltaNet(ModernDeltaNet):
    """S_t = a_t S_{t-1}(I - β_t k kᵀ) + β_t v kᵀ: the delta rule with a decay a_t of its state per head."""

    def __init__(self, features: int, heads: int, causal: bool, *, conv: int = 4) -> None:
        super().__init__(features, heads, causal, conv=conv, gates=2)
        self.forget = Decay(heads)

    def decay(self, gates: Tensor) -> Tensor:
        return decay_matrix(self.forget(gates[1]))


@attention("gated-linear", paper=SURVEY, families=CAUSAL, system="fast-weights", confidence="partly")
class GatedLinearAttention(Mixer):
    """S_t = a_t S_{t-1} + v kᵀ with a decay a_t per head and token; reads S_t q/√d, normalised to unit mean square."""

    def __init__(self, features: int, heads: int, causal: bool) -> None:
        super().__init__(features, heads, causal, gates=1, forget=Decay(heads), scale=read_norm(features // heads))
        if not causal:
            raise ValueError("gated-linear is a recurrence over time: it has no non-causal form")

    def mix(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        decay = decay_matrix(self.forget(gates[0]))
        return self.scale((decay * (q @ k.mT)) @ v / math.sqrt(q.shape[-1]))
