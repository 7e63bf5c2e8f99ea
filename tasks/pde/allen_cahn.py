"""Allen-Cahn: plateaus grow apart behind interfaces of width 0.005."""

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
DIFFUSION = 1e-4
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
    "pde-method": "hard-bc",
}
NET = {"width": 50, "blocks": 1, "initial": 201, "boundary": 101}
WIDE = {"width": 256, "blocks": 2, "initial": 513, "boundary": 257, "points": 8192}
EQUATION = Periodic(
    low=-1.0,
    high=1.0,
    linear=lambda k: 5 - DIFFUSION * k**2,
    nonlinear=lambda u, d: -5 * u**3,
    initial=lambda x: x**2 * np.cos(np.pi * x),
)


@functools.cache
def solution() -> GridSolution:
    """The reference: 4,096 modes, 1,000 time steps, splined through 1,024 places and 201 times."""
    return solve(EQUATION, modes=4096, steps=1000, frames=201, keep=1024, source=__file__)


@define_task(
    "allen-cahn",
    title="Allen-Cahn",
    family="pde",
    version=3,
    metric=METRIC,
    slots=SLOTS,
    recipe=LBFGS,
    tiers={
        "smoke": Tier(400, evals=4, sizes={**NET, "points": 250}),
        "quick": Tier(2000, sizes={**NET, "points": 1000}),
        "standard": Tier(20000, sizes=WIDE),
    },
    unit=UNIT,
    noise={"quick": {"sd": 0.021, "floor": 0.01, "n": 5, "per_doubling": 0.073}},
    lr_scale=3.0,
    target=-1.0,
    paper=Paper("An Expert's Guide to Training Physics-informed Neural Networks", arxiv="2308.08468", year=2023),
)
class AllenCahn(PdeTask):
    """u_t = 1e-4 u_xx + 5 u - 5 u^3 on [-1, 1] x [0, 1], u(x, 0) = x^2 cos(pi x), periodic.

    This is the form with diffusion 1e-4; results for 1e-3 do not compare. The
    periodic extension of u(x, 0) has a kink at the seam, so the spectral
    reference converges at second order there: 2e-7 in relative L2 against
    8,192 modes. The reference recipe builds the initial values into the ansatz:
    with them as a loss term the fit stays at a relative error of 0.99.

    ``quick`` has 2,000 gradient evaluations. The reference lies on a plateau there (-.19 with half, -.27
    with these, -.30 with twice as many); with four times as many some seeds leave it (-.54).
    """

    domain = Domain(("x", "t"), (-1.0, 0.0), (1.0, 1.0), time=T, periodic=(X,))
    hard_names = ("initial",)
    reference_error = 2e-7
    reaction = 5.0

    @property
    def jets(self) -> Engine:
        return AxisJets({X: 2, T: 1})

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        return u.d(T) - DIFFUSION * u.d(X, X) + self.reaction * (u.value**3 - u.value)

    def conditions(self, tier: Tier) -> list[Condition]:
        start = self.domain.face(T, 0.0, int(tier.sizes["initial"]))
        sides = np.concatenate([self.domain.face(X, end, int(tier.sizes["boundary"])) for end in (-1.0, 1.0)])
        return [
            condition("initial", start, value, EQUATION.initial(start[:, X])),
            condition("periodic", sides, seam((), (X,))),
        ]

    def reference(self, points: np.ndarray) -> np.ndarray:
        return solution()(points)

    def hard(self, x: Tensor, out: Tensor) -> Tensor:
        place, time = x[:, :1], x[:, 1:]
        return place.square() * through(torch.cos, place * np.pi) + time * out

    def curriculum(self, fraction: float) -> PdeTask:
        return self.with_values(reaction=fraction * type(self).reaction)
