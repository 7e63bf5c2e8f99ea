import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, norms, scaled
from suite import LogUniform, Paper, optimizer

PAPER = Paper("Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", arxiv="1804.04235", year=2018)


def rms(tensors: list[Tensor]) -> list[Tensor]:
    """Root mean square of each tensor, 0-d."""
    return list(torch._foreach_div(norms(tensors), [max(1, t.numel()) ** 0.5 for t in tensors]))


@optimizer(
    "adafactor",
    paper=PAPER,
    confidence="verified",
    vmap=False,
    defaults={"lr": 0.01},
    space={"lr": LogUniform(3e-4, 0.3)},
)
class Adafactor(ForeachOptimizer):
    """Adafactor: row and column statistics in place of the second moment, steps relative to the weights.

    β2_t = 1 − t^(−0.8); R and C average the row and column means of G² + ε1 over the last two
    dimensions (vectors keep all of G² + ε1); U = G/√(RCᵀ/mean R); Û = U/max(1, RMS(U)/d);
    ρ_t = min(η, 1/√t); w ← w − max(ε2, RMS(w)) ρ_t Û. `lr` is the cap η of the relative step.
    Statistics are kept in at least float32.
    """

    beta1 = 0.0

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip: float = 1.0,
        exponent: float = 0.8,
    ) -> None:
        super().__init__(groups, lr=lr, eps=eps, clip=clip, exponent=exponent)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        counts = self.advance(params)
        keep = [1 - t ** -group["exponent"] for t in counts]
        wide = [g.to(torch.promote_types(g.dtype, torch.float32)) for g in grads]
        squares = torch._foreach_add(torch._foreach_mul(wide, wide), group["eps"][0])
        step = [g * self.inverse_root(p, s, k) for p, g, s, k in zip(params, wide, squares, keep, strict=True)]
        size = torch._foreach_clamp_min(rms(params), group["eps"][1])
        torch._foreach_mul_(size, [min(group["lr"], t**-0.5) for t in counts])
        excess = torch._foreach_clamp_min(torch._foreach_div(rms(step), group["clip"]), 1.0)
        step = scaled(step, list(torch._foreach_div(size, excess)))
        if self.beta1:
            step = self.smoothed(params, step)
        torch._foreach_sub_(params, [s.to(p.dtype) for s, p in zip(step, params, strict=True)])

    def inverse_root(self, p: Tensor, square: Tensor, keep: float) -> Tensor:
        """Take in G² + ε1 of one parameter and return 1/√V̂ in its shape."""
        state = self.state[p]
        if p.ndim < 2:
            return self.mean_of(state, "exp_avg_sq", square, keep).rsqrt()
        row = self.mean_of(state, "row", square.mean(-1, keepdim=True), keep)
        column = self.mean_of(state, "column", square.mean(-2, keepdim=True), keep)
        return (row / row.mean(-2, keepdim=True)).rsqrt() * column.rsqrt()

    @staticmethod
    def mean_of(state: dict[str, Tensor], name: str, value: Tensor, keep: float) -> Tensor:
        """Running mean `name`, which gives `keep` to its past."""
        state[name] = value if name not in state else state[name].lerp_(value, 1 - keep)
        return state[name]

    def smoothed(self, params: list[Tensor], step: list[Tensor]) -> list[Tensor]:
        """Average of the scaled and clipped steps, from zero."""
        momentum = self.buffers(params, "exp_avg", lambda p: torch.zeros_like(p, dtype=step[0].dtype))
        torch._foreach_lerp_(momentum, step, 1 - self.beta1)
        return momentum


@optimizer(
    "adafactor-momentum",
    paper=PAPER,
    system="adafactor",
    confidence="verified",
    vmap=False,
    defaults={"lr": 0.01},
    space={"lr": LogUniform(3e-4, 0.3)},
)
class AdafactorMomentum(Adafactor):
    """Adafactor with first moment: the scaled and clipped step is averaged with β1 = 0.9 before it is taken."""

    beta1 = 0.9
