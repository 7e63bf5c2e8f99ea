import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, decay, signs
from suite import LogUniform, Paper, optimizer

PAPER = Paper("Cautious Optimizers: Improving Training with One Line of Code", arxiv="2411.16085", year=2024)


def masked(step: list[Tensor], grads: list[Tensor]) -> None:
    """Zero the coordinates of each step that oppose the gradient, in place, and rescale the rest.

    φ = 1[u·g > 0], divided by max(mean φ, 1e-3) over the tensor.
    """
    agree = [(sign > 0).to(sign.dtype) for sign in torch._foreach_mul(step, grads)]
    shares = [mask.mean().clamp_min(1e-3) for mask in agree]
    torch._foreach_mul_(step, [mask.div_(share) for mask, share in zip(agree, shares, strict=True)])


@optimizer(
    "cautious-adamw",
    paper=PAPER,
    vmap=False,
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    space={"lr": LogUniform(3e-5, 3e-2), "weight_decay": LogUniform(1e-4, 1.0)},
)
class CautiousAdamW(ForeachOptimizer):
    """AdamW that takes only the coordinates whose step agrees in sign with the gradient.

    u = m̂/(√v̂ + ε); φ = 1[u·g > 0]/max(mean, 1e-3) for each tensor; w ← w(1 − ηλ); w ← w − η φ⊙u.
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
        step = self.adam_direction(group, params, grads)
        masked(step, grads)
        decay(group, params)
        torch._foreach_add_(params, step, alpha=-group["lr"])


@optimizer(
    "cautious-lion",
    paper=PAPER,
    system="cautious-adamw",
    vmap=False,
    defaults={"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1},
    space={"lr": LogUniform(3e-6, 3e-3), "weight_decay": LogUniform(1e-3, 10.0)},
)
class CautiousLion(ForeachOptimizer):
    """Lion that takes only the coordinates whose step agrees in sign with the gradient, as `cautious-adamw`."""

    def __init__(
        self, groups: Groups, *, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        momentum = self.buffers(params, "exp_avg")
        step = signs(list(torch._foreach_lerp(momentum, grads, 1 - group["betas"][0])))
        masked(step, grads)
        decay(group, params)
        torch._foreach_add_(params, step, alpha=-group["lr"])
        torch._foreach_lerp_(momentum, grads, 1 - group["betas"][1])
