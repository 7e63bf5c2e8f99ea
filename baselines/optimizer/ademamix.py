import math

import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, Horizon, decay
from suite import LogUniform, Paper, Uniform, optimizer


@optimizer(
    "ademamix",
    paper=Paper("The AdEMAMix Optimizer: Better, Faster, Older", arxiv="2409.03137", year=2024),
    confidence="verified",
    defaults={"lr": 1e-3, "betas": (0.9, 0.999, 0.9999), "alpha": 5.0, "eps": 1e-8, "weight_decay": 0.01},
    space={"lr": LogUniform(3e-5, 3e-2), "alpha": Uniform(0.0, 10.0), "weight_decay": LogUniform(1e-4, 1.0)},
)
class AdEMAMix(Horizon, ForeachOptimizer):
    """AdEMAMix: AdamW with a second, slow momentum.

    w ← w(1 − ηλ); w ← w − η (m̂ + α_t s)/(√v̂ + ε); s ← β3,t s + (1 − β3,t) g has no bias correction.
    Over the run's horizon T, α_t = α min(1, t/T) and the half-life of β3,t grows linearly from β1's
    to β3's (the authors' code; without a horizon both are at their final values).
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, alpha=alpha, eps=eps, weight_decay=weight_decay, horizon=0.0)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2, beta3 = group["betas"]
        fast, slow = self.average(params, grads, beta1), self.buffers(params, "exp_avg_slow")
        counts = self.advance(params)
        share = [min(1.0, t / group["horizon"]) if group["horizon"] else 1.0 for t in counts]
        betas = [half_life_mix(beta1, beta3, a) for a in share]
        torch._foreach_mul_(slow, betas)
        torch._foreach_add_(slow, torch._foreach_mul(grads, [1 - beta for beta in betas]))
        denominator = torch._foreach_sqrt(self.second_moment(params, grads, beta2))
        torch._foreach_div_(denominator, [(1 - beta2**t) ** 0.5 for t in counts])
        torch._foreach_add_(denominator, group["eps"])
        step = torch._foreach_div(fast, [1 - beta1**t for t in counts])
        torch._foreach_add_(step, torch._foreach_mul(slow, [group["alpha"] * a for a in share]))
        decay(group, params)
        torch._foreach_addcdiv_(params, step, denominator, -group["lr"])


def half_life_mix(start: float, end: float, share: float) -> float:
    """Decay rate whose half-life, less one step, lies at `share` between those of `start` and `end`."""

    def after_first(beta: float) -> float:
        return math.log(0.5) / math.log(beta) - 1

    if share >= 1:
        return end
    return 0.5 ** (1 / ((1 - share) * after_first(start) + share * after_first(end) + 1))
