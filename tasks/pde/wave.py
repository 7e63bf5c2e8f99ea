"""A vibrating string with two modes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from suite import Metric, Paper, Tier, define_task
from suite.train.derivatives import Engine, Field
from suite.train.jets import AxisJets, through
from suite.train.pinn import Condition, Domain, PdeTask, condition, value

X, T = 0, 1
MODE = 3
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


@define_task(
    "wave",
    title="Wave, two modes",
    family="pde",
    version=2,
    metric=METRIC,
    slots=SLOTS,
    recipe=LBFGS,
    tiers={
        "smoke": Tier(300, evals=4, sizes={**NET, "points": 250}),
        "quick": Tier(2500, sizes={**NET, "points": 500}),
        "standard": Tier(20000, sizes=WIDE),
    },
    unit=UNIT,
    noise={"quick": {"sd": 0.042, "floor": 0.01, "n": 5, "per_doubling": 0.039}},
    lr_scale=3.0,
    target=-1.0,
    paper=Paper("Challenges in Training PINNs: A Loss Landscape Perspective", arxiv="2402.01868", year=2024),
)
class Wave(PdeTask):
    """u_tt = 4 u_xx on [0, 1]^2, u(x, 0) = sin(pi x) + sin(3 pi x) / 2, u_t(x, 0) = 0, u = 0 at both ends.

    The solution is sin(pi x) cos(2 pi t) + sin(3 pi x) cos(6 pi t) / 2.

    ``quick`` has 2,500 gradient evaluations: the reference is at -.26 with half, -.30 with these, -.41 with
    twice and -.53 with four times as many, which tells as much a second as 5,000 would.
    """

    domain = Domain(("x", "t"), (0.0, 0.0), (1.0, 1.0), time=T)
    hard_names = ("initial", "velocity", "boundary")
    speed2 = 4.0

    @property
    def jets(self) -> Engine:
        return AxisJets({X: 2, T: 2})

    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        (u,) = fields
        return u.d(T, T) - self.speed2 * u.d(X, X)

    def conditions(self, tier: Tier) -> list[Condition]:
        start = self.domain.face(T, 0.0, int(tier.sizes["initial"]))
        ends = np.concatenate([self.domain.face(X, end, int(tier.sizes["boundary"])) for end in (0.0, 1.0)])
        return [
            condition("initial", start, value, self.reference(start)),
            condition("velocity", start, lambda x, u: u.d(T)),
            condition("boundary", ends, value),
        ]

    def reference(self, points: np.ndarray) -> np.ndarray:
        x, t = np.pi * points[:, X], 2 * np.pi * points[:, T]
        return np.sin(x) * np.cos(t) + 0.5 * np.sin(MODE * x) * np.cos(MODE * t)

    def hard(self, x: Tensor, out: Tensor) -> Tensor:
        place, time = x[:, :1], x[:, 1:]
        start = through(torch.sin, place * np.pi) + through(torch.sin, place * (MODE * np.pi)) * 0.5
        return start + time.square() * place * (1 - place) * out

    def curriculum(self, fraction: float) -> PdeTask:
        return self.with_values(speed2=fraction * type(self).speed2)
