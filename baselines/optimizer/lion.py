import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, decay, signs
from suite import LogUniform, Paper, optimizer


@optimizer(
    "lion",
    paper=Paper("Symbolic Discovery of Optimization Algorithms", arxiv="2302.06675", year=2023),
    confidence="verified",
    defaults={"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1},
    space={"lr": LogUniform(3e-6, 3e-3), "weight_decay": LogUniform(1e-3, 10.0)},
)
class Lion(ForeachOptimizer):
    """Lion: the sign of an interpolated momentum, with decoupled decay.

    w ← w(1 − ηλ); w ← w − η sign(β1 m + (1 − β1) g); m ← β2 m + (1 − β2) g. It minimises the loss
    in the box |w| ≤ 1/λ (arXiv 2310.05898). η is 3 to 10 times below AdamW's, λ as much above.
    """

    def __init__(
        self, groups: Groups, *, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        momentum = self.buffers(params, "exp_avg")
        direction = list(torch._foreach_lerp(momentum, grads, 1 - beta1))
        decay(group, params)
        torch._foreach_add_(params, signs(direction), alpha=-group["lr"])
        torch._foreach_lerp_(momentum, grads, 1 - beta2)
