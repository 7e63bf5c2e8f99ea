from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from suite import IntUniform, LogUniform, Paper, Tier, pde_method
from suite.train.build import Build
from suite.train.derivatives import Field
from suite.train.pinn import PdeMethod, Problem, magnitude
from suite.train.roles import mark

PAPER = Paper("Solving High Frequency and Multi-Scale PDEs with Gaussian Processes", arxiv="2311.04465", year=2024)
DEFAULTS = {"components": 30, "frequency": 20.0, "nodes": 400, "side": 40, "penalty": 200.0}
SPACE = {
    "components": IntUniform(10, 60),
    "frequency": LogUniform(1.0, 60.0),
    "penalty": LogUniform(10.0, 2000.0),
}
JITTER = 1e-6
PART = 2**22  # kernel terms evaluated at once
# Polynomials a + b·r + d·r² of the Matérn function's derivatives.
MATERN = ((1, 1, 1 / 3), (0, -1 / 3, -1 / 3), (-1 / 3, -1 / 3, 1 / 3), (0, 1, -1 / 3), (1, -5 / 3, 1 / 3))
Profile = Callable[[Tensor, Tensor, int], list[Tensor]]


def gaussian(scale: Tensor, lag: Tensor, order: int) -> list[Tensor]:
    """exp(-s·Δ²) and its derivatives in the lag Δ up to `order`."""
    found = [torch.exp(-scale * lag.square())]
    for n in range(order):
        earlier = n * found[n - 1] if n else 0.0
        found.append(-2 * scale * (lag * found[n] + earlier))
    return found


def matern(scale: Tensor, lag: Tensor, order: int) -> list[Tensor]:
    """Matérn-5/2, (1 + r + r²/3)·exp(-r) with r = √5·s·Δ, and its derivatives in the lag Δ ≥ 0 up to `order` ≤ 4."""
    c = math.sqrt(5.0) * scale
    r = c * lag
    decay = torch.exp(-r)
    return [c**n * (a + r * (b + r * d)) * decay for n, (a, b, d) in enumerate(MATERN[: order + 1])]


