import torch
from torch import Tensor

from baselines.optimizer._common import HIDDEN, ForeachOptimizer, Group, Groups, decay, with_companion
from baselines.optimizer._matrices import map_matrices, muon_orthogonal
from suite import Choice, LogUniform, Paper, optimizer


@optimizer(
    "muon",
    paper=Paper(
        "Muon: An optimizer for hidden layers in neural networks",
        url="https://kellerjordan.github.io/posts/muon/",
        year=2024,
    ),
    confidence="verified",
    vmap=False,
    defaults={"lr": 0.02, "adam_lr": 3e-3, "momentum": 0.95, "weight_decay": 0.0},
    space={
        "lr": LogUniform(1e-3, 0.5),
        "adam_lr": LogUniform(1e-4, 0.1),
        "weight_decay": Choice(0.0, 0.001, 0.01, 0.1),
    },
)
class Muon(ForeachOptimizer):
    """Muon: orthogonalised Nesterov momentum for hidden weights, AdamW for all others.

    Matrices and convolution kernels (as out × rest): M ← βM + (1 − β)G, N = (1 − β)G + βM,
    w ← w(1 − ηλ) − η √max(1, rows/columns)·NS₅(N), where NS₅ is five quintic Newton–Schulz
    iterations; for a kernel the ratio is that of its last two dimensions. The other roles take AdamW
    at `adam_lr` with (`adam_betas`, `eps`). The iterations run in float32 (float64 for float64
    weights), where the published code rounds to bfloat16 for speed. They are 15 small matrix
    products for each shape of weight, so that a step costs about 2 of AdamW's on a GPT of 27,000 weights,
    where a whole training step takes 5% longer than with AdamW.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        lr: float,
        adam_lr: float = 3e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "betas": adam_betas, "eps": eps}
        super().__init__(with_companion(groups, adam_lr), **defaults)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        if group["role"] not in HIDDEN:
            self.adamw(group, params, grads)
            return
        direction = self.direction(group, params, grads)
        decay(group, params)
        torch._foreach_add_(params, direction, alpha=-group["lr"])

    def direction(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """Orthogonalised and scaled momentum of the hidden weights."""
        momentum = self.buffers(params, "momentum_buffer")
        torch._foreach_lerp_(momentum, grads, 1 - group["momentum"])
        ahead = list(torch._foreach_lerp(grads, momentum, group["momentum"]))
        direction = map_matrices(ahead, muon_orthogonal)
        torch._foreach_mul_(direction, [max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5 for p in params])
        return direction
