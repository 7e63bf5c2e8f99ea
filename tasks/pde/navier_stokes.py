"""Steady incompressible flow: behind a grid (Kovasznay) and in a cavity with a moving lid."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from suite import Metric, Paper, Tier, cache, define_task
from suite.fingerprint import source_hash
from suite.train.derivatives import Engine, Field
from suite.train.jets import AxisJets
from suite.train.pinn import Condition, Domain, PdeTask, condition

X, Y = 0, 1
REYNOLDS = 20.0
DECAY = REYNOLDS / 2 - math.sqrt(REYNOLDS**2 / 4 + 4 * math.pi**2)
CAVITY_REYNOLDS = 100.0
SLOTS = (
    "activation", "block", "optimizer", "gradient", "schedule", "averaging", "init", "reparam", "regularizer",
    "sampler", "pde-method", "architecture",
)  # fmt: skip
METRIC = Metric("log10_l2re", "log10", "min", chance=0.0)
UNIT = "gradient evaluations"
LBFGS = {
    "activation": "tanh",
    "block": "ffn",
    "optimizer": ("adam-lbfgs", {"lr": 3e-3}),
    "schedule": ("linear", {"warmup": 0.0}),
    "init": "xavier",
    "sampler": "fixed-points",
    "pde-method": "pinn",
}
NET = {"width": 50, "blocks": 1, "boundary": 51}
WIDE = {"width": 256, "blocks": 2, "boundary": 129, "points": 8192}


class SteadyFlow(PdeTask):
    """(w . grad) w + grad p = Laplace(w) / Re with w = (u, v), and div w = 0."""

    functions = ("u", "v", "p")
    reynolds: float

    @property
    def jets(self) -> Engine:
        return AxisJets({X: 2, Y: 2})

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        u, v, p = fields
        momentum = [
            u.value * w.d(X) + v.value * w.d(Y) + p.d(axis) - (w.d(X, X) + w.d(Y, Y)) / self.reynolds
            for axis, w in ((X, u), (Y, v))
        ]
        return torch.stack([*momentum, u.d(X) + v.d(Y)], dim=1)


def velocity(points: Tensor, u: Field, v: Field, p: Field) -> Tensor:
    """Both components, (n, 2)."""
    return torch.stack([u.value, v.value], dim=1)


def pressure(points: Tensor, u: Field, v: Field, p: Field) -> Tensor:
    return p.value


@define_task(
    "kovasznay",
    title="Kovasznay flow",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=LBFGS,
    tiers={
        "smoke": Tier(250, evals=4, sizes={**NET, "points": 150}),
        "quick": Tier(1250, sizes={**NET, "points": 300}),
        "standard": Tier(20000, sizes=WIDE),
    },
    unit=UNIT,
    noise={"quick": {"sd": 0.091, "floor": 0.01, "n": 5, "per_doubling": 0.51}},
    lr_scale=3.0,
    target=-1.0,
    paper=Paper(
        "Laminar flow behind a two-dimensional grid", url="https://doi.org/10.1017/S0305004100023999", year=1948
    ),
)
class Kovasznay(SteadyFlow):
    """Velocity (u, v) and pressure p at Reynolds number 20 on [-0.5, 1] x [-0.5, 1.5].

    u = 1 - e^(lx) cos(2 pi y), v = l/(2 pi) e^(lx) sin(2 pi y), p = (1 - e^(2lx))/2 with
    l = Re/2 - sqrt(Re^2/4 + 4 pi^2). Velocity is given on the whole boundary and pressure on the
    outflow x = 1, which fixes its constant; errors count all three functions in one norm.

    ``quick`` has 1,250 gradient evaluations: the reference is at -1.60 with half, -2.10 with these,
    -2.45 with twice as many; seeds differ by .09.
    """

    domain = Domain(("x", "y"), (-0.5, -0.5), (1.0, 1.5))
    reynolds = REYNOLDS

    def conditions(self, tier: Tier) -> list[Condition]:
        n, domain = int(tier.sizes["boundary"]), self.domain
        edge = np.concatenate([domain.face(a, end[a], n) for a in (X, Y) for end in (domain.lows, domain.highs)])
        outflow = domain.face(X, domain.highs[X], n)
        return [
            condition(
                "velocity", edge, lambda x, u, v, p: torch.stack([u.value, v.value], 1), self.reference(edge)[:, :2]
            ),
            condition("pressure", outflow, pressure, self.reference(outflow)[:, 2]),
        ]

    def reference(self, points: np.ndarray) -> np.ndarray:
        wake, y = np.exp(DECAY * points[:, X]), 2 * np.pi * points[:, Y]
        u, v = 1 - wake * np.cos(y), DECAY / (2 * np.pi) * wake * np.sin(y)
        return np.stack([u, v, (1 - wake**2) / 2], axis=1)


@define_task(
    "cavity",
    title="Lid-driven cavity, Re 100",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=LBFGS,
    tiers={
        "smoke": Tier(200, evals=4, sizes={**NET, "points": 150}),
        "standard": Tier(20000, sizes=WIDE),
    },
    unit=UNIT,
    noise={},
    lr_scale=3.0,
    target=-1.0,
    paper=Paper(
        "PINNacle: A Comprehensive Benchmark of Physics-Informed Neural Networks for Solving PDEs",
        arxiv="2306.08827",
        year=2023,
    ),
)
class Cavity(SteadyFlow):
    """Flow at Reynolds number 100 in [0, 1]^2 under a lid of velocity u = 4 x (1 - x), no slip, p(0, 0) = 0.

    The pressure is unbounded at the lid's corners, so errors count the velocity
    only. The reference is a Chebyshev collocation of the stream function.
    """

    domain = Domain(("x", "y"), (0.0, 0.0), (1.0, 1.0))
    functions = ("u", "v")
    unscored = ("p",)
    reynolds = CAVITY_REYNOLDS
    reference_error = 2e-4

    def conditions(self, tier: Tier) -> list[Condition]:
        n, domain = int(tier.sizes["boundary"]), self.domain
        edge = np.concatenate([domain.face(a, end, n) for a in (X, Y) for end in (0.0, 1.0)])
        lid = np.where(edge[:, Y] == 1.0, 4 * edge[:, X] * (1 - edge[:, X]), 0.0)
        return [
            condition("velocity", edge, velocity, np.stack([lid, np.zeros(len(edge))], axis=1)),
            condition("pressure", np.zeros((1, 2)), pressure),
        ]

    def reference(self, points: np.ndarray) -> np.ndarray:
        x, y = 2 * points[:, X] - 1, 2 * points[:, Y] - 1
        u = 2 * chebyshev.chebder(cavity_stream(), axis=1)
        v = -2 * chebyshev.chebder(cavity_stream(), axis=0)
        return np.stack([chebyshev.chebval2d(x, y, c) for c in (u, v)], axis=1)


@functools.cache
def cavity_stream() -> np.ndarray:
    """Chebyshev coefficients (27, 27) of the cavity's stream function, kept on disk under a hash of this file."""
    key = f"{source_hash(__file__)} 26"
    return cache.arrays("cavity", key, lambda: {"stream": solve_cavity(26, CAVITY_REYNOLDS)})["stream"]


