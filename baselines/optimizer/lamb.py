import torch
from torch import Tensor

from baselines.optimizer._common import WEIGHTS, ForeachOptimizer, Group, Groups, by_role, norms, scaled
from suite import LogUniform, Paper, optimizer


@optimizer(
    "lamb",
    paper=Paper(
        "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", arxiv="1904.00962", year=2019
    ),
    vmap=False,
    defaults={"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.01},
    space={"lr": LogUniform(6e-5, 6e-2), "weight_decay": LogUniform(1e-4, 1.0)},
)
class Lamb(ForeachOptimizer):
    """LAMB: Adam's step rescaled to the norm of each weight tensor.

    u = m̂/(√v̂ + ε) + λw; w ← w − η (‖w‖/‖u‖) u, with ratio 1 where a norm is zero and, as in the
    authors' code, for norms' parameters, biases and scalars.
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
        super().__init__(by_role(groups), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        step = self.adam_direction(group, params, grads)
        if group["weight_decay"] != 0:
            torch._foreach_add_(step, params, alpha=group["weight_decay"])
        if group["role"] in WEIGHTS:
            step = scaled(step, self.trust(params, step))
        torch._foreach_add_(params, step, alpha=-group["lr"])

    @staticmethod
    def trust(params: list[Tensor], step: list[Tensor]) -> list[Tensor]:
        """‖w‖/‖u‖ of each tensor, 1 where either is zero."""
        pairs = zip(norms(params), norms(step), strict=True)
        return [torch.where((w == 0) | (u == 0), 1.0, w / u) for w, u in pairs]
