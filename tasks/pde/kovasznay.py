"""Kovasznay flow: the steady incompressible Navier-Stokes equations behind a grid."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from suite import Metric, Noise, Paper, Tier, define_task
from suite.train.derivatives import Engine, Field
from suite.train.jets import AxisJets
from suite.train.pinn import Condition, Domain, PdeTask, condition

X, Y = 0, 1
REYNOLDS = 20.0
DECAY = REYNOLDS / 2 - math.sqrt(REYNOLDS**2 / 4 + 4 * math.pi**2)
SLOTS = (
    "activation", "block", "optimizer", "gradient", "schedule", "averaging", "init", "reparam", "regularizer",
    "sampler", "pde-method",
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
        "quick": Tier(5000, sizes={**NET, "points": 500}),
        "standard": Tier(20000, sizes=WIDE),
    },
    unit=UNIT,
    noise={},
    lr_scale=3.0,
    target=-1.0,
    paper=Paper(
        "Laminar flow behind a two-dimensional grid", url="https://doi.org/10.1017/S0305004100023999", year=1948
    ),
)
class Kovasznay(PdeTask):
    """Velocity (u, v) and pressure p at Reynolds number 20 on [-0.5, 1] x [-0.5, 1.5].

    u = 1 - e^(lx) cos(2 pi y), v = l/(2 pi) e^(lx) sin(2 pi y), p = (1 - e^(2lx))/2 with
    l = Re/2 - sqrt(Re^2/4 + 4 pi^2). Velocity is given on the whole boundary and pressure on the
    outflow x = 1, which fixes its constant; errors count all three functions in one norm.
    """

    domain = Domain(("x", "y"), (-0.5, -0.5), (1.0, 1.5))
    functions = ("u", "v", "p")

    @property
    def jets(self) -> Engine:
        return AxisJets({X: 2, Y: 2})

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        u, v, p = fields
        momentum = [
            u.value * w.d(X) + v.value * w.d(Y) + p.d(axis) - (w.d(X, X) + w.d(Y, Y)) / REYNOLDS
            for axis, w in ((X, u), (Y, v))
        ]
        return torch.stack([*momentum, u.d(X) + v.d(Y)], dim=1)

    def conditions(self, tier: Tier) -> list[Condition]:
        n, domain = int(tier.sizes["boundary"]), self.domain
        edge = np.concatenate([domain.face(a, end[a], n) for a in (X, Y) for end in (domain.lows, domain.highs)])
        outflow = domain.face(X, domain.highs[X], n)
        return [
            condition(
                "velocity", edge, lambda x, u, v, p: torch.stack([u.value, v.value], 1), self.reference(edge)[:, :2]
            ),
            condition("pressure", outflow, lambda x, u, v, p: p.value, self.reference(outflow)[:, 2]),
        ]

    def reference(self, points: np.ndarray) -> np.ndarray:
        wake, y = np.exp(DECAY * points[:, X]), 2 * np.pi * points[:, Y]
        u, v = 1 - wake * np.cos(y), DECAY / (2 * np.pi) * wake * np.sin(y)
        return np.stack([u, v, (1 - wake**2) / 2], axis=1)


def velocity(points: Tensor, u: Field, v: Field, p: Field) -> Tensor:
    """Both components, (n, 2)."""
    return torch.stack([u.value, v.value], dim=1)
