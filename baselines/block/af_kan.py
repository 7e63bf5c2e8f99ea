from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.block.common import matched_width
from suite import IntUniform, Paper, block
from suite.train.roles import mark, mark_residual

AF_KAN = Paper(
    "AF-KAN: Activation Function-Based Kolmogorov-Arnold Networks for Efficient Representation Learning",
    arxiv="2503.06112",
    year=2025,
)
SPACE = {"grid": IntUniform(2, 10), "order": IntUniform(2, 4)}


class Phases(nn.Module):
    """Learned ends s_i and e_i of grid + order overlapping intervals, from s_i = i/grid, e_i = s_i + (order + 1)/grid.

    Parameters
    ----------
    grid, order : i runs from -order to grid - 1.
    features : channels with ends of their own, or None where all share them.
    """

    def __init__(self, grid: int, order: int, features: int | None = None) -> None:
        super().__init__()
        low = torch.arange(-order, grid) / grid
        shape = (*(() if features is None else (features,)), grid + order)
        self.low = nn.Parameter(low.expand(shape).clone())
        self.high = nn.Parameter((low + (order + 1) / grid).expand(shape).clone())
        mark(self, "other")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x - s and e - x, (..., features, grid + order)."""
        return x[..., None] - self.low, self.high - x[..., None]


class ReLUKANLayer(nn.Module):
    """A linear map of the bumps [ReLU(e_i - x) ReLU(x - s_i) 4 grid²/(order + 1)²]² of every channel.

    Parameters
    ----------
    inputs, outputs : channels.
    grid, order : of the bumps, whose peak is 1.
    """

    def __init__(self, inputs: int, outputs: int, *, grid: int, order: int) -> None:
        super().__init__()
        self.peak = 4 * grid**2 / (order + 1) ** 2
        self.phases = Phases(grid, order, inputs)
        self.linear = nn.Linear(inputs * (grid + order), outputs)

    def forward(self, x: Tensor) -> Tensor:
        above, below = self.phases(x.sigmoid())
        bumps = (self.peak * F.relu(above) * F.relu(below)).square()
        return self.linear(bumps.flatten(-2))


class AFKANLayer(nn.Module):
    """Bumps of every channel, averaged by an attention over channels, then norm, silu and a linear map.

    z = (silu(x - s_i) silu(e_i - x))², scaled to [0, 1] over the position's channels
    and bumps; w = softmax over channels of (a·z)/max(T, 1), T starting at √inputs;
    y = W silu(LayerNorm(Σ_i z w)).

    Parameters
    ----------
    inputs, outputs : channels.
    grid, order : of the bumps.
    """

    def __init__(self, inputs: int, outputs: int, *, grid: int, order: int) -> None:
        super().__init__()
        self.phases = Phases(grid, order)
        self.attention = nn.Linear(grid + order, 1, bias=False)
        self.temperature = nn.Parameter(torch.tensor(math.sqrt(inputs)))
        self.norm = nn.LayerNorm(inputs)
        self.linear = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        above, below = self.phases(x)
        z = (F.silu(above) * F.silu(below)).square()
        low, high = z.amin((-2, -1))[..., None], z.amax((-2, -1))[..., None]
        maps = torch.cat([torch.ones_like(self.attention.weight), self.attention.weight])
        total, score = (F.linear(z, maps) / (high - low)[..., None]).unbind(-1)
        weight = (score / self.temperature.clamp(min=1)).softmax(-1)
        return self.linear(F.silu(self.norm(weight * (total - z.shape[-1] * low / (high - low)))))


class _TwoLayers(nn.Module):
    """Block of two layers with nothing in between.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for.
    activation : not used.
    grid, order : of the bumps.
    matched : take as many inner channels as give the plain block's parameters, else `hidden`.
    """

    layer: type[nn.Module]

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module] | None = None,
        grid: int = 5,
        order: int = 3,
        matched: bool = True,
    ) -> None:
        super().__init__()
        if matched:
            each, fixed = self.costs(features, grid + order)
            hidden = matched_width(features, hidden, each=each, fixed=fixed)
        self.up = self.layer(features, hidden, grid=grid, order=order)
        self.down = self.layer(hidden, features, grid=grid, order=order)
        mark_residual(self.down.linear)  # type: ignore[arg-type]

    @staticmethod
    def costs(features: int, bumps: int) -> tuple[int, int]:
        """Parameters that a unit of width adds, and those whatever the width."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x))


@block(
    "relu-kan",
    paper=Paper("ReLU-KAN: New Kolmogorov-Arnold Networks that Only Need Matrix Addition, Dot Multiplication, and ReLU",
                arxiv="2406.02075", year=2024),
    system="af-kan",
    defaults={"grid": 5, "order": 3, "matched": True},
    space=SPACE,
    families=("vision", "pde"),
    confidence="partly",
)  # fmt: skip
class ReLUKAN(_TwoLayers):
    """Two layers of Σ w [ReLU(e - x) ReLU(x - s) r]² with learned s and e, at the plain block's parameters.

    The bumps cover [0, 1]; each layer takes the sigmoid of its inputs, where the
    source leaves it to the data to lie there.
    """

    layer = ReLUKANLayer

    @staticmethod
    def costs(features: int, bumps: int) -> tuple[int, int]:
        return 2 * features * bumps + 2 * bumps + 1, features + 2 * features * bumps


@block(
    "af-kan",
    paper=AF_KAN,
    defaults={"grid": 5, "order": 3, "matched": True},
    space=SPACE,
    families=("vision", "pde"),
    confidence="partly",
)
class AFKAN(_TwoLayers):
    """Two AF-KAN layers of (silu(x - s) silu(e - x))² with attention over channels, at the plain block's parameters.

    The source scales the bumps to [0, 1] over the whole batch; here every position
    is scaled by itself, so that a prediction does not depend on its neighbours. Its
    division by the L2 norm cancels in that scaling, and the attention's bias in the
    softmax: both are left out.
    """

    layer = AFKANLayer

    @staticmethod
    def costs(features: int, bumps: int) -> tuple[int, int]:
        return 2 * features + 2, 2 * features + 2 * (3 * bumps + 1)
