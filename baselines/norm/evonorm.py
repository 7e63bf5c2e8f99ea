from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from baselines.norm.common import Affine, per_channel, rows
from suite import Choice, Paper, norm

EVONORM = Paper("Evolving Normalization-Activation Layers", arxiv="2004.02967", year=2020)
BATCH = {"eps": 1e-5, "momentum": 0.1}
GROUP = {"groups": 8, "eps": 1e-5}
GROUPS = {"groups": Choice(1, 2, 4, 8, 16, 32)}


class EvoNorm(Affine):
    """A normalisation that is its own nonlinearity: gain·x·gate(x)/scale(x) + bias.

    It stands for the norm and the activation after it: as in the paper, pair it
    with the activation ``identity``. In (..., C) inputs every row is an example.

    Parameters
    ----------
    features : channels C.
    eps : added to every variance and mean square.
    slope : whether a slope v (1 at the start) per channel is learnt.
    """

    def __init__(self, features: int, eps: float, slope: bool = False) -> None:
        super().__init__(features)
        self.eps = eps
        self.v = nn.Parameter(torch.ones(features)) if slope else None

    def gate(self, x: Tensor) -> Tensor:
        """Factor of x in the numerator, (n, C, ...)."""
        return torch.ones_like(x)

    def scale(self, x: Tensor) -> Tensor:
        """Denominator, broadcastable to x (n, C, ...)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.affine(rows(lambda r: r * self.gate(r) / self.scale(r), x))

    def slope(self, x: Tensor) -> Tensor:
        """v⊙x."""
        assert self.v is not None
        return per_channel(self.v, x) * x

    def place_std(self, x: Tensor) -> Tensor:
        """√(Var_{H,W}(x) + eps) of every example and channel."""
        var = x.var((2, 3), unbiased=False, keepdim=True) if x.ndim == 4 else torch.zeros_like(x)
        return (var + self.eps).sqrt()

    def place_rms(self, x: Tensor) -> Tensor:
        """√(mean_{H,W}(x²) + eps) of every example and channel."""
        square = x.square()
        return ((square.mean((2, 3), keepdim=True) if x.ndim == 4 else square) + self.eps).sqrt()


class BatchEvoNorm(EvoNorm):
    """Divides by the larger of the batch deviation (a running one at test time) and `inner`."""

    running_var: Tensor

    def __init__(self, features: int, eps: float, momentum: float, slope: bool = False) -> None:
        super().__init__(features, eps, slope)
        self.momentum = momentum
        self.register_buffer("running_var", torch.ones(features))

    def inner(self, x: Tensor) -> Tensor:
        """The denominator's part that is computed from the example itself."""
        raise NotImplementedError

    def scale(self, x: Tensor) -> Tensor:
        var = self.running_var
        if self.training:
            dims = (0, 2, 3) if x.ndim == 4 else (0,)
            var = x.var(dims, unbiased=False)
            count = x.numel() / x.shape[1]
            with torch.no_grad():
                self.running_var.lerp_(var.detach() * (count / max(count - 1, 1)), self.momentum)
        return torch.maximum(per_channel((var + self.eps).sqrt(), x), self.inner(x))


class GroupEvoNorm(EvoNorm):
    """Gated by a sigmoid and divided by a statistic of the example's channel groups.

    The paper's 32 groups are for widths from 64 up. Where `groups` does not
    divide the width, their common divisor does.
    """

    def __init__(self, features: int, groups: int, eps: float, slope: bool = False) -> None:
        super().__init__(features, eps, slope)
        self.groups = math.gcd(groups, features)

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x if self.v is None else self.slope(x))

    def grouped(self, x: Tensor) -> Tensor:
        """(n, groups, values of the group)."""
        return x.reshape(len(x), self.groups, -1)

    def spread(self, values: Tensor, x: Tensor) -> Tensor:
        """(n, groups) values, one a channel, broadcastable to x."""
        per = values.repeat_interleave(x.shape[1] // self.groups, dim=1)
        return per.view(len(x), -1, *[1] * (x.ndim - 2))

    def scale(self, x: Tensor) -> Tensor:
        return self.spread((self.grouped(x).var(-1, unbiased=False) + self.eps).sqrt(), x)


@norm(
    "evonorm-b0",
    paper=EVONORM,
    defaults={"eps": 1e-3, "momentum": 0.1},
    families=("vision",),
    system="evonorm",
    confidence="verified",
)
class EvoNormB0(BatchEvoNorm):
    """x / max(√(Var_batch + eps), v⊙x + √(Var_{H,W} + eps)); pair it with the activation `identity`."""

    def __init__(self, features: int, eps: float = 1e-3, momentum: float = 0.1) -> None:
        super().__init__(features, eps, momentum, slope=True)

    def inner(self, x: Tensor) -> Tensor:
        return self.slope(x) + self.place_std(x)


@norm("evonorm-b1", paper=EVONORM, defaults=BATCH, families=("vision",), system="evonorm", confidence="verified")
class EvoNormB1(BatchEvoNorm):
    """x / max(√(Var_batch + eps), (x + 1)·√(mean_{H,W}(x²) + eps)); pair it with the activation `identity`."""

    def inner(self, x: Tensor) -> Tensor:
        return (x + 1) * self.place_rms(x)


@norm("evonorm-b2", paper=EVONORM, defaults=BATCH, families=("vision",), system="evonorm", confidence="verified")
class EvoNormB2(BatchEvoNorm):
    """x / max(√(Var_batch + eps), √(mean_{H,W}(x²) + eps) - x); pair it with the activation `identity`."""

    def inner(self, x: Tensor) -> Tensor:
        return self.place_rms(x) - x


@norm(
    "evonorm-s0",
    paper=EVONORM,
    defaults=GROUP,
    space=GROUPS,
    families=("vision",),
    system="evonorm",
    confidence="verified",
)
class EvoNormS0(GroupEvoNorm):
    """x·σ(v⊙x) / √(Var_group + eps); pair it with the activation `identity`."""

    def __init__(self, features: int, groups: int = 8, eps: float = 1e-5) -> None:
        super().__init__(features, groups, eps, slope=True)


@norm(
    "evonorm-s1",
    paper=EVONORM,
    defaults=GROUP,
    space=GROUPS,
    families=("vision",),
    system="evonorm",
    confidence="verified",
)
class EvoNormS1(GroupEvoNorm):
    """x·σ(x) / √(Var_group + eps); pair it with the activation `identity`."""


@norm(
    "evonorm-s2",
    paper=EVONORM,
    defaults=GROUP,
    space=GROUPS,
    families=("vision",),
    system="evonorm",
    confidence="verified",
)
class EvoNormS2(GroupEvoNorm):
    """x·σ(x) / √(mean_group(x²) + eps); pair it with the activation `identity`."""

    def scale(self, x: Tensor) -> Tensor:
        return self.spread((self.grouped(x).square().mean(-1) + self.eps).sqrt(), x)
