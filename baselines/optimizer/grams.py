import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, decay
from suite import Choice, LogUniform, Paper, optimizer


@optimizer(
    "grams",
    paper=Paper("Grams: Gradient Descent with Adaptive Momentum Scaling", arxiv="2412.17107", year=2024),
    confidence="verified",
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0},
    space={"lr": LogUniform(3e-5, 3e-2), "weight_decay": Choice(0.0, 0.001, 0.01, 0.1)},
)
class Grams(ForeachOptimizer):
    """Grams: the size of Adam's step with the sign of the current gradient.

    w ← w(1 − ηλ); w ← w − η sign(g)·|m|/(√v + ε)·√(1 − β2^t)/(1 − β1^t). ε is added before the
    bias correction. Coordinates with g = 0 don't move.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        mean = self.average(params, grads, beta1)
        denominator = torch._foreach_sqrt(self.second_moment(params, grads, beta2))
        counts = self.advance(params)
        torch._foreach_add_(denominator, group["eps"])
        size = list(torch._foreach_div(torch._foreach_abs(mean), denominator))
        torch._foreach_mul_(size, torch._foreach_sign(grads))
        torch._foreach_mul_(size, [-group["lr"] * (1 - beta2**t) ** 0.5 / (1 - beta1**t) for t in counts])
        decay(group, params)
        torch._foreach_add_(params, size)
