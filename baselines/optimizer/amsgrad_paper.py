import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups
from suite import LogUniform, Paper, optimizer

PAPER = Paper("On the Convergence of Adam and Beyond", arxiv="1904.09237", year=2019)


def ratio(mean: list[Tensor], square: list[Tensor]) -> list[Tensor]:
    """m/√v of each tensor, 0 where v = 0."""
    quotient = torch._foreach_div(mean, torch._foreach_sqrt(square))
    return [q.masked_fill_(v == 0, 0) for q, v in zip(quotient, square, strict=True)]


@optimizer(
    "amsgrad-paper",
    paper=PAPER,
    system="amsgrad",
    defaults={"lr": 1e-3, "betas": (0.9, 0.99)},
    space={"lr": LogUniform(3e-5, 3e-2)},
)
class AMSGradPaper(ForeachOptimizer):
    """AMSGrad as printed: no bias correction and no ε.

    m ← β1 m + (1 − β1) g; v ← β2 v + (1 − β2) g²; v̂ ← max(v̂, v); w ← w − η m/√v̂, with 0/0 = 0.
    """

    def __init__(self, groups: Groups, *, lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(groups, lr=lr, betas=betas)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        mean = self.average(params, grads, beta1)
        largest = self.buffers(params, "max_exp_avg_sq")
        torch._foreach_maximum_(largest, self.second_moment(params, grads, beta2))
        torch._foreach_add_(params, ratio(mean, largest), alpha=-group["lr"])


@optimizer(
    "adamnc",
    paper=PAPER,
    system="amsgrad",
    defaults={"lr": 1e-3, "beta1": 0.9, "gamma": 0.99999999},
    space={"lr": LogUniform(3e-5, 3e-2)},
)
class AdamNC(ForeachOptimizer):
    """AdamNC: Adam with β2 rising to 1, so that v is the plain mean of all squared gradients.

    m ← β1,t m + (1 − β1,t) g with β1,t = β1 γ^(t−1); v ← v + (g² − v)/t; w ← w − η m/√v, with
    0/0 = 0 and a constant η (the paper's analysis divides it by √t, which is a schedule's part).
    """

    def __init__(self, groups: Groups, *, lr: float, beta1: float = 0.9, gamma: float = 0.99999999) -> None:
        super().__init__(groups, lr=lr, beta1=beta1, gamma=gamma)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        mean, square = self.buffers(params, "exp_avg"), self.buffers(params, "exp_avg_sq")
        counts = self.advance(params)
        betas = [group["beta1"] * group["gamma"] ** (t - 1) for t in counts]
        torch._foreach_mul_(mean, betas)
        torch._foreach_add_(mean, torch._foreach_mul(grads, [1 - beta for beta in betas]))
        torch._foreach_mul_(square, [1 - 1 / t for t in counts])
        torch._foreach_add_(square, torch._foreach_div(torch._foreach_mul(grads, grads), [float(t) for t in counts]))
        torch._foreach_add_(params, ratio(mean, square), alpha=-group["lr"])
