"""Korteweg-de Vries: a wave steepens and breaks up into solitons."""

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
DISPERSION = 0.0025
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
    low=-1.0,
    high=1.0,
    linear=lambda k: 1j * DISPERSION * k**3,
    nonlinear=lambda u, d: -0.5 * d(u * u),
    initial=lambda x: np.cos(np.pi * x),
)


@functools.cache
def solution() -> GridSolution:
    """The reference: 512 modes, 2,000 time steps, splined through 512 places and 201 times."""
    return solve(EQUATION, modes=512, steps=2000, frames=201, keep=512, source=__file__)


@define_task(
    "kdv",
    title="Korteweg-de Vries",
    family="pde",
    version=1,
    metric=METRIC,
    slots=SLOTS,
    recipe=LBFGS,
    tiers={
        "smoke": Tier(200, evals=4, sizes={"width": 50, "blocks": 1, "points": 200, "initial": 101, "boundary": 51}),
        "standard": Tier(20000, sizes={"width": 256, "blocks": 2, "points": 8192, "initial": 513, "boundary": 257}),
    },
    unit=UNIT,
    noise={},
    lr_scale=3.0,
    target=-1.0,
    paper=Paper("An Expert's Guide to Training Physics-informed Neural Networks", arxiv="2308.08468", year=2023),
)
class KortewegDeVries(PdeTask):
    """u_t + u u_x + 0.0025 u_xxx = 0 on [-1, 1] x [0, 1], u(x, 0) = cos(pi x), periodic.

    Results for the dispersion 0.022^2, which some papers use, do not compare.
    """

    domain = Domain(("x", "t"), (-1.0, 0.0), (1.0, 1.0), time=T, periodic=(X,))
    hard_names = ("initial",)
    reference_error = 2e-9
    advection = 1.0

    @property
    def jets(self) -> Engine:
        return AxisJets({X: 3, T: 1})

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        return u.d(T) + self.advection * u.value * u.d(X) + DISPERSION * u.d(X, X, X)

    def conditions(self, tier: Tier) -> list[Condition]:
        start = self.domain.face(T, 0.0, int(tier.sizes["initial"]))
        sides = np.concatenate([self.domain.face(X, end, int(tier.sizes["boundary"])) for end in (-1.0, 1.0)])
        return [
            condition("initial", start, value, EQUATION.initial(start[:, X])),
            condition("periodic", sides, seam((), (X,), (X, X))),
        ]

    def reference(self, points: np.ndarray) -> np.ndarray:
        return solution()(points)

    def hard(self, x: Tensor, out: Tensor) -> Tensor:
        return through(torch.cos, x[:, :1] * np.pi) + x[:, 1:] * out

    def curriculum(self, fraction: float) -> PdeTask:
        return self.with_values(advection=fraction)
