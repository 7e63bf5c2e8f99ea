from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from baselines.block.common import matched_width
from suite import Choice, Paper, block
from suite.train.roles import mark_residual

DEEP_SETS = Paper("Deep Sets", arxiv="1703.06114", year=2017)


def pooled(x: Tensor, pool: str) -> Tensor:
    """The mean or the largest value over the set (dim -2), kept as a set of one."""
    return x.mean(-2, keepdim=True) if pool == "mean" else x.amax(-2, keepdim=True)


class PermEqui1(nn.Module):
    """y_i = Γ (x_i - pool_j x_j), Γ affine, for the set along dim -2.

    Parameters
    ----------
    inputs, outputs : channels.
    pool : "max" or "mean".
    """

    def __init__(self, inputs: int, outputs: int, pool: str) -> None:
        super().__init__()
        self.pool = pool
        self.gamma = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma(x - pooled(x, self.pool))


class PermEqui2(PermEqui1):
    """y_i = Γ x_i - Λ pool_j x_j, Γ affine and Λ linear, for the set along dim -2.

    Parameters
    ----------
    inputs, outputs : channels.
    pool : "max" or "mean".
    """

    def __init__(self, inputs: int, outputs: int, pool: str) -> None:
        super().__init__(inputs, outputs, pool)
        self.lam = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma(x) - self.lam(pooled(x, self.pool))


class _SetFeedForward(nn.Module):
    """Feed-forward block of two permutation-equivariant layers around the recipe's activation.

    Parameters
    ----------
    features : channels in and out, the last dim; the dim before it is the set.
    hidden : hidden channels of the plain block it stands for.
    activation : makes the activation for a number of channels.
    pool : "max" or "mean" over the set.
    matched : scale `hidden` so that the parameters equal the plain block's.
    """

    layer: type[PermEqui1] = PermEqui2
    matrices = 2

    def __init__(
        self, features: int, hidden: int, activation: Callable[[int], nn.Module], pool: str, matched: bool = True
    ) -> None:
        super().__init__()
        if matched:
            hidden = matched_width(features, hidden, each=2 * self.matrices * features + 1, fixed=features)
        self.up = self.layer(features, hidden, pool)
        self.activation = activation(hidden)
        width = int(hidden * getattr(self.activation, "width_factor", 1))
        self.down = self.layer(width, features, pool)
        mark_residual(self.down.gamma)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


@block(
    "permequi1",
    paper=DEEP_SETS,
    system="deep-sets",
    defaults={"pool": "max", "matched": True},
    space={"pool": Choice("max", "mean")},
    families=("vision",),
    confidence="verified",
)
class PermEqui1FeedForward(_SetFeedForward):
    """Feed-forward block of two layers y_i = Γ (x_i - pool_j x_j) over the image's patches, at equal parameters."""

    layer = PermEqui1
    matrices = 1

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module],
        pool: str = "max",
        matched: bool = True,
    ) -> None:
        super().__init__(features, hidden, activation, pool, matched)


@block(
    "permequi2-max",
    paper=DEEP_SETS,
    system="deep-sets",
    defaults={"matched": True},
    families=("vision",),
    confidence="verified",
)
class PermEqui2MaxFeedForward(_SetFeedForward):
    """Feed-forward block of two layers y_i = Γ x_i - Λ max_j x_j over the image's patches, at equal parameters."""

    def __init__(
        self, features: int, hidden: int, activation: Callable[[int], nn.Module], matched: bool = True
    ) -> None:
        super().__init__(features, hidden, activation, "max", matched)


@block(
    "permequi2-mean",
    paper=DEEP_SETS,
    system="deep-sets",
    defaults={"matched": True},
    families=("vision",),
    confidence="verified",
)
class PermEqui2MeanFeedForward(_SetFeedForward):
    """Feed-forward block of two layers y_i = Γ x_i - Λ mean_j x_j over the image's patches, at equal parameters."""

    def __init__(
        self, features: int, hidden: int, activation: Callable[[int], nn.Module], matched: bool = True
    ) -> None:
        super().__init__(features, hidden, activation, "mean", matched)
