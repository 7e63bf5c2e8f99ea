"""What the losses share: log-probabilities at a safe precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(logits: Tensor) -> Tensor:
    """Logits in float32 at least: a loss of half-precision logits is computed, and returned, in float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """(n,) log-probabilities of the targets under softmax(logits), at most 0."""
    return -F.cross_entropy(wide(logits), targets, reduction="none")


def power_loss(log_p: Tensor, alpha: float) -> Tensor:
    """(1 - p^alpha)/alpha, which tends to -log p as alpha tends to 0."""
    return -torch.expm1(alpha * log_p) / alpha


def kept_mean(losses: Tensor, keep: Tensor) -> Tensor:
    """Mean of the losses where `keep` holds; 0 where it holds nowhere."""
    return torch.where(keep, losses, 0.0).sum() / keep.sum().clamp(min=1)
