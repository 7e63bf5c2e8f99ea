"""Logistic reaction: no coupling in space, and a trivial solution that attracts the fit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from suite import Metric, Paper, Tier, define_task
from suite.train.derivatives import Field
from suite.train.jets import through
from suite.train.pinn import Condition, Domain, PdeTask, condition, seam, value

X, T = 0, 1
WIDTH = np.pi / 4
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
NET = {"width": 50, "blocks": 1, "initial": 101, "boundary": 101}
WIDE = {"width": 256, "blocks": 2, "initial": 257, "boundary": 257, "points": 8192}
FAILURES = Paper(
    "Characterizing possible failure modes in physics-informed neural networks", arxiv="2109.01050", year=2021
)


class Reaction(PdeTask):
    """u_t = rho u (1 - u) on [0, 2 pi] x [0, 1], u(x, 0) = h(x) = exp(-(x - pi)^2 / (2 (pi/4)^2)), periodic.

    The solution is h e^(rho t) / (h e^(rho t) + 1 - h). Its periodic extension
    has a step of slope 7e-4 at the seam, so periodicity is asked of u only.
    """

    domain = Domain(("x", "t"), (0.0, 0.0), (2 * np.pi, 1.0), time=T, periodic=(X,))
    hard_names = ("initial",)
    rho: float

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        return u.d(T) - self.rho * u.value * (1 - u.value)

    def conditions(self, tier: Tier) -> list[Condition]:
        start = self.domain.face(T, 0.0, int(tier.sizes["initial"]))
        sides = np.concatenate([self.domain.face(X, end, int(tier.sizes["boundary"])) for end in (0.0, 2 * np.pi)])
        return [condition("initial", start, value, bump(start[:, X])), condition("periodic", sides, seam(()))]

    def reference(self, points: np.ndarray) -> np.ndarray:
        h, growth = bump(points[:, X]), np.exp(self.rho * points[:, T])
        return h * growth / (h * growth + 1 - h)

    def hard(self, x: Tensor, out: Tensor) -> Tensor:
        return through(torch.exp, (x[:, :1] - np.pi).square() * (-0.5 / WIDTH**2)) + x[:, 1:] * out

    def curriculum(self, fraction: float) -> PdeTask:
        return self.with_values(rho=fraction * type(self).rho)


def bump(x: np.ndarray) -> np.ndarray:
    """The initial values."""
    return np.exp(-((x - np.pi) ** 2) / (2 * WIDTH**2))


@define_task(
    "reaction-3",
    title="Reaction, rate 3",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=LBFGS,
    tiers={
        "smoke": Tier(400, evals=4, sizes={**NET, "points": 250}),
        "quick": Tier(2500, sizes={**NET, "points": 500}),
        "standard": Tier(20000, sizes=WIDE),
    },
    unit=UNIT,
    noise={"quick": {"sd": 0.077, "floor": 0.01, "n": 5, "per_doubling": 0.39}},
    lr_scale=3.0,
    target=-1.0,
    paper=FAILURES,
)
class Reaction3(Reaction):
    """The reaction equation at rate 3."""

    rho = 3.0


@define_task(
    "reaction-5",
    title="Reaction, rate 5",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=LBFGS,
    tiers={
        "smoke": Tier(400, evals=4, sizes={**NET, "points": 250}),
        "quick": Tier(3000, sizes={**NET, "points": 500}),
        "standard": Tier(20000, sizes=WIDE),
    },
    unit=UNIT,
    noise={"quick": {"sd": 0.51, "floor": 0.01, "n": 5, "per_doubling": -0.17}},
    lr_scale=3.0,
    target=-1.0,
    paper=FAILURES,
)
class Reaction5(Reaction):
    """The reaction equation at rate 5: fits fall to the trivial solution u = 0 or not, seed by seed."""

    rho = 5.0
