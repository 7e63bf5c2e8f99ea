import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, global_norm, inner, multiplier, scaled
from suite import Choice, LogUniform, Paper, optimizer


@optimizer(
    "aprox-ftrl",
    paper=Paper("Generalized Implicit Follow-The-Regularized-Leader", arxiv="2306.00201", year=2023),
    confidence="partly",
    vmap=False,
    defaults={"lr": 0.1, "power": 0.0, "target": 0.0},
    space={"lr": LogUniform(3e-3, 3.0), "power": Choice(0.0, 0.25, 0.5)},
)
class AproxFTRL(ForeachOptimizer):
    """Implicit FTRL on the truncated linear model max(ℓ + ⟨g, x − x_t⟩, ℓ*) of each loss.

    With 1/λ_t = η/t^power: a = clip(λ_{t+1}[ℓ − ℓ* + ⟨g, θ_t⟩(1/λ_{t+1} − 1/λ_t)]/‖g‖², 0, 1); θ ← θ − a g;
    x = x_0 + θ/λ_{t+1}. The schedule's multiplier weighs each loss (it scales ℓ − ℓ* and g). At power 0 that is SGD
    with the step min(η, (ℓ − ℓ*)/‖g‖²); at 0.5 it is FTRL's usual decay. `target` is ℓ*.
    """

    needs_closure = True

    def __init__(self, groups: Groups, *, lr: float, power: float = 0.0, target: float = 0.0) -> None:
        super().__init__(groups, lr=lr, power=power, target=target)
        self.param_groups[0]["updates"] = 0

    def prepare(self, loss: Tensor | None) -> None:
        """The share a of this round's gradient, one number for all parameters."""
        if loss is None:
            raise TypeError("aprox-ftrl needs the loss: call step(closure)")
        first, parts = self.param_groups[0], self.trained()
        if not parts:
            return
        first["updates"] += 1
        params, grads = [p for _, ps, _ in parts for p in ps], [g for _, _, gs in parts for g in gs]
        weight, norm = multiplier(first), global_norm(grads)
        correlation = inner(grads, self.buffers(params, "dual"))
        inverse = [first["initial_lr"] * max(1, t) ** -first["power"] for t in (first["updates"], first["updates"] - 1)]
        gap = loss.to(norm.dtype) - first["target"] + correlation * (inverse[0] - inverse[1])
        share = gap / (inverse[0] * weight * norm.square())
        self.share, self.inverse = torch.where(norm * weight == 0, 0.0, share.clamp(0, 1)) * weight, inverse[0]

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        start, dual = self.buffers(params, "start", torch.clone), self.buffers(params, "dual")
        torch._foreach_sub_(dual, scaled(grads, [self.share] * len(grads)))
        torch._foreach_copy_(params, torch._foreach_add(start, dual, alpha=self.inverse))
