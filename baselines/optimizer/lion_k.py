import math

import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, decay, signs
from suite import LogUniform, Paper, Uniform, optimizer

PAPER = Paper("Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts", arxiv="2310.05898", year=2023)
DECAYS = LogUniform(1e-3, 10.0)


class LionK(ForeachOptimizer):
    """Lion-K: Lion with the gradient of a convex function K in place of the sign.

    w ← w(1 − ηλ); w ← w − η ∇K(β1 m + (1 − β1) g); m ← β2 m + (1 − β2) g. A subclass gives ∇K, of each tensor.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **shape: float,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay, **shape)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        momentum = self.buffers(params, "exp_avg")
        direction = self.gradient_of_k(group, list(torch._foreach_lerp(momentum, grads, 1 - beta1)))
        decay(group, params)
        torch._foreach_add_(params, direction, alpha=-group["lr"])
        torch._foreach_lerp_(momentum, grads, 1 - beta2)

    def gradient_of_k(self, group: Group, x: list[Tensor]) -> list[Tensor]:
        """∇K of each tensor; `x` may be overwritten."""
        raise NotImplementedError


@optimizer(
    "lion-k-lp",
    paper=PAPER,
    system="lion",
    vmap=False,
    defaults={"lr": 2e-3, "betas": (0.9, 0.99), "weight_decay": 0.01, "p": 1.5},
    space={"lr": LogUniform(6e-5, 6e-2), "weight_decay": DECAYS, "p": Uniform(1.0, 2.0)},
)
class LionKLp(LionK):
    """Lion-K with K = ‖x‖_p: ∇K = sign(x)|x|^(p−1)/‖x‖_p^(p−1). p = 1 is Lion, p = 2 normalised momentum."""

    def gradient_of_k(self, group: Group, x: list[Tensor]) -> list[Tensor]:
        return [self.lp(t, group["p"] - 1) for t in x]

    @staticmethod
    def lp(x: Tensor, power: float) -> Tensor:
        """sign(x)(|x|/‖x‖)^power in the norm of order power + 1; 0 for x = 0."""
        size = x.abs().to(torch.promote_types(x.dtype, torch.float32))
        largest = size.max() if size.numel() else size.sum()
        share = size / torch.where(largest > 0, largest, 1.0)
        norm = share.pow(power + 1).sum().pow(1 / (power + 1))
        return x.sign() * (share / torch.where(largest > 0, norm, 1.0)).pow(power).to(x.dtype)


@optimizer(
    "lion-k-threshold",
    paper=PAPER,
    system="lion",
    defaults={"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1, "threshold": 1e-5},
    space={"lr": LogUniform(3e-6, 3e-3), "weight_decay": DECAYS, "threshold": LogUniform(1e-8, 1e-2)},
)
class LionKThreshold(LionK):
    """Lion-K with K = Σ max(|x| − e, 0): the sign where |x| > e, else no move."""

    def gradient_of_k(self, group: Group, x: list[Tensor]) -> list[Tensor]:
        return [s.masked_fill_(t.abs() <= group["threshold"], 0) for s, t in zip(signs(x), x, strict=True)]


@optimizer(
    "lion-k-topk",
    paper=PAPER,
    system="lion",
    vmap=False,
    defaults={"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1, "share": 0.1},
    space={"lr": LogUniform(3e-6, 3e-3), "weight_decay": DECAYS, "share": Uniform(0.01, 1.0)},
)
class LionKTopK(LionK):
    """Lion-K with K the sum of the k largest |x|: the sign there, else no move.

    k is `share` of each tensor's entries, rounded up.
    """

    def gradient_of_k(self, group: Group, x: list[Tensor]) -> list[Tensor]:
        return [self.top(t, s, group["share"]) for t, s in zip(x, signs(x), strict=True)]

    @staticmethod
    def top(x: Tensor, sign: Tensor, share: float) -> Tensor:
        """`sign` on the ⌈share·n⌉ entries of largest |x|, 0 elsewhere."""
        flat = x.flatten()
        kept = flat.abs().topk(math.ceil(share * flat.numel() - 1e-9)).indices
        return torch.zeros_like(flat).index_copy_(0, kept, sign.flatten()[kept]).view(x.shape)


@optimizer(
    "lion-k-huber",
    paper=PAPER,
    system="lion",
    defaults={"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1, "threshold": 1e-4},
    space={"lr": LogUniform(3e-6, 3e-3), "weight_decay": DECAYS, "threshold": LogUniform(1e-8, 1e-2)},
)
class LionKHuber(LionK):
    """Lion-K with K the Huber function: clip(x/e, −1, 1), the sign where |x| ≥ e and linear below."""

    def gradient_of_k(self, group: Group, x: list[Tensor]) -> list[Tensor]:
        torch._foreach_div_(x, group["threshold"])
        torch._foreach_clamp_min_(x, -1.0)
        torch._foreach_clamp_max_(x, 1.0)
        return x