def solve_cavity(degree: int, reynolds: float) -> np.ndarray:
    """Stream function of the driven cavity by Newton's method on Chebyshev points.

    u w_x + v w_y = Laplace(w) / Re with w = -Laplace(psi), u = psi_y, v = -psi_x, collocated inside; psi = 0
    and the wall's velocity on the boundary. There are four equations too many, at the corners, so each step is
    a least-squares step.

    Returns
    -------
    (degree + 1, degree + 1) coefficients in x and y on [-1, 1]^2, x and y on [0, 1] scaled to it.
    """
    nodes, d = chebyshev_differentiation(degree)
    eye, size = np.eye(degree + 1), (degree + 1) ** 2
    dx, dy = np.kron(d, eye), np.kron(eye, d)
    laplace = np.kron(d @ d, eye) + np.kron(eye, d @ d)
    i, j = np.divmod(np.arange(size), degree + 1)
    deep = (i > 1) & (i < degree - 1) & (j > 1) & (j < degree - 1)
    side, level = (i == 0) | (i == degree), (j == 0) | (j == degree)
    walls = np.concatenate([np.eye(size)[side | level], dx[side & ~level], dy[level & ~side]])
    lid = np.where(j == 0, 4 * nodes[i] * (1 - nodes[i]), 0.0)  # nodes[0] is 1
    goal = np.concatenate([np.zeros((side | level).sum() + (side & ~level).sum()), lid[level & ~side]])
    psi, viscous = np.zeros(size), laplace @ laplace / reynolds
    dx_laplace, dy_laplace = dx @ laplace, dy @ laplace
    for _ in range(20):
        u, v = dy @ psi, -dx @ psi
        w_x, w_y = -dx_laplace @ psi, -dy_laplace @ psi
        momentum = u * w_x + v * w_y + viscous @ psi
        slope = w_x[:, None] * dy - w_y[:, None] * dx - u[:, None] * dx_laplace - v[:, None] * dy_laplace + viscous
        matrix = np.concatenate([slope[deep], 1e3 * walls])
        gap = np.concatenate([momentum[deep], 1e3 * (walls @ psi - goal)])
        step = np.linalg.lstsq(matrix, -gap)[0]
        psi += step
        if np.abs(step).max() < 1e-12:
            break
    basis = chebyshev.chebvander(2 * nodes - 1, degree)
    half = np.linalg.solve(basis, psi.reshape(degree + 1, degree + 1))
    return np.linalg.solve(basis, half.T).T


def chebyshev_differentiation(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev points of [0, 1], from 1 down to 0, and their differentiation matrix (Trefethen, 2000)."""
    k = np.arange(degree + 1)
    nodes = np.cos(np.pi * k / degree)
    scale = np.where((k == 0) | (k == degree), 2.0, 1.0) * (-1.0) ** k
    matrix = np.outer(scale, 1 / scale) / (nodes[:, None] - nodes[None, :] + np.eye(degree + 1))
    return (nodes + 1) / 2, 2 * (matrix - np.diag(matrix.sum(axis=1)))
