import torch
from torch import Tensor

from baselines.optimizer._common import ForeachOptimizer, Group, Groups, global_sum_abs, inner
from suite import Choice, LogUniform, Paper, optimizer


@optimizer(
    "prodigy",
    paper=Paper("Prodigy: An Expeditiously Adaptive Parameter-Free Learner", arxiv="2306.06101", year=2023),
    confidence="verified",
    vmap=False,
    defaults={"lr": 1.0, "betas": (0.9, 0.999), "eps": 1e-8, "d0": 1e-6, "d_coef": 1.0, "weight_decay": 0.0},
    space={
        "lr": LogUniform(0.03, 30.0),
        "d_coef": LogUniform(0.3, 3.0),
        "weight_decay": Choice(0.0, 0.001, 0.01, 0.1),
    },
)
class Prodigy(ForeachOptimizer):
    """Prodigy: Adam whose step size d is estimated from how far the weights have come; η stays 1.

    β3 = √β2; r ← β3 r + (d/d0) d η⟨g, w0 − w⟩; s ← β3 s + (d/d0) d η g; d' = max(d, c r/‖s‖₁), sums over
    all parameters. The moments take d g and d² g², without bias correction: w ← w(1 − dηλ);
    w ← w − d η m/(√v + d' ε). A step with η = 0 is skipped. `lr` multiplies d and `d_coef` is c.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, d0=d0, d_coef=d_coef, weight_decay=weight_decay)
        self.param_groups[0].update(d=torch.tensor(d0, dtype=torch.float64), numerator=torch.tensor(0.0))

    def prepare(self, loss: Tensor | None) -> None:
        """Advance r, s and d; `update` then uses d before and after."""
        active = [part for part in self.trained() if part[0]["lr"] != 0]
        if not active:
            return
        first, params = self.param_groups[0], active[0][1]
        kind = {"device": params[0].device, "dtype": torch.promote_types(params[0].dtype, torch.float32)}
        self.d, numerator = first["d"].to(**kind), first["numerator"].to(**kind)
        numerator = numerator * first["betas"][1] ** 0.5
        sums = []
        for group, params, grads in active:
            weight = self.d / group["d0"] * self.d * group["lr"]
            start = self.buffers(params, "start", torch.clone)
            numerator = numerator + weight * inner(grads, list(torch._foreach_sub(start, params)))
            travelled = self.buffers(params, "travelled")
            torch._foreach_mul_(travelled, group["betas"][1] ** 0.5)
            torch._foreach_add_(travelled, self.times(grads, weight))
            sums += travelled
        length = global_sum_abs(sums)
        estimate = torch.where(length == 0, 0.0, first["d_coef"] * numerator / length)
        first["d"], first["numerator"] = torch.maximum(self.d, estimate), numerator

    @staticmethod
    def times(tensors: list[Tensor], factor: Tensor) -> list[Tensor]:
        """All tensors times one 0-d factor, in their own dtypes."""
        return [t * factor.to(t.device, t.dtype) for t in tensors]

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        if group["lr"] == 0:
            return
        beta1, beta2 = group["betas"]
        scaled = self.times(grads, self.d)
        mean = self.average(params, scaled, beta1)
        denominator = torch._foreach_sqrt(self.second_moment(params, scaled, beta2))
        floor = self.param_groups[0]["d"] * group["eps"]
        torch._foreach_add_(denominator, [floor.to(t.device, t.dtype) for t in denominator])
        step = self.times(list(torch._foreach_div(mean, denominator)), self.d * group["lr"])
        if group["weight_decay"] != 0:
            torch._foreach_add_(step, self.times(params, self.d * group["lr"] * group["weight_decay"]))
        torch._foreach_sub_(params, step)