class MixtureKernel(nn.Module):
    """k(Δ) = Σ_q e^{a_q} κ(Δ; e^{ℓ_q}) cos(2π f_q Δ) along one axis, a, ℓ and f learnt.

    Parameters
    ----------
    profile : κ with its derivatives.
    components : number of terms.
    frequency : highest of the frequencies at the start, which are equidistant from 0.
    """

    def __init__(self, profile: Profile, components: int, frequency: float) -> None:
        super().__init__()
        self.profile = profile
        self.log_weight = nn.Parameter(torch.full((components,), -math.log(components), dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.zeros(components, dtype=torch.float64))
        self.frequency = nn.Parameter(frequency * torch.linspace(0, 1, components, dtype=torch.float64))

    def forward(self, lag: Tensor, order: int = 0) -> Tensor:
        """Derivative of `order` at lags of any shape and sign."""
        rows = max(1, PART // (len(self.log_weight) * max(1, lag[:1].numel())))
        return torch.cat([self.evaluated(part, order) for part in lag.split(rows)])

    def evaluated(self, lag: Tensor, order: int) -> Tensor:
        size = lag.abs()[..., None]
        angle = 2 * math.pi * self.frequency
        profile = self.profile(self.log_scale.exp(), size, order)
        waves = [angle**n * torch.cos(angle * size + n * math.pi / 2) for n in range(order + 1)]
        terms = [math.comb(order, n) * profile[n] * waves[order - n] for n in range(order + 1)]
        total = (self.log_weight.exp() * torch.stack(terms).sum(0)).sum(-1)
        return total if order % 2 == 0 else total * lag.sign()


class Axis(nn.Module):
    """Equidistant nodes along one axis, their kernel and its matrices.

    Parameters
    ----------
    low, high : the ends, both nodes.
    count : number of nodes.
    kernel : the axis' kernel.
    """

    nodes: Tensor
    offset: Tensor

    def __init__(self, low: float, high: float, count: int, kernel: MixtureKernel) -> None:
        super().__init__()
        self.kernel = kernel
        steps = torch.arange(count)
        self.register_buffer("nodes", torch.linspace(low, high, count, dtype=torch.float64), persistent=False)
        self.register_buffer("offset", steps[:, None] - steps[None, :], persistent=False)

    def matrix(self, order: int) -> Tensor:
        """(nodes, nodes) derivatives k^(order)(x_i - x_j): one row of lags, since the nodes are equidistant."""
        lags = self.kernel(self.nodes - self.nodes[0], order)[self.offset.abs()]
        return lags if order % 2 == 0 else lags * self.offset.sign()

    def cross(self, x: Tensor, order: int) -> Tensor:
        """(n, nodes) derivatives k^(order)(x - x_j) at coordinates (n,)."""
        if x.requires_grad:
            return self.kernel(x[:, None] - self.nodes, order)
        places, where = x.unique(return_inverse=True)
        return self.kernel(places[:, None] - self.nodes, order)[where]


class GridProcess(nn.Module):
    """Values of a Gaussian process on a grid, learnt, with a product kernel; its mean given them at any points.

    Parameters
    ----------
    axes : one for each coordinate, at most two.
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        super().__init__()
        self.axes = nn.ModuleList(axes)
        shape = [len(axis.nodes) for axis in axes]
        self.values = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        self.log_condition_precision = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.log_equation_precision = nn.Parameter(torch.zeros((), dtype=torch.float64))
        mark(self, "other")

    def forward(self, x: Any) -> Tensor:
        """Values (n, 1) at points (n, d)."""
        if not isinstance(x, Tensor):
            raise TypeError("values on a grid have no rule for jets")
        return Solved(self).at(x.double(), [0] * x.shape[1])[:, None].to(x.dtype)


class _Solve(torch.autograd.Function):
    """K⁻¹ B for a symmetric K given with its Cholesky factor."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, factor: Tensor, right: Tensor) -> Tensor:
        found = torch.cholesky_solve(right, factor)
        ctx.save_for_backward(factor, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        factor, found = ctx.saved_tensors
        solved = torch.cholesky_solve(gradient, factor)
        return -solved @ found.mT, None, solved


class _LogDet(torch.autograd.Function):
    """log det K for a symmetric K given with its Cholesky factor."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return 2 * factor.diagonal().log().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradient * torch.cholesky_inverse(factor), None


class Solved:
    """A grid process with its kernel matrices factorised at the current parameters.

    Where a matrix is not positive definite, everything is NaN.
    """

    def __init__(self, process: GridProcess) -> None:
        self.values = process.values
        self.axes: list[Axis] = list(process.axes)  # type: ignore[arg-type]
        self.kernels, self.factors = [], []
        for axis in self.axes:
            kernel = axis.matrix(0)
            jitter = JITTER * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
            factor, failed = torch.linalg.cholesky_ex((kernel + jitter).detach())
            self.kernels.append(kernel)
            self.factors.append(torch.where(failed > 0, math.nan, factor))

    def solve(self, values: Tensor, axis: int) -> Tensor:
        """K⁻¹ along an axis of values on the grid."""
        turned = values.movedim(axis, 0)
        found = _Solve.apply(self.kernels[axis], self.factors[axis], turned.reshape(len(turned), -1))
        return found.view(turned.shape).movedim(0, axis)

    @functools.cached_property
    def coefficients(self) -> Tensor:
        """K⁻¹ along every axis of the values."""
        found = self.values
        for axis in range(len(self.axes)):
            found = self.solve(found, axis)
        return found

    def derivative(self, orders: Sequence[int]) -> Tensor:
        """Derivatives of the mean on the grid, `orders` along each axis."""
        found = self.values
        for axis, order in enumerate(orders):
            if order:
                applied = torch.tensordot(self.axes[axis].matrix(order), self.solve(found, axis), ([1], [axis]))
                found = applied.movedim(0, axis)
        return found

    def at(self, x: Tensor, orders: Sequence[int]) -> Tensor:
        """The mean's derivatives (n,) at points (n, d) anywhere."""
        kernels = [axis.cross(x[:, i], orders[i]) for i, axis in enumerate(self.axes)]
        reach = kernels[0] @ self.coefficients
        return reach if len(kernels) == 1 else (reach * kernels[1]).sum(1)

    def log_prior(self) -> Tensor:
        """Logarithm of the values' prior density, without its constant."""
        count = self.values.numel()
        pairs = zip(self.kernels, self.factors, strict=True)
        log_det = sum(count / len(kernel) * _LogDet.apply(kernel, factor) for kernel, factor in pairs)
        return -0.5 * (log_det + (self.values * self.coefficients).sum())


class ProcessField(Field):
    """The process' mean and its derivatives on the grid, or at points.

    Parameters
    ----------
    solved : the process.
    points : (n, d), or None for the grid.
    """

    def __init__(self, solved: Solved, points: Tensor | None = None) -> None:
        self.solved, self.points = solved, points

    @property
    def value(self) -> Tensor:
        return self.d()

    def d(self, *axes: int) -> Tensor:
        orders = [axes.count(axis) for axis in range(len(self.solved.axes))]
        if self.points is None:
            return self.solved.derivative(orders).flatten()
        return self.solved.at(self.points, orders)

    def laplacian(self, axes: Sequence[int] | None = None) -> Tensor:
        chosen = range(len(self.solved.axes)) if axes is None else axes
        return torch.stack([self.d(axis, axis) for axis in chosen]).sum(0)


class GaussianProcessSolver(PdeMethod):
    """Gaussian process with a spectral-mixture kernel in place of the network, fitted on a grid of its own.

    The values on the grid, the kernels and two precisions minimise the negative logarithm of
    the joint density of values, conditions (times `penalty`) and equation at the nodes:
    -log N(u; 0, K) - penalty·(N_b/2·log τ - τ/2·Σ conditions²) - (N_c/2·log v - v/2·Σ residuals²).
    Derivatives at the nodes are K'K⁻¹u. It is a solver, in double precision, whose step costs
    nodes³: compare it by time. The frequencies must cover the solution's, which is knowledge
    of the problem. The recipe's points are not used; its sampler is shown the nearest nodes.

    Parameters
    ----------
    problem : an equation of one unknown function in one or two dimensions.
    components, frequency : terms of the kernel, and the highest frequency at the start (cycles a unit).
    nodes, side : nodes in one dimension, and along each axis in two.
    penalty : weight of the conditions.
    """

    profile: Profile

    def __init__(
        self, problem: Problem, *, components: int, frequency: float, nodes: int, side: int, penalty: float
    ) -> None:
        super().__init__(problem)
        domain = problem.domain
        problem.require(
            domain.dims <= 2 and problem.target.outputs == 1, "grid of one function in one or two dimensions"
        )
        self.counts = [nodes] if domain.dims == 1 else [side, side]
        self.components, self.frequency, self.penalty_weight = components, frequency, penalty
        grid = torch.as_tensor(domain.grid(*self.counts))
        self.register_buffer("grid", grid, persistent=False)

    def embed(self, x: Tensor) -> Tensor:
        return x

    def network(self, build: Build, tier: Tier) -> nn.Module:
        domain = self.problem.domain
        return GridProcess(
            [
                Axis(low, high, count, MixtureKernel(self.profile, self.components, self.frequency))
                for low, high, count in zip(domain.lows, domain.highs, self.counts, strict=True)
            ]
        )

    def loss(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> Tensor:
        process: GridProcess = network.core  # type: ignore[assignment]
        solved = Solved(process)
        residual = self.problem.residual((ProcessField(solved),), self.grid)
        self.pointwise = magnitude(residual)[self.nearest(points)].to(points.dtype)
        equation = log_likelihood(process.log_equation_precision, residual.square().sum(), len(residual))
        squares, count = self.condition_squares(solved)
        conditions = log_likelihood(process.log_condition_precision, squares, count)
        return -(solved.log_prior() + self.penalty_weight * conditions + equation)

    def condition_squares(self, solved: Solved) -> tuple[Tensor, int]:
        """Weighted sum of squares of all conditions, and their number."""
        total, count = self.grid.new_zeros(()), 0
        for stated in self.problem.conditions:
            gap = stated.residual(ProcessField(solved, stated.points.double()))
            total, count = total + stated.weight * gap.square().sum(), count + gap.numel()
        return total, count

    def nearest(self, points: Tensor) -> Tensor:
        """Index (n,) in the grid of the node nearest to each point."""
        index = torch.zeros(len(points), dtype=torch.long, device=points.device)
        for column, count in enumerate(self.counts):
            low, high = self.problem.domain.lows[column], self.problem.domain.highs[column]
            place = ((points[:, column] - low) / (high - low) * (count - 1)).round().long().clamp(0, count - 1)
            index = index * count + place
        return index


def log_likelihood(log_precision: Tensor, squares: Tensor, count: int) -> Tensor:
    """Logarithm of the density of `count` Gaussian values of mean 0 and summed squares `squares`, less its constant."""
    return 0.5 * (count * log_precision - log_precision.exp() * squares)


@pde_method(
    "gp-hm-stm",
    paper=PAPER,
    defaults=DEFAULTS,
    space=SPACE,
    families=("pde",),
    system="gp-hm",
    confidence="verified",
    vmap=False,
)
class StudentMixture(GaussianProcessSolver):
    """GP-HM with a Student-t mixture spectrum: terms are Matérn-5/2 in the lag times a cosine."""

    profile = staticmethod(matern)


@pde_method(
    "gp-hm-gm",
    paper=PAPER,
    defaults=DEFAULTS,
    space=SPACE,
    families=("pde",),
    system="gp-hm",
    confidence="verified",
    vmap=False,
)
class GaussianMixture(GaussianProcessSolver):
    """GP-HM with a Gaussian mixture spectrum: terms are exp(-s·Δ²) in the lag times a cosine."""

    profile = staticmethod(gaussian)
