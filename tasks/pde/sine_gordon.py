"""The Sine-Gordon equation in the unit ball of 100 dimensions."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from suite import Metric, Paper, Tier, define_task
from suite.train.derivatives import Engine, Field
from suite.train.jets import forward_laplacian
from suite.train.pinn import Condition, Domain, PdeTask

DIMS = 100
SLOTS = (
    "activation", "block", "optimizer", "gradient", "schedule", "averaging", "init", "reparam", "regularizer",
    "sampler", "pde-method", "architecture",
)  # fmt: skip
METRIC = Metric("log10_l2re", "log10", "min", chance=0.0)
UNIT = "gradient evaluations"
STDE = {
    "activation": "tanh",
    "block": "ffn",
    "optimizer": ("adam", {"lr": 1e-3}),
    "schedule": ("linear", {"warmup": 0.0}),
    "init": "xavier",
    "sampler": "uniform",
    "pde-method": "stde-sparse",
}


@dataclass(frozen=True)
class Ball(Domain):
    """The unit ball; points are drawn with a uniform radius in a uniform direction."""

    def uniform(self, count: int, generator: torch.Generator) -> Tensor:
        direction = torch.randn(count, self.dims, generator=generator, device=generator.device)
        radius = torch.rand(count, 1, generator=generator, device=generator.device)
        return direction / direction.norm(dim=1, keepdim=True) * radius

    def contains(self, points: np.ndarray, slack: float = 1e-6) -> np.ndarray:
        return np.linalg.norm(points, axis=1) <= 1 + slack


@define_task(
    "sine-gordon-100",
    title="Sine-Gordon in 100 dimensions",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=STDE,
    tiers={
        "smoke": Tier(100, evals=3, sizes={"width": 128, "blocks": 1, "points": 100}),
        "quick": Tier(2000, sizes={"width": 128, "blocks": 1, "points": 100}),
        "standard": Tier(20000, sizes={"width": 128, "blocks": 1, "points": 1000}),
    },
    unit=UNIT,
    noise={"quick": {"sd": 0.0096, "floor": 0.01, "n": 5, "per_doubling": 0.023}},
    target=-2.0,
    paper=Paper(
        "Stochastic Taylor Derivative Estimator: Efficient amortization for arbitrary differential operators",
        arxiv="2412.00088",
        year=2024,
    ),
)
class SineGordon100(PdeTask):
    """Laplace(u) + sin(u) = g in the unit ball of R^100, u = 0 on the sphere.

    The solution is (1 - |x|^2) sum_i c_i sin(x_i + cos x_{i+1} + x_{i+1} cos x_i) over neighbouring
    coordinates, with frozen c_i ~ N(0, 1). The factor 1 - |x|^2 is part of the ansatz, so there is no
    boundary term. Errors are taken at 20,000 points of the ball with uniform radius.
    """

    domain = Ball(tuple(f"x{i + 1}" for i in range(DIMS)), (-1.0,) * DIMS, (1.0,) * DIMS)
    laplacian = True
    success = 0.01

    @property
    def jets(self) -> Engine:
        return forward_laplacian

    def ansatz(self, x: Tensor, out: Tensor) -> Tensor:
        return (1 - x.square().sum(1, keepdim=True)) * out

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        return u.laplacian() + torch.sin(u.value) - source(x)

    def conditions(self, tier: Tier) -> list[Condition]:
        return []

    def reference(self, points: np.ndarray) -> np.ndarray:
        return (1 - (points**2).sum(axis=1)) * interaction(torch.from_numpy(points))[0].numpy()

    def test_points(self, tier: Tier) -> np.ndarray:
        return self.domain.uniform(20_000, torch.Generator().manual_seed(2)).double().numpy()

    def map_points(self) -> tuple[np.ndarray, tuple[int, int]]:
        """The square inside the disc of the first two coordinates, the others 0."""
        side = np.linspace(-0.7, 0.7, 40)
        points = np.zeros((len(side) ** 2, DIMS))
        points[:, 0], points[:, 1] = np.repeat(side, len(side)), np.tile(side, len(side))
        return points, (len(side), len(side))


@functools.cache
def coefficients() -> np.ndarray:
    """The frozen c_i, (DIMS - 1,)."""
    return np.random.default_rng(0).standard_normal(DIMS - 1)


def interaction(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """s = sum_i c_i sin(x_i + cos x_{i+1} + x_{i+1} cos x_i): values (n,), x . grad s (n,), Laplacian (n,)."""
    c, a, b = torch.as_tensor(coefficients()).to(x), x[:, :-1], x[:, 1:]
    sin_a, cos_a, sin_b, cos_b = a.sin(), a.cos(), b.sin(), b.cos()
    phase = a + cos_b + b * cos_a
    sin, cos = c * phase.sin(), c * phase.cos()
    phase_a, phase_b = 1 - b * sin_a, cos_a - sin_b
    radial = cos * (a * phase_a + b * phase_b)
    second = -cos * (b * cos_a + cos_b) - sin * (phase_a.square() + phase_b.square())
    return sin.sum(1), radial.sum(1), second.sum(1)


def source(x: Tensor) -> Tensor:
    """g = Laplace(u) + sin(u) of the solution at points (n, DIMS), in closed form."""
    square = x.square().sum(1)
    value, radial, second = interaction(x)
    laplace = (1 - square) * second - 4 * radial - 2 * x.shape[1] * value
    return laplace + torch.sin((1 - square) * value)
