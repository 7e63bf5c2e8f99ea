import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, decay
from suite import Choice, LogUniform, Paper, optimizer


@optimizer(
    "adopt",
    paper=Paper("ADOPT: Modified Adam Can Converge with Any β2 with the Optimal Rate", arxiv="2411.02853", year=2024),
    defaults={"lr": 1e-3, "betas": (0.9, 0.9999), "eps": 1e-6, "weight_decay": 0.0},
    space={"lr": LogUniform(3e-5, 3e-2), "weight_decay": Choice(0.0, 0.001, 0.01, 0.1)},
)
class ADOPT(ForeachOptimizer):
    """ADOPT: normalise by the previous second moment, then take momentum.

    The first gradient only sets v = g². After it, with t = 1, 2, …: u = g/max(√v, ε) clipped to
    ±t^(1/4); m ← β1 m + (1 − β1) u; w ← w(1 − ηλ); w ← w − ηm; v ← β2 v + (1 − β2) g².
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        seen = ["exp_avg_sq" in self.state[p] for p in params]
        for p, g in ((p, g) for p, g, known in zip(params, grads, seen, strict=True) if not known):
            self.state[p]["exp_avg_sq"] = g * g
        params = [p for p, known in zip(params, seen, strict=True) if known]
        if params:
            self.move(group, params, [g for g, known in zip(grads, seen, strict=True) if known])

    def move(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """Update parameters whose second moment has seen a gradient."""
        beta1, beta2 = group["betas"]
        bounds = [t**0.25 for t in self.advance(params)]
        denominator = torch._foreach_sqrt(self.buffers(params, "exp_avg_sq"))
        torch._foreach_clamp_min_(denominator, group["eps"])
        ratio = torch._foreach_div(grads, denominator)
        torch._foreach_clamp_min_(ratio, [-bound for bound in bounds])
        torch._foreach_clamp_max_(ratio, bounds)
        mean = self.average(params, list(ratio), beta1)
        decay(group, params)
        torch._foreach_add_(params, mean, alpha=-group["lr"])
        self.second_moment(params, grads, beta2)
