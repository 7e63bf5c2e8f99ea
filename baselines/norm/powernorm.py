from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from baselines.norm.common import Affine, per_channel, positions
from suite import Paper, Uniform, norm


class PowerScale(torch.autograd.Function):
    """x/√(psi + eps), with the approximate gradient of a running quadratic mean."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, psi: Tensor, batch: Tensor, nu: Tensor, eps: float, keep: float) -> Tensor:
        y = x * per_channel((psi + eps).rsqrt(), x)
        ctx.nu, ctx.keep = nu, keep
        ctx.save_for_backward(y, (batch + eps).rsqrt())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, scale = ctx.saved_tensors
        corrected = grad - (1 - ctx.keep) * per_channel(ctx.nu, y) * y
        ctx.nu.add_((corrected * y).mean(positions(y)))
        return corrected * per_channel(scale, y), None, None, None, None, None


@norm(
    "powernorm",
    paper=Paper("PowerNorm: Rethinking Batch Normalization in Transformers", arxiv="2003.07845", year=2020),
    defaults={"warmup": 0.1, "groups": 1, "momentum": 0.9, "eps": 1e-5},
    space={"warmup": Uniform(0.0, 0.5)},
    families=("vision", "language"),
    confidence="verified",
    surrogate=True,
    vmap=False,
    compiles=False,
)
class PowerNorm(Affine):
    """Channels divided by a running root mean square over batch and places; no mean is taken off.

    While the share `warmup` of the budget is not used up, the batch's quadratic mean
    divides and the running one psi is also kept as a plain average. Later psi from
    before the step divides. The backward pass does not go through psi; it carries the
    running correlation nu of gradient and output instead. First, every token is divided
    by the root mean square of each of `groups` channel groups.

    Statistics run over time, so a token sees its future in training, as with batch
    normalisation.
    """

    psi: Tensor
    nu: Tensor
    steps: Tensor

    def __init__(
        self, features: int, warmup: float = 0.1, groups: int = 1, momentum: float = 0.9, eps: float = 1e-5
    ) -> None:
        super().__init__(features)
        if features % groups:
            raise ValueError(f"{groups} groups do not divide {features} features")
        self.warmup, self.groups, self.momentum, self.eps = warmup, groups, momentum, eps
        self.progress = self.increment = 0.0
        self.register_buffer("psi", torch.ones(features))
        self.register_buffer("nu", torch.zeros(features))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def set_progress(self, fraction: float) -> None:
        """Share of the budget used before the step to come."""
        self.increment = fraction - self.progress
        self.progress = fraction

    def forward(self, x: Tensor) -> Tensor:
        x = self._group_scaled(x)
        if not self.training:
            return self.affine(x * per_channel((self.psi + self.eps).rsqrt(), x))
        batch = x.detach().square().mean(positions(x))
        psi = batch if self.progress < self.warmup else self.psi
        scaled = PowerScale.apply(x, psi, batch, self.nu, self.eps, self.momentum)
        self._update(batch)
        return self.affine(scaled)

    @torch.no_grad()
    def _update(self, batch: Tensor) -> None:
        self.steps += 1
        if self.progress + 1.5 * self.increment < self.warmup:  # half a step clear of the last one's rounding
            self.psi += (batch - self.psi) / self.steps
        self.psi.lerp_(batch, 1 - self.momentum)

    def _group_scaled(self, x: Tensor) -> Tensor:
        dim = 1 if x.ndim == 4 else x.ndim - 1
        grouped = x.unflatten(dim, (self.groups, -1))
        mean_square = grouped.square().mean(dim + 1, keepdim=True)
        return (grouped * (mean_square + self.eps).rsqrt()).flatten(dim, dim + 1)
