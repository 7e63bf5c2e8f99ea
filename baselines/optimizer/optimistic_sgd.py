import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups
from suite import LogUniform, Paper, optimizer


@optimizer(
    "optimistic-sgd",
    paper=Paper("Training GANs with Optimism", arxiv="1711.00141", year=2017),
    families=("vision", "pde"),
    defaults={"lr": 0.1},
    space={"lr": LogUniform(1e-3, 3.0)},
)
class OptimisticSGD(ForeachOptimizer):
    """Optimistic gradient descent, w ← w − η(2g_t − g_{t−1}), with g_0 = g_1 (a plain first step)."""

    def __init__(self, groups: Groups, *, lr: float) -> None:
        super().__init__(groups, lr=lr)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        for p, g in zip(params, grads, strict=True):
            self.state[p].setdefault("last_grad", g)
        last = self.buffers(params, "last_grad")
        torch._foreach_add_(params, grads, alpha=-2 * group["lr"])
        torch._foreach_add_(params, last, alpha=group["lr"])
        for p, g in zip(params, grads, strict=True):
            self.state[p]["last_grad"] = g.clone()
