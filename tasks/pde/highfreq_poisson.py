"""A one-dimensional Poisson equation whose solution oscillates a hundred times."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from suite import Metric, Paper, Tier, define_task
from suite.train.derivatives import Engine, Field
from suite.train.jets import forward_laplacian, through
from suite.train.pinn import Condition, Domain, PdeTask, condition, value

FREQUENCY = 100.0
SLOTS = (
    "activation", "block", "optimizer", "gradient", "schedule", "averaging", "init", "reparam", "regularizer",
    "sampler", "pde-method", "architecture",
)  # fmt: skip
METRIC = Metric("log10_l2re", "log10", "min", chance=0.0)
UNIT = "gradient evaluations"
FOURIER = {
    "activation": "tanh",
    "block": "ffn",
    "optimizer": ("adam", {"lr": 3e-3}),
    "schedule": ("linear", {"warmup": 0.0}),
    "init": "xavier",
    "sampler": "uniform",
    "pde-method": ("fourier-features", {"sigma": 40.0, "frequencies": 64}),
}


@define_task(
    "highfreq-poisson",
    title="Poisson, frequency 100",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=FOURIER,
    tiers={
        "smoke": Tier(300, evals=4, sizes={"width": 50, "blocks": 1, "points": 500}),
        "quick": Tier(2000, sizes={"width": 50, "blocks": 1, "points": 500}),
        "standard": Tier(20000, sizes={"width": 256, "blocks": 2, "points": 4096}),
    },
    unit=UNIT,
    noise={"quick": {"sd": 0.19, "floor": 0.01, "n": 5}},
    lr_scale=3.0,
    target=-1.0,
    paper=Paper("Solving High Frequency and Multi-Scale PDEs with Gaussian Processes", arxiv="2311.04465", year=2024),
)
class HighFrequencyPoisson(PdeTask):
    """u_xx = -100^2 sin(100 x) on [0, 2 pi], u = 0 at both ends; u = sin(100 x).

    The equation is divided by 100^2, so that its terms are of order 1. A plain
    network does not leave u = 0; the reference's Fourier features have a spread
    that covers the frequency, which is knowledge of the problem.
    """

    domain = Domain(("x",), (0.0,), (2 * np.pi,))
    hard_names = ("boundary",)
    laplacian = True

    @property
    def jets(self) -> Engine:
        return forward_laplacian

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        return u.laplacian() / FREQUENCY**2 + torch.sin(FREQUENCY * x[:, 0])

    def energy(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        return u.d(0).square() / (2 * FREQUENCY**2) - torch.sin(FREQUENCY * x[:, 0]) * u.value

    def conditions(self, tier: Tier) -> list[Condition]:
        return [condition("boundary", self.domain.grid(2), value)]

    def reference(self, points: np.ndarray) -> np.ndarray:
        return np.sin(FREQUENCY * points[:, 0])

    def hard(self, x: Tensor, out: Tensor) -> Tensor:
        return through(torch.sin, x * 0.5) * out

    def test_points(self, tier: Tier) -> np.ndarray:
        return self.domain.grid(4001)

    def map_points(self) -> tuple[np.ndarray, tuple[int, int]]:
        """48 points over the first five of the hundred waves."""
        return np.linspace(0, 0.1 * np.pi, 48)[:, None], (48, 1)
