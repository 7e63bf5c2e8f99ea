"""Convection on a periodic interval: an analytic solution that moves fast."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from suite import Metric, Noise, Paper, Tier, define_task
from suite.train.derivatives import Field
from suite.train.jets import through
from suite.train.pinn import Condition, Domain, PdeTask, condition, seam, value

X, T = 0, 1
SLOTS = (
    "activation", "block", "optimizer", "gradient", "schedule", "averaging", "init", "reparam", "regularizer",
    "sampler", "pde-method", "architecture",
)  # fmt: skip
METRIC = Metric("log10_l2re", "log10", "min", chance=0.0)
UNIT = "gradient evaluations"
FAILURES = Paper(
    "Characterizing possible failure modes in physics-informed neural networks", arxiv="2109.01050", year=2021
)
ADAM = {
    "activation": "tanh",
    "block": "ffn",
    "optimizer": ("adam", {"lr": 3e-3}),
    "schedule": ("linear", {"warmup": 0.0}),
    "init": "xavier",
    "sampler": "uniform",
    "pde-method": "pinn",
}
LBFGS = {**ADAM, "optimizer": ("adam-lbfgs", {"lr": 3e-3}), "sampler": "fixed-points"}
NET = {"width": 50, "blocks": 1, "initial": 101, "boundary": 101}
WIDE = {"width": 256, "blocks": 2, "initial": 257, "boundary": 257, "points": 8192}


class Convection(PdeTask):
    """u_t + beta u_x = 0 on [0, 2 pi] x [0, 1], u(x, 0) = sin x, periodic; u = sin(x - beta t)."""

    domain = Domain(("x", "t"), (0.0, 0.0), (2 * np.pi, 1.0), time=T, periodic=(X,))
    hard_names = ("initial",)
    beta: float

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        return u.d(T) + self.beta * u.d(X)

    def conditions(self, tier: Tier) -> list[Condition]:
        start = self.domain.face(T, 0.0, int(tier.sizes["initial"]))
        sides = np.concatenate([self.domain.face(X, end, int(tier.sizes["boundary"])) for end in (0.0, 2 * np.pi)])
        return [condition("initial", start, value, np.sin(start[:, X])), condition("periodic", sides, seam(()))]

    def reference(self, points: np.ndarray) -> np.ndarray:
        return np.sin(points[:, X] - self.beta * points[:, T])

    def hard(self, x: Tensor, out: Tensor) -> Tensor:
        return through(torch.sin, x[:, :1]) + x[:, 1:] * out

    def curriculum(self, fraction: float) -> PdeTask:
        return self.with_values(beta=fraction * type(self).beta)


@define_task(
    "convection",
    title="Convection, speed 10",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=ADAM,
    tiers={
        "smoke": Tier(500, evals=4, sizes={**NET, "points": 250}),
        "quick": Tier(3000, sizes={**NET, "points": 500}),
        "standard": Tier(20000, sizes=WIDE),
    },
    unit=UNIT,
    noise={"smoke": Noise(0.015, floor=0.01, n=5), "quick": Noise(0.22, floor=0.01, n=5, per_doubling=1.1)},
    lr_scale=3.0,
    target=-1.0,
    paper=FAILURES,
)  # fmt: skip
class Convection10(Convection):
    """Convection at speed 10: Adam solves it, so methods are told apart by how far they get."""

    beta = 10.0


@define_task(
    "convection-30",
    title="Convection, speed 30",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=LBFGS,
    tiers={
        "smoke": Tier(500, evals=4, sizes={**NET, "points": 250}),
        "quick": Tier(3500, sizes={**NET, "points": 500}),
        "standard": Tier(20000, sizes=WIDE),
    },
    unit=UNIT,
    noise={"quick": Noise(0.25, floor=0.01, n=5, per_doubling=1.4)},
    lr_scale=3.0,
    target=-1.0,
    paper=FAILURES,
)
class Convection30(Convection):
    """Convection at speed 30: Adam alone stays at a relative error of 0.88, L-BFGS after it reaches 0.015 (5 seeds).

    ``quick`` has 3,500 gradient evaluations, on the steep part: half as many leave the reference at
    -.43, these at -1.82, twice at -2.14, four times at -1.91.
    """

    beta = 30.0
