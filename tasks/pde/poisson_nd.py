"""Poisson's equation in 5, 10 and 100 dimensions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from suite import Metric, Paper, Tier, define_task
from suite.train.derivatives import Engine, Field
from suite.train.jets import forward_laplacian
from suite.train.pinn import Condition, Domain, PdeTask, condition, value

SLOTS = (
    "activation", "block", "optimizer", "gradient", "schedule", "averaging", "init", "reparam", "regularizer",
    "sampler", "pde-method", "architecture",
)  # fmt: skip
METRIC = Metric("log10_l2re", "log10", "min", chance=0.0)
UNIT = "gradient evaluations"
ADAM = {
    "activation": "tanh",
    "block": "ffn",
    "optimizer": ("adam", {"lr": 3e-3}),
    "schedule": ("linear", {"warmup": 0.0}),
    "init": "xavier",
    "sampler": "uniform",
    "pde-method": "pinn",
}
PINNACLE = Paper(
    "PINNacle: A Comprehensive Benchmark of Physics-Informed Neural Networks for Solving PDEs",
    arxiv="2306.08827",
    year=2023,
)


class PoissonNd(PdeTask):
    """-Laplace(u) = pi^2/4 mean_i sin(pi x_i / 2) on [0, 1]^d, u given on the boundary; u = mean_i sin(pi x_i / 2).

    PINNacle's Poisson-Nd divided by d, so that values are of order 1 in every
    dimension. Boundary points are uniform on the faces, frozen; errors are
    taken at 10,000 uniform points. In high dimension the mean concentrates: the
    best constant already has a relative error of 0.48 / sqrt(d).
    """

    laplacian = True

    @property
    def jets(self) -> Engine:
        return forward_laplacian

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        return u.laplacian() + source(x)

    def energy(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        slopes = torch.stack([u.d(axis) for axis in range(self.domain.dims)]).square().sum(0)
        return slopes / 2 - source(x) * u.value

    def conditions(self, tier: Tier) -> list[Condition]:
        count, stream = int(tier.sizes["boundary"]), np.random.default_rng(0)
        points = stream.random((count, self.domain.dims))
        points[np.arange(count), stream.integers(self.domain.dims, size=count)] = stream.integers(2, size=count)
        return [condition("boundary", points, value, self.reference(points))]

    def reference(self, points: np.ndarray) -> np.ndarray:
        return np.sin(np.pi / 2 * points).mean(axis=1)

    def test_points(self, tier: Tier) -> np.ndarray:
        return np.random.default_rng(1).random((10_000, self.domain.dims))


def source(x: Tensor) -> Tensor:
    """-Laplace(u) of the solution, (n,)."""
    return np.pi**2 / 4 * torch.sin(np.pi / 2 * x).mean(1)


@define_task(
    "poisson-5",
    title="Poisson in 5 dimensions",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=ADAM,
    tiers={
        "smoke": Tier(400, evals=4, sizes={"width": 50, "blocks": 1, "boundary": 200, "points": 200}),
        "quick": Tier(500, sizes={"width": 50, "blocks": 1, "boundary": 2000, "points": 500}),
        "standard": Tier(20000, sizes={"width": 256, "blocks": 2, "boundary": 2048, "points": 8192}),
    },
    unit=UNIT,
    noise={"quick": {"sd": 0.068, "floor": 0.01, "n": 5, "per_doubling": 0.39}},
    lr_scale=3.0,
    target=-2.0,
    paper=PINNACLE,
)
class Poisson5(PoissonNd):
    """Poisson's equation in 5 dimensions, as PINNacle's.

    The reference is at -1.43 with half of ``quick``'s 500 gradient evaluations, -1.82 with these, -1.83 with
    twice and -1.96 with four times as many. Just above them the ladder is flat within the spread over seeds,
    so the task counts in no effective speedup; 375, with -1.66 and twice as many at -1.84, would be sharp.
    """

    domain = Domain(("x1", "x2", "x3", "x4", "x5"), (0.0,) * 5, (1.0,) * 5)


@define_task(
    "poisson-10",
    title="Poisson in 10 dimensions",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=ADAM,
    tiers={
        "smoke": Tier(300, evals=4, sizes={"width": 64, "blocks": 1, "boundary": 200, "points": 100}),
        "quick": Tier(500, sizes={"width": 64, "blocks": 1, "boundary": 2000, "points": 250}),
        "standard": Tier(20000, sizes={"width": 256, "blocks": 2, "boundary": 2048, "points": 4096}),
    },
    unit=UNIT,
    noise={"quick": {"sd": 0.034, "floor": 0.01, "n": 5, "per_doubling": 0.19}},
    lr_scale=3.0,
    target=-2.0,
    paper=PINNACLE,
)
class Poisson10(PoissonNd):
    """Poisson's equation in 10 dimensions.

    ``quick`` has 500 gradient evaluations, where the reference still gains: it is at -1.40 with half, -1.59
    with these, -1.83 with twice and -1.82 with four times as many.
    """

    domain = Domain(tuple(f"x{i + 1}" for i in range(10)), (0.0,) * 10, (1.0,) * 10)


@define_task(
    "poisson-100",
    title="Poisson in 100 dimensions",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=ADAM,
    tiers={
        "smoke": Tier(60, evals=3, sizes={"width": 64, "blocks": 1, "boundary": 200, "points": 50}),
        "quick": Tier(500, sizes={"width": 64, "blocks": 1, "boundary": 1000, "points": 100}),
        "standard": Tier(10000, sizes={"width": 256, "blocks": 2, "boundary": 2048, "points": 1024}),
    },
    unit=UNIT,
    noise={"quick": {"sd": 0.029, "floor": 0.01, "n": 5, "per_doubling": 0.44}},
    lr_scale=3.0,
    target=-2.0,
    paper=PINNACLE,
)
class Poisson100(PoissonNd):
    """Poisson's equation in 100 dimensions; the best constant has a relative error of 0.048.

    ``quick`` has 500 gradient evaluations, where the reference still gains: it is at -.77 with half, -1.21
    with these, -1.32 with twice and -1.42 with four times as many.
    """

    domain = Domain(tuple(f"x{i + 1}" for i in range(100)), (0.0,) * 100, (1.0,) * 100)
    success = 0.01
