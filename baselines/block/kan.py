from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.block.common import matched_width
from suite import IntUniform, LogUniform, Paper, block
from suite.train.jets import concatenate, through
from suite.train.roles import mark, mark_residual

KAN = Paper("KAN: Kolmogorov-Arnold Networks", arxiv="2404.19756", year=2024)
SPACE = {"grid": IntUniform(3, 10), "extent": LogUniform(0.5, 4.0)}
FAMILIES = ("vision", "language", "pde")


def cardinal_spline(x: Tensor, order: int) -> Tensor:
    """The B-spline of `order` ≥ 1 on the knots -(order + 1)/2, ..., (order + 1)/2 of spacing 1, elementwise.

    Σ_j (-1)^j C(order + 1, j) max((order + 1)/2 - j - |x|, 0)^order / order!
    (Schoenberg, 1946), summed from the nearer end, where the terms are few and small.
    """
    away, half = torch.where(x < 0, -x, x), (order + 1) / 2
    terms = [
        (-1) ** j * math.comb(order + 1, j) / math.factorial(order) * F.relu(half - j - away) ** order
        for j in range(math.ceil(half))
    ]
    return sum(terms[1:], terms[0])


def spline_basis(x: Tensor, grid: int, order: int, extent: float) -> Tensor:
    """The B-splines of `order` on `grid` equal intervals of [-extent, extent].

    Parameters
    ----------
    x : (..., columns), points or a jet; the grid goes on by `order` intervals at either
        end, and beyond them every spline is 0.

    Returns
    -------
    (..., (grid + order)·columns): all columns of the spline with the leftmost support first.
    """
    place, last = x * (grid / (2 * extent)), (grid + order - 1) / 2
    shifted = concatenate([place + (last - m) for m in range(grid + order)])
    return through(partial(cardinal_spline, order=order), shifted)


def noisy_coefficients(outputs: int, inputs: int, grid: int, order: int, scale: float) -> Tensor:
    """Coefficients (outputs, inputs, grid + order) of splines through noise U(-1/2, 1/2)·scale/grid at the knots.

    They are the least-squares fit of smallest norm.
    """
    knots = torch.linspace(-1, 1, grid + 1, dtype=torch.float64)
    noise = (torch.rand(grid + 1, outputs * inputs, dtype=torch.float64) - 0.5) * scale / grid
    fit = torch.linalg.pinv(spline_basis(knots[:, None], grid, order, 1.0)) @ noise
    return fit.T.reshape(outputs, inputs, grid + order)


class KANLayer(nn.Module):
    """y_j = Σ_i w_b,ji silu(x_i) + w_s,ji Σ_m c_jim B_m(x_i), a learned function on every edge.

    B_m are the B-splines of `spline_basis` on a grid that stays where it is.

    Parameters
    ----------
    inputs, outputs : channels.
    grid, order, extent : of the splines.
    """

    def __init__(self, inputs: int, outputs: int, *, grid: int, order: int, extent: float) -> None:
        super().__init__()
        self.grid, self.order, self.extent = grid, order, extent
        self.base = nn.Parameter(torch.empty(outputs, inputs))
        self.scale = nn.Parameter(torch.empty(outputs, inputs))
        self.coefficients = nn.Parameter(torch.empty(outputs, inputs, grid + order))
        mark(self, "other")

    def forward(self, x: Tensor) -> Tensor:
        basis = spline_basis(x, self.grid, self.order, self.extent)
        weight = (self.scale[..., None] * self.coefficients).transpose(1, 2).flatten(1)
        return F.linear(through(F.silu, x), self.base) + F.linear(basis, weight)


class _KANFeedForward(nn.Module):
    """Block of two Kolmogorov-Arnold layers with nothing in between.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for.
    activation : not used; every edge has its own function.
    grid, order, extent : intervals, order and half width of the splines' grid.
    matched : take as many inner channels as give the plain block's parameters, else `hidden`.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module] | None = None,
        grid: int = 5,
        order: int = 3,
        extent: float = 1.0,
        matched: bool = True,
    ) -> None:
        super().__init__()
        if matched:
            hidden = matched_width(features, hidden, each=2 * features * (grid + order + 2))
        self.up = KANLayer(features, hidden, grid=grid, order=order, extent=extent)
        self.down = KANLayer(hidden, features, grid=grid, order=order, extent=extent)
        mark_residual(self.down)
        with torch.no_grad():
            self.start(self.up)
            self.start(self.down)

    def start(self, layer: KANLayer) -> None:
        """Set a layer's initial values."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x))


@block(
    "kan-paper",
    paper=KAN,
    system="kan",
    defaults={"grid": 5, "order": 3, "extent": 1.0, "matched": True},
    space=SPACE,
    families=FAMILIES,
)
class PaperKAN(_KANFeedForward):
    """Two Kolmogorov-Arnold layers of silu and B-splines, started as in the paper, at the plain block's parameters.

    w_s = 1, c ~ N(0, 0.1²), w_b by Xavier's normal rule. The grid is not refitted
    to the data.
    """

    def start(self, layer: KANLayer) -> None:
        nn.init.xavier_normal_(layer.base)
        nn.init.ones_(layer.scale)
        nn.init.normal_(layer.coefficients, std=0.1)


@block(
    "kan-pykan",
    paper=KAN,
    system="kan",
    defaults={"grid": 3, "order": 3, "extent": 1.0, "matched": True},
    space=SPACE,
    families=FAMILIES,
    confidence="verified",
)
class PyKAN(_KANFeedForward):
    """Two Kolmogorov-Arnold layers of silu and B-splines, started as pykan does, at the plain block's parameters.

    For n inputs w_s = 1/√n and w_b ~ U(-1, 1)/√n; the splines fit noise
    U(-1/2, 1/2)·0.3/grid at the knots. The grid is not refitted to the data, and
    the penalty on the functions, 0 by default, is left out.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module] | None = None,
        grid: int = 3,
        order: int = 3,
        extent: float = 1.0,
        matched: bool = True,
    ) -> None:
        super().__init__(features, hidden, activation, grid, order, extent, matched)

    def start(self, layer: KANLayer) -> None:
        outputs, inputs = layer.base.shape
        nn.init.uniform_(layer.base, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))
        nn.init.constant_(layer.scale, 1 / math.sqrt(inputs))
        layer.coefficients.copy_(noisy_coefficients(outputs, inputs, layer.grid, layer.order, 0.3))


@block(
    "kan-efficient",
    paper=KAN,
    system="kan",
    defaults={"grid": 5, "order": 3, "extent": 1.0, "matched": True},
    space=SPACE,
    families=FAMILIES,
    confidence="verified",
)
class EfficientKAN(_KANFeedForward):
    """Two Kolmogorov-Arnold layers of silu and B-splines, started as efficient-kan, at the plain block's parameters.

    w_b and w_s ~ U(±1/√n) for n inputs; the splines fit noise U(-1/2, 1/2)·0.1/grid
    at the knots. The grid is not refitted to the data.
    """

    def start(self, layer: KANLayer) -> None:
        outputs, inputs = layer.base.shape
        nn.init.kaiming_uniform_(layer.base, a=math.sqrt(5))
        nn.init.kaiming_uniform_(layer.scale, a=math.sqrt(5))
        layer.coefficients.copy_(noisy_coefficients(outputs, inputs, layer.grid, layer.order, 0.1))
