import math

import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, Horizon, multiplier
from suite import LogUniform, Paper, optimizer

PAPER = Paper("Decoupled Weight Decay Regularization", arxiv="1711.05101", year=2017)


def shrink(params: list[Tensor], amount: float) -> None:
    """w ← w(1 − amount), in place."""
    if amount != 0:
        torch._foreach_mul_(params, 1 - amount)


@optimizer(
    "sgdw",
    paper=PAPER,
    system="adamw",
    confidence="verified",
    defaults={"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "printed": False},
    space={"lr": LogUniform(1.5e-3, 1.5), "weight_decay": LogUniform(1e-6, 1e-2)},
)
class SGDW(ForeachOptimizer):
    """SGD with momentum and decoupled weight decay.

    m ← βm + g; w ← w − η_t α m − η_t λw, where α is the base learning rate and η_t the schedule's multiplier: the
    decay is not multiplied by α. `printed` takes the paper's algorithm box instead of its code,
    m ← βm + η_t α g; w ← w − m − η_t λw, which differs only while η_t changes.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        printed: bool = False,
    ) -> None:
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, printed=printed)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        momentum = self.buffers(params, "momentum_buffer")
        torch._foreach_mul_(momentum, group["momentum"])
        torch._foreach_add_(momentum, grads, alpha=group["lr"] if group["printed"] else 1)
        shrink(params, multiplier(group) * group["weight_decay"])
        torch._foreach_add_(params, momentum, alpha=-1 if group["printed"] else -group["lr"])


@optimizer(
    "adamw-normdecay",
    paper=PAPER,
    system="adamw",
    confidence="verified",
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.025, "horizon": 10000},
    space={"lr": LogUniform(3e-5, 3e-2), "weight_decay": LogUniform(1e-3, 1.0)},
)
class AdamWNormDecay(Horizon, ForeachOptimizer):
    """AdamW as printed, with the normalised weight decay λ = λ_norm/√T of a run of T steps.

    w ← w − η_t(α m̂/(√v̂ + ε) + λw): the decay follows the schedule's multiplier η_t, not the base learning
    rate α. `weight_decay` is λ_norm; `horizon` is T until `set_horizon` says otherwise.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.025,
        horizon: float = 10000,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, horizon=horizon)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        direction = self.adam_direction(group, params, grads)
        shrink(params, multiplier(group) * group["weight_decay"] / math.sqrt(group["horizon"]))
        torch._foreach_add_(params, direction, alpha=-group["lr"])


class WarmRestarts(Horizon, ForeachOptimizer):
    """Cosine warm restarts inside the optimizer, with the normalised decay of the current cycle.

    The first cycle is `first` of the run's T steps and each next one `growth` times as long, so that
    the defaults fit three whole cycles. Within a cycle of T_i steps η_t = ½(1 + cos(π T_cur/T_i)), times the
    engine's own multiplier (the paper has no other schedule), and λ = λ_norm/√T_i.
    """

    def cycle(self, group: Group) -> tuple[float, float]:
        """(η_t, steps of the current cycle) of the group's next update."""
        group["updates"] = done = group.get("updates", -1) + 1
        length = group["first"] * group["horizon"]
        while done >= length - 1e-6:
            done -= length
            length *= group["growth"]
        return 0.5 * (1 + math.cos(math.pi * done / length)), length

    def restarted(self, group: Group, params: list[Tensor], direction: list[Tensor]) -> None:
        """w ← w − η_t(α direction + λw)."""
        factor, length = self.cycle(group)
        shrink(params, factor * multiplier(group) * group["weight_decay"] / math.sqrt(length))
        torch._foreach_add_(params, direction, alpha=-factor * group["lr"])


@optimizer(
    "adamwr",
    paper=PAPER,
    system="adamw",
    confidence="verified",
    defaults={
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.025,
        "first": 1 / 7,
        "growth": 2.0,
        "horizon": 10000,
    },
    space={"lr": LogUniform(3e-5, 3e-2), "weight_decay": LogUniform(1e-3, 1.0)},
)
class AdamWR(WarmRestarts):
    """AdamW with cosine warm restarts and normalised weight decay.

    w ← w − η_t(α m̂/(√v̂ + ε) + λw), λ = λ_norm/√T_i in a cycle of T_i steps. Cycles take 1/7, 2/7 and 4/7 of the
    run; within one η_t falls from 1 to 0 by a half cosine and multiplies the schedule's own factor
    (the paper has no other schedule). `weight_decay` is λ_norm.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.025,
        first: float = 1 / 7,
        growth: float = 2.0,
        horizon: float = 10000,
    ) -> None:
        restarts = {"first": first, "growth": growth, "horizon": horizon}
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **restarts)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        self.restarted(group, params, self.adam_direction(group, params, grads))


@optimizer(
    "sgdwr",
    paper=PAPER,
    system="adamw",
    confidence="verified",
    defaults={
        "lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 0.025,
        "first": 1 / 7,
        "growth": 2.0,
        "horizon": 10000,
    },
    space={"lr": LogUniform(1.5e-3, 1.5), "weight_decay": LogUniform(1e-3, 1.0)},
)
class SGDWR(WarmRestarts):
    """SGD with momentum, cosine warm restarts and normalised weight decay.

    m ← βm + g; w ← w − η_t(α m + λw), with cycles, η_t and λ as in `adamwr`.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.025,
        first: float = 1 / 7,
        growth: float = 2.0,
        horizon: float = 10000,
    ) -> None:
        restarts = {"first": first, "growth": growth, "horizon": horizon}
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, **restarts)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        momentum = self.buffers(params, "momentum_buffer")
        torch._foreach_mul_(momentum, group["momentum"])
        torch._foreach_add_(momentum, grads)
        self.restarted(group, params, momentum)
