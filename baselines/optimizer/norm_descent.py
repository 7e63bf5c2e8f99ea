import torch
from torch import Tensor

from baselines.optimizer._common import (
    ForeachOptimizer,
    Group,
    Groups,
    by_role,
    global_sum_abs,
    inner,
    inverse_power,
    norms,
    scaled,
    signs,
)
from baselines.optimizer._matrices import map_matrices, polar_factor
from suite import LogUniform, Paper, Uniform, optimizer

PAPER = Paper("Old Optimizer, New Norm: An Anthology", arxiv="2409.20325", year=2024)
MOMENTUM = Uniform(0.0, 0.99)


class NormDescent(ForeachOptimizer):
    """Steepest descent under a norm of each tensor, without the factor of the dual norm.

    w ← w − ηT, T the unit-norm tensor most aligned with the gradient, or with its average
    m ← βm + (1 − β)g where `momentum` β isn't 0. A subclass gives T.
    """

    def __init__(self, groups: Groups, *, lr: float, momentum: float = 0.0) -> None:
        super().__init__(by_role(groups), lr=lr, momentum=momentum)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        direction = self.direction(group, self.average(params, grads, group["momentum"]))
        torch._foreach_add_(params, direction, alpha=-group["lr"])

    def direction(self, group: Group, grads: list[Tensor]) -> list[Tensor]:
        """T of each gradient, as new tensors."""
        raise NotImplementedError


@optimizer(
    "sign-descent",
    paper=PAPER,
    system="norm-dual-descent",
    defaults={"lr": 3e-4, "momentum": 0.0},
    space={"lr": LogUniform(1e-5, 1e-2), "momentum": MOMENTUM},
)
class SignDescent(NormDescent):
    """Sign descent, w ← w − η sign(g): steepest descent in the max norm, and Adam without averages."""

    def direction(self, group: Group, grads: list[Tensor]) -> list[Tensor]:
        return signs(grads)


@optimizer(
    "spectral-descent",
    paper=PAPER,
    system="norm-dual-descent",
    vmap=False,
    defaults={"lr": 0.01, "momentum": 0.0},
    space={"lr": LogUniform(3e-4, 0.3), "momentum": MOMENTUM},
)
class SpectralDescent(NormDescent):
    """Spectral descent, w ← w − η UVᵀ for G = UΣVᵀ: Shampoo without accumulation.

    Kernels are (out × rest); vectors are one-column matrices, whose UVᵀ is g/‖g‖. The 14 Newton–Schulz
    iterations on every weight make a step cost about 3 of AdamW's on a GPT of 27,000 weights, where a
    whole training step takes 16% longer than with AdamW.
    """

    def direction(self, group: Group, grads: list[Tensor]) -> list[Tensor]:
        vectors = [i for i, g in enumerate(grads) if g.ndim < 2]
        result = list(grads)
        for i, unit in zip(vectors, unit_norm([grads[i] for i in vectors]), strict=True):
            result[i] = unit
        weights = [i for i, g in enumerate(grads) if g.ndim >= 2]
        for i, polar in zip(weights, map_matrices([grads[i] for i in weights], polar_factor), strict=True):
            result[i] = polar
        return result


@optimizer(
    "modular-descent",
    paper=PAPER,
    system="norm-dual-descent",
    vmap=False,
    defaults={"lr": 0.01, "momentum": 0.0},
    space={"lr": LogUniform(3e-4, 0.3), "momentum": MOMENTUM},
)
class ModularDescent(NormDescent):
    """Modular descent: each kind of layer in its own operator norm.

    Matrices, the head and kernels (out × rest): −η √(d_out/d_in) UVᵀ, the RMS→RMS norm; embeddings: each
    token's row −η √d_out g/‖g‖, the ℓ1→RMS norm (rows with no gradient stay); vectors: −η g/RMS(g). The 14
    Newton–Schulz iterations make a step cost about 3 of AdamW's on a GPT of 27,000 weights, where a whole
    training step takes 13% longer than with AdamW.
    """

    def direction(self, group: Group, grads: list[Tensor]) -> list[Tensor]:
        if group["role"] == "embedding":
            return [unit_rows(g) * g.shape[-1] ** 0.5 for g in grads]
        result = list(grads)
        vectors = [i for i, g in enumerate(grads) if g.ndim < 2]
        for i, unit in zip(vectors, unit_norm([grads[i] for i in vectors]), strict=True):
            result[i] = unit * unit.numel() ** 0.5
        weights = [i for i, g in enumerate(grads) if g.ndim >= 2]
        for i, polar in zip(weights, map_matrices([grads[i] for i in weights], polar_factor), strict=True):
            result[i] = polar * (polar.shape[0] ** 2 / polar.numel()) ** 0.5
        return result


def unit_norm(tensors: list[Tensor]) -> list[Tensor]:
    """Each tensor over its Euclidean norm; zero stays zero."""
    return scaled(tensors, [inverse_power(norm) for norm in norms(tensors)])


def unit_rows(matrix: Tensor) -> Tensor:
    """Each row over its Euclidean norm; zero rows stay zero."""
    return matrix * inverse_power(torch.linalg.vector_norm(matrix, dim=-1, keepdim=True))


@optimizer(
    "prodigy-noema",
    paper=PAPER,
    system="norm-dual-descent",
    vmap=False,
    defaults={"lr": 1.0, "d0": 1e-6},
    space={"lr": LogUniform(0.03, 30.0)},
)
class ProdigyNoEMA(ForeachOptimizer):
    """Sign descent with a step size that grows: Prodigy without averages.

    d_t = max(d_{t−1}, ⟨g_t, w_0 − w_t⟩/‖g_t‖₁) over all parameters, from d0; w ← w − η d_t sign(g_t). `lr` stays 1.
    """

    def __init__(self, groups: Groups, *, lr: float = 1.0, d0: float = 1e-6) -> None:
        super().__init__(groups, lr=lr)
        self.param_groups[0]["d"] = torch.tensor(d0, dtype=torch.float64)

    def prepare(self, loss: Tensor | None) -> None:
        parts = self.trained()
        grads = [g for part in parts for g in part[2]]
        if not grads:
            return
        params = [p for part in parts for p in part[1]]
        way = torch._foreach_sub(self.buffers(params, "start", torch.clone), params)
        length = global_sum_abs(grads)
        estimate = torch.where(length == 0, 0.0, inner(grads, list(way)) / length)
        first = self.param_groups[0]
        first["d"] = torch.maximum(first["d"].to(estimate.device, estimate.dtype), estimate)

    def update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        size = self.param_groups[0]["d"] * group["lr"]
        torch._foreach_sub_(params, [s * size.to(s.device, s.dtype) for s in signs(grads)])
