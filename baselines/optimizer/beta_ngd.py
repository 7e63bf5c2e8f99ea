from collections.abc import Callable

import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, global_norm, inverse_power, scaled
from suite import IntUniform, LogUniform, Paper, Uniform, optimizer

PAPER = Paper(
    "Generalized-Smooth Nonconvex Optimization is As Efficient As Smooth Nonconvex Optimization",
    arxiv="2303.02854",
    year=2023,
)


@optimizer(
    "beta-ngd",
    paper=PAPER,
    vmap=False,
    defaults={"lr": 0.1, "beta": 0.667, "momentum": 0.0},
    space={"lr": LogUniform(3e-3, 3.0), "beta": Uniform(0.0, 1.0), "momentum": Uniform(0.0, 0.99)},
)
class BetaNGD(ForeachOptimizer):
    """β-normalised gradient descent, w ← w − η g/‖g‖^β with the norm over all parameters.

    β = 0 is gradient descent and β = 1 normalised gradient descent. With `momentum` μ not 0 the
    average m ← μm + (1 − μ)g takes the place of g.
    """

    def __init__(self, groups: Groups, *, lr: float, beta: float = 0.667, momentum: float = 0.0) -> None:
        super().__init__(groups, lr=lr, beta=beta, momentum=momentum)

    def prepare(self, loss: Tensor | None) -> None:
        averages = [self.average(params, grads, group["momentum"]) for group, params, grads in self.trained()]
        if averages:
            self.norm = global_norm([m for average in averages for m in average])

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        direction = self.buffers(params, "exp_avg") if group["momentum"] else grads
        factor = inverse_power(self.norm, group["beta"]) * group["lr"]
        torch._foreach_sub_(params, scaled(direction, [factor] * len(direction)))


@optimizer(
    "spider",
    paper=PAPER,
    system="beta-ngd",
    passes=1.75,
    vmap=False,
    defaults={"lr": 0.02, "refresh": 4, "period": 16},
    space={"lr": LogUniform(6e-4, 0.6), "refresh": IntUniform(1, 16)},
)
class Spider(ForeachOptimizer):
    """Normalised SPIDER: a large-batch gradient, kept up to date by differences on small batches.

    A cycle is `period` steps. Its first `refresh` steps only average their gradients into v, without
    moving; the last of them moves. Each later step takes two gradients on one batch,
    v ← v + ∇f_B(w_t) − ∇f_B(w_{t−1}). Moves are w ← w − η v/‖v‖, with the norm over all parameters.
    Parameters must have gradients throughout a cycle or not at all; the loss returned is that at w_t.
    """

    needs_closure = True

    def __init__(self, groups: Groups, *, lr: float, refresh: int = 4, period: int = 16) -> None:
        if not 1 <= refresh <= period:
            raise ValueError(f"refresh must lie between 1 and period = {period}, got {refresh}")
        super().__init__(groups, lr=lr, refresh=refresh, period=period)
        self.param_groups[0]["position"] = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One step of the cycle; calls the closure once while averaging and twice after."""
        with torch.enable_grad():
            loss = closure()
        first = self.param_groups[0]
        position, first["position"] = first["position"], (first["position"] + 1) % first["period"]
        if position < first["refresh"]:
            self.collect(position + 1)
        else:
            self.correct(closure)
        if position + 1 >= first["refresh"]:
            self.move()
        return loss

    def collect(self, count: int) -> None:
        """Take the `count`-th gradient into the mean v."""
        for _, params, grads in self.trained():
            torch._foreach_lerp_(self.buffers(params, "estimate"), grads, 1 / count)

    def correct(self, closure: Callable[[], Tensor]) -> None:
        """v ← v + ∇f_B(w_t) − ∇f_B(w_{t−1}); the weights are w_t again at the end."""
        parts = [(params, [g.clone() for g in grads]) for _, params, grads in self.trained()]
        params = [p for part in parts for p in part[0]]
        here, last = [p.clone() for p in params], self.buffers(params, "last", torch.clone)
        torch._foreach_copy_(params, last)
        with torch.enable_grad():
            closure()
        there = [g for _, _, grads in self.trained() for g in grads]
        change = torch._foreach_sub([g for part in parts for g in part[1]], there)
        torch._foreach_copy_(params, here)
        torch._foreach_add_(self.buffers(params, "estimate"), change)

    def move(self) -> None:
        """w ← w − η v/‖v‖, remembering w."""
        parts = self.trained()
        if not parts:
            return
        norm = global_norm([v for _, params, _ in parts for v in self.buffers(params, "estimate")])
        for group, params, _ in parts:
            estimate = self.buffers(params, "estimate")
            torch._foreach_copy_(self.buffers(params, "last", torch.clone), params)
            step = scaled(estimate, [inverse_power(norm) * group["lr"]] * len(params))
            torch._foreach_sub_(params, step)
