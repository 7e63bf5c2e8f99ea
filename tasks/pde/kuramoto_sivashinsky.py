"""Kuramoto-Sivashinsky: fourth-order dissipation against growth, on the way to chaos."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from suite import Metric, Paper, Tier, define_task
from suite.train.derivatives import Engine, Field
from suite.train.jets import AxisJets, through
from suite.train.pinn import Condition, Domain, PdeTask, condition, seam, value
from tasks.pde.spectral import GridSolution, Periodic, solve

X, T = 0, 1
ALPHA, BETA, GAMMA = 100 / 16, 100 / 16**2, 100 / 16**4
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
EQUATION = Periodic(
    low=0.0,
    high=2 * np.pi,
    linear=lambda k: BETA * k**2 - GAMMA * k**4,
    nonlinear=lambda u, d: -0.5 * ALPHA * d(u * u),
    initial=lambda x: np.cos(x) * (1 + np.sin(x)),
)


@functools.cache
def solution() -> GridSolution:
    """The reference: 512 modes, 8,000 time steps, splined through 512 places and 401 times."""
    return solve(EQUATION, modes=512, steps=8000, frames=401, keep=512, source=__file__)


@define_task(
    "kuramoto-sivashinsky",
    title="Kuramoto-Sivashinsky",
    family="pde",
    version=2,
    metric=METRIC,
    slots=SLOTS,
    recipe=LBFGS,
    tiers={
        "smoke": Tier(150, evals=4, sizes={"width": 50, "blocks": 1, "points": 150, "initial": 101, "boundary": 51}),
        "standard": Tier(20000, sizes={"width": 256, "blocks": 2, "points": 8192, "initial": 513, "boundary": 257}),
    },
    unit=UNIT,
    noise={},
    lr_scale=3.0,
    target=-0.5,
    paper=Paper(
        "PINNacle: A Comprehensive Benchmark of Physics-Informed Neural Networks for Solving PDEs",
        arxiv="2306.08827",
        year=2023,
    ),
)
class KuramotoSivashinsky(PdeTask):
    """u_t + a u u_x + b u_xx + c u_xxxx = 0 on [0, 2 pi] x [0, 1], u(x, 0) = cos x (1 + sin x), periodic.

    a = 100/16, b = 100/16^2, c = 100/16^4, as PINNacle's KS.
    """

    domain = Domain(("x", "t"), (0.0, 0.0), (2 * np.pi, 1.0), time=T, periodic=(X,))
    hard_names = ("initial",)
    reference_error = 3e-7
    advection = ALPHA

    @property
    def jets(self) -> Engine:
        return AxisJets({X: 4, T: 1})

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        growth = BETA * u.d(X, X) + GAMMA * u.d(X, X, X, X)
        return u.d(T) + self.advection * u.value * u.d(X) + growth

    def conditions(self, tier: Tier) -> list[Condition]:
        start = self.domain.face(T, 0.0, int(tier.sizes["initial"]))
        sides = np.concatenate([self.domain.face(X, end, int(tier.sizes["boundary"])) for end in (0.0, 2 * np.pi)])
        return [
            condition("initial", start, value, EQUATION.initial(start[:, X])),
            condition("periodic", sides, seam((), (X,), (X, X), (X, X, X))),
        ]

    def reference(self, points: np.ndarray) -> np.ndarray:
        return solution()(points)

    def hard(self, x: Tensor, out: Tensor) -> Tensor:
        place, time = x[:, :1], x[:, 1:]
        return through(torch.cos, place) * (1 + through(torch.sin, place)) + time * out

    def curriculum(self, fraction: float) -> PdeTask:
        return self.with_values(advection=fraction * ALPHA)
