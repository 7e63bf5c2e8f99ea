import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups
from suite import Choice, LogUniform, Paper, optimizer

PAPER = Paper("Random Scaling and Momentum for Non-smooth Non-convex Optimization", arxiv="2405.09742", year=2024)


class RandomScaling(ForeachOptimizer):
    """Multiplies each step by one scalar s ~ Exp(1), shared by all parameters.

    Draws come from a generator of its own whose state is kept in the first group, so that data order
    and dropout are as without it and a state dict continues the stream.
    """

    def __init__(self, groups: Groups, *, seed: int, **defaults: object) -> None:
        super().__init__(groups, **defaults)
        self.param_groups[0]["generator"] = torch.Generator().manual_seed(seed).get_state()

    def prepare(self, loss: Tensor | None) -> None:
        generator = torch.Generator()
        generator.set_state(self.param_groups[0]["generator"].cpu())
        self.scale = torch.empty((), dtype=torch.float64).exponential_(generator=generator).item()
        self.param_groups[0]["generator"] = generator.get_state()

    def move(self, group: Group, params: list[Tensor], direction: list[Tensor]) -> None:
        """w ← w − sη(direction + λw)."""
        size = self.scale * group["lr"]
        if group["weight_decay"] != 0:
            torch._foreach_mul_(params, 1 - size * group["weight_decay"])
        torch._foreach_add_(params, direction, alpha=-size)


@optimizer(
    "sgdm-exp",
    paper=PAPER,
    system="random-scaling",
    confidence="verified",
    vmap=False,
    defaults={"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "seed": 0},
    space={"lr": LogUniform(3e-3, 10.0), "weight_decay": Choice(0.0, 0.001, 0.01, 0.1)},
)
class SGDMExp(RandomScaling):
    """SGD with momentum and exponential random scaling of the step.

    m ← βm + (1 − β)g; s ~ Exp(1), one draw a step; w ← w − sη(m + λw).
    """

    def __init__(
        self, groups: Groups, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, seed=seed)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        self.move(group, params, self.average(params, grads, group["momentum"]))


@optimizer(
    "adamw-exp",
    paper=PAPER,
    system="random-scaling",
    confidence="verified",
    vmap=False,
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "seed": 0},
    space={"lr": LogUniform(3e-5, 3e-2), "weight_decay": LogUniform(1e-4, 1.0)},
)
class AdamWExp(RandomScaling):
    """AdamW with exponential random scaling of the step: w ← w − sη(m̂/(√v̂ + ε) + λw), s ~ Exp(1) once a step."""

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, seed=seed)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        self.move(group, params, self.adam_direction(group, params, grads))
