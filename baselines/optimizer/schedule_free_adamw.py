import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups
from suite import Choice, LogUniform, Paper, optimizer


@optimizer(
    "schedule-free-adamw",
    paper=Paper("The Road Less Scheduled", arxiv="2405.15682", year=2024),
    defaults={"lr": 2.5e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
    space={"lr": LogUniform(8e-5, 8e-2), "weight_decay": Choice(0.0, 0.001, 0.01, 0.1)},
)
class ScheduleFreeAdamW(ForeachOptimizer):
    """Schedule-free AdamW: gradients at y = (1 − β1)z + β1 x, evaluation at the average x.

    u = g/(√v̂ + ε) + λy; z ← z − ηu; x ← (1 − c)x + cz, where c is the share of this step in Σ η_max²
    and η_max the largest learning rate so far (c = 1/t at constant η). It brings its own averaging
    in place of a decaying schedule. The parameters hold y in training and x between `eval` and
    `train`, which gives y back bit for bit.
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
        for group in self.param_groups:
            group.update(training=True, weight_sum=0.0, lr_max=0.0)

    @torch.no_grad()
    def eval(self) -> None:
        """Put x into the parameters, for evaluation."""
        for group in self.param_groups:
            if group["training"]:
                for p in (p for p in group["params"] if "z" in self.state[p]):
                    self.state[p]["y"] = p.clone()
                    p.lerp_(self.state[p]["z"], 1 - 1 / group["betas"][0])
                group["training"] = False

    @torch.no_grad()
    def train(self) -> None:
        """Put y back into the parameters, for training."""
        for group in self.param_groups:
            if not group["training"]:
                for p in (p for p in group["params"] if "y" in self.state[p]):
                    p.copy_(self.state[p].pop("y"))
                group["training"] = True

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        if not group["training"]:
            raise RuntimeError("schedule-free-adamw holds its evaluation weights; call train() before step()")
        beta1, beta2 = group["betas"]
        lr, share = group["lr"], self.share(group)
        last = self.buffers(params, "z", torch.clone)
        denominator = torch._foreach_sqrt(self.second_moment(params, grads, beta2))
        torch._foreach_div_(denominator, [(1 - beta2**t) ** 0.5 for t in self.advance(params)])
        torch._foreach_add_(denominator, group["eps"])
        direction = list(torch._foreach_div(grads, denominator))
        if group["weight_decay"] != 0:
            torch._foreach_add_(direction, params, alpha=group["weight_decay"])
        torch._foreach_lerp_(params, last, share)
        torch._foreach_add_(params, direction, alpha=lr * (beta1 * (1 - share) - 1))
        torch._foreach_add_(last, direction, alpha=-lr)

    @staticmethod
    def share(group: Group) -> float:
        """c of this step; 0 while every learning rate so far was 0."""
        group["lr_max"] = max(group["lr_max"], group["lr"])
        group["weight_sum"] += group["lr_max"] ** 2
        return group["lr_max"] ** 2 / group["weight_sum"] if group["weight_sum"] else 0.0
