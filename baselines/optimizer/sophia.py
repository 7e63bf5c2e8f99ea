from __future__ import annotations

import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, decay
from suite import IntUniform, LogUniform, Paper, optimizer
from suite.train.step import HessianVector


@optimizer(
    "sophia-h",
    paper=Paper(
        "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training",
        arxiv="2305.14342",
        year=2023,
    ),
    vmap=False,
    compiles=False,
    passes=1.2,
    defaults={
        "lr": 1e-3, "betas": (0.96, 0.99), "gamma": 0.01, "eps": 1e-12, "weight_decay": 0.2, "interval": 10, "seed": 0,
    },
    space={
        "lr": LogUniform(3e-5, 3e-2),
        "gamma": LogUniform(1e-3, 1.0),
        "weight_decay": LogUniform(1e-4, 1.0),
        "interval": IntUniform(1, 20),
    },
)  # fmt: skip
class SophiaH(ForeachOptimizer):
    """Sophia with Hutchinson's estimate of the Hessian's diagonal, each step clipped to the learning rate.

    m averages the gradients with β1. At the first of every `interval` updates, u ~ N(0, I) and
    h ← β2 h + (1 − β2) u ⊙ (Hu), H the Hessian of the loss on the current batch, from h = 0. Then
    w ← w(1 − ηλ) and w ← w − η clip(m/max(γh, ε), 1), entry by entry: where the curvature is not
    positive the step is that of the sign. The training loop provides Hu and counts two passes for it; the
    paper estimates on a part of the batch.

    Parameters
    ----------
    gamma : γ; the paper tunes it so that 10 to 50 % of the entries are not clipped.
    seed : of the draws of u, whose stream is kept in the first group.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float] = (0.96, 0.99),
        gamma: float = 0.01,
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        interval: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, gamma=gamma, eps=eps, weight_decay=weight_decay)
        self.param_groups[0] |= {"generator": torch.Generator().manual_seed(seed).get_state(), "updates": 0}
        self.interval = interval
        self.product: HessianVector | None = None

    def set_hessian_vector(self, product: HessianVector) -> None:
        """Take the function that gives the current batch's Hessian times a vector."""
        self.product = product

    def prepare(self, loss: Tensor | None) -> None:
        first, trained = self.param_groups[0], self.trained()
        if trained and first["updates"] % self.interval == 0:
            self.learn_curvature(trained)
        first["updates"] += bool(trained)

    def learn_curvature(self, trained: list[tuple[Group, list[Tensor], list[Tensor]]]) -> None:
        """Take a new estimate of the diagonal into h."""
        if self.product is None:
            raise RuntimeError("sophia-h needs Hessian-vector products: call set_hessian_vector before the first step")
        every = [p for _, params, _ in trained for p in params]
        directions = self.draws(every)
        estimates = torch._foreach_mul(directions, self.product(every, directions))
        start = 0
        for group, params, _ in trained:
            part = list(estimates[start : start + len(params)])
            torch._foreach_lerp_(self.buffers(params, "hessian"), part, 1 - group["betas"][1])
            start += len(params)

    def draws(self, params: list[Tensor]) -> list[Tensor]:
        """Standard normal entries of each parameter's shape, dtype and device."""
        generator = torch.Generator()
        generator.set_state(self.param_groups[0]["generator"].cpu())
        found = [torch.randn(p.shape, generator=generator).to(p.device, p.dtype) for p in params]
        self.param_groups[0]["generator"] = generator.get_state()
        return found

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        mean = self.average(params, grads, group["betas"][0])
        scale = torch._foreach_mul(self.buffers(params, "hessian"), group["gamma"])
        torch._foreach_clamp_min_(scale, group["eps"])
        step = torch._foreach_div(mean, scale)
        torch._foreach_clamp_max_(step, 1.0)
        torch._foreach_clamp_min_(step, -1.0)
        decay(group, params)
        torch._foreach_add_(params, step, alpha=-group["lr"])
