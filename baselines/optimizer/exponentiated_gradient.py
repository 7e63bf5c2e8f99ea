import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, decay
from suite import Choice, LogUniform, Paper, optimizer

PAPER = Paper(
    "Brain-like learning with exponentiated gradients", url="https://doi.org/10.1101/2024.10.25.620272", year=2024
)


def multiply(params: list[Tensor], direction: list[Tensor], lr: float) -> None:
    """w ← w·exp(−η sign(w) d), in place."""
    exponent = torch._foreach_mul(torch._foreach_sign(params), direction)
    torch._foreach_mul_(exponent, -lr)
    torch._foreach_mul_(params, torch._foreach_exp(exponent))


@optimizer(
    "sgd-eg",
    paper=PAPER,
    system="egd",
    confidence="verified",
    defaults={"lr": 0.3, "momentum": 0.9, "weight_decay": 0.0},
    space={"lr": LogUniform(0.01, 10.0), "weight_decay": Choice(0.0, 1e-5, 1e-4, 1e-3)},
)
class SGDEG(ForeachOptimizer):
    """Exponentiated gradient with momentum: weights change by factors and never change sign.

    g ← g + λ sign(w); m ← βm + g; w ← w·exp(−η sign(w) m). Exact zeros stay zero, so that a bias that starts
    at 0 isn't trained (the authors split each bias into a positive and a negative part).
    """

    def __init__(self, groups: Groups, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        momentum = self.buffers(params, "momentum_buffer")
        torch._foreach_mul_(momentum, group["momentum"])
        torch._foreach_add_(momentum, grads)
        if group["weight_decay"] != 0:
            torch._foreach_add_(momentum, torch._foreach_sign(params), alpha=group["weight_decay"])
        multiply(params, momentum, group["lr"])


@optimizer(
    "adamw-eg",
    paper=PAPER,
    system="egd",
    confidence="verified",
    defaults={"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    space={"lr": LogUniform(3e-4, 0.3), "weight_decay": LogUniform(1e-4, 1.0)},
)
class AdamWEG(ForeachOptimizer):
    """AdamW with exponentiated steps: w ← w(1 − ηλ); w ← w·exp(−η sign(w) m̂/(√v̂ + ε)).

    Weights never change sign and exact zeros stay zero, as in `sgd-eg`.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        direction = self.adam_direction(group, params, grads)
        decay(group, params)
        multiply(params, direction, group["lr"])


@optimizer(
    "sign-constrained-gd",
    paper=PAPER,
    system="egd",
    confidence="verified",
    defaults={"lr": 0.1, "momentum": 0.9},
    space={"lr": LogUniform(1e-3, 3.0)},
)
class SignConstrainedGD(ForeachOptimizer):
    """SGD with momentum whose weights keep their signs.

    m ← βm + g; w' = w − ηm; a weight that would cross or reach zero is set to sign(w)·1e-18 instead. A weight
    of exactly zero is free to move.
    """

    def __init__(self, groups: Groups, *, lr: float, momentum: float = 0.9) -> None:
        super().__init__(groups, lr=lr, momentum=momentum)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        momentum = self.buffers(params, "momentum_buffer")
        torch._foreach_mul_(momentum, group["momentum"])
        torch._foreach_add_(momentum, grads)
        signs = torch._foreach_sign(params)
        torch._foreach_add_(params, momentum, alpha=-group["lr"])
        for p, sign in zip(params, signs, strict=True):
            p.copy_(torch.where((sign * p <= 0) & (sign != 0), sign * 1e-18, p))
