import torch
from torch import Tensor

from baselines.optimizer._common import (
    WEIGHTS,
    ForeachOptimizer,
    Group,
    Groups,
    norms,
    scaled,
    with_companion,
)
from suite import Choice, LogUniform, Paper, optimizer


@optimizer(
    "mars",
    paper=Paper(
        "MARS: Unleashing the Power of Variance Reduction for Training Large Models", arxiv="2411.10438", year=2024
    ),
    confidence="verified",
    vmap=False,
    defaults={"lr": 3e-3, "adam_lr": 3e-3, "betas": (0.95, 0.99), "gamma": 0.025, "weight_decay": 0.0},
    space={
        "lr": LogUniform(1e-4, 0.1),
        "adam_lr": LogUniform(1e-4, 0.1),
        "weight_decay": Choice(0.0, 0.001, 0.01, 0.1),
    },
)
class Mars(ForeachOptimizer):
    """MARS-AdamW, approximate form: AdamW on a gradient corrected by its change since the last step.

    c = g_t + γ β1/(1 − β1)·(g_t − g_{t−1}), divided by ‖c‖ where that exceeds 1, tensor by tensor; AdamW
    on c. g_{t−1} is the previous batch's gradient, zero at first. Norms' parameters, biases and
    scalars take AdamW at `adam_lr` with `adam_betas`, as in the authors' code.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        adam_lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.99),
        gamma: float = 0.025,
        weight_decay: float = 0.0,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        parts = with_companion(groups, adam_lr, WEIGHTS)
        parts = [g if g["role"] in WEIGHTS else {"betas": adam_betas, **g} for g in parts]
        super().__init__(parts, lr=lr, betas=betas, gamma=gamma, weight_decay=weight_decay, eps=eps)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        self.adamw(group, params, self.corrected(group, params, grads) if group["role"] in WEIGHTS else grads)

    def corrected(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """c of each weight; remembers the gradients for the next step."""
        beta1, last = group["betas"][0], self.buffers(params, "last_grad")
        change = torch._foreach_sub(grads, last)
        torch._foreach_mul_(change, group["gamma"] * beta1 / (1 - beta1))
        torch._foreach_add_(change, grads)
        torch._foreach_copy_(last, grads)
        return scaled(list(change), [norm.clamp_min(1).reciprocal() for norm in norms(list(change))])
