from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from baselines.block.common import matched_width
from baselines.block.ffn import FeedForward
from suite import LogUniform, Paper, Uniform, block
from suite.train.roles import mark

GATESKIP = Paper(
    "What Layers When: Learning to Skip Compute in LLMs with Residual Gates", arxiv="2510.13876", year=2025
)
MOMENTUM = 0.1  # of the thresholds that evaluation uses


class _GatedFeedForward(nn.Module):
    """Plain feed-forward block times a gate σ(W x + b) of its input, one value a channel.

    W starts as N(0, 0.01²) and b at 5, so that the gate starts near 1.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for.
    activation : makes the activation for a number of channels.
    matched : scale `hidden` so that the parameters, the gate's included, equal the plain block's.
    """

    def __init__(
        self, features: int, hidden: int, activation: Callable[[int], nn.Module], matched: bool = True
    ) -> None:
        super().__init__()
        if matched:
            fixed = features + features * (features + 1)
            hidden = matched_width(features, hidden, each=2 * features + 1, fixed=fixed)
        self.block = FeedForward(features, hidden, activation)
        self.gate = nn.Linear(features, features)
        nn.init.normal_(self.gate.weight, std=0.01)
        nn.init.constant_(self.gate.bias, 5.0)
        mark(self.gate, "other")

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * self.gate(x).sigmoid()


@block(
    "gateres",
    paper=GATESKIP,
    system="gateskip",
    defaults={"matched": True},
    families=("language",),
    confidence="partly",
)
class GateRes(_GatedFeedForward):
    """Feed-forward block times σ(W x + b), GateSkip's residual gate at full compute, at the plain block's parameters.

    The paper gates the attention branch as well and reads the residual stream; here
    the gate reads the block's own input, which is normalised where the model
    normalises it.
    """


@block(
    "gateskip",
    paper=GATESKIP,
    defaults={"budget": 0.8, "sparsity": 0.1, "matched": True},
    space={"budget": Uniform(0.5, 1.0), "sparsity": LogUniform(1e-3, 1.0)},
    families=("language",),
    confidence="partly",
    vmap=False,
)
class GateSkip(_GatedFeedForward):
    """Gated feed-forward block that leaves out the tokens with the smallest gates, at the plain block's parameters.

    A token whose mean gate is at or below the (1 - budget)-quantile of the batch's
    passes the block by; the budget falls linearly from 1 to `budget` over training.
    Evaluation compares with the running mean of training's thresholds instead, so
    that a prediction depends on nothing but its past. The loss gains
    `sparsity` · mean over tokens of ‖gate‖₂/features. Skipped tokens are computed and
    masked: the saving of compute is not realised.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : hidden channels of the plain block it stands for.
    activation : makes the activation for a number of channels.
    budget : share of tokens that the block works on at the end of training.
    sparsity : weight of the gates' size in the loss.
    matched : scale `hidden` so that the parameters, the gate's included, equal the plain block's.
    """

    threshold: Tensor

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module],
        budget: float = 0.8,
        sparsity: float = 0.1,
        matched: bool = True,
    ) -> None:
        super().__init__(features, hidden, activation, matched)
        self.final, self.budget, self.sparsity = budget, 1.0, sparsity
        self.register_buffer("threshold", torch.zeros(()))
        self.size: Tensor | None = None

    def set_progress(self, progress: float) -> None:
        """Take the budget of the share `progress` of training."""
        self.budget = 1 - (1 - self.final) * progress

    def auxiliary_loss(self) -> Tensor:
        """The weighted size of the last training pass's gates."""
        assert self.size is not None
        size, self.size = self.size, None
        return self.sparsity * size

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x).sigmoid()
        importance = gate.detach().mean(-1, keepdim=True)
        threshold = self.threshold
        if self.training:
            self.size = torch.linalg.vector_norm(gate, dim=-1).mean() / gate.shape[-1]
            threshold = self.smallest(importance)
            self.threshold.lerp_(threshold, MOMENTUM)
        return torch.where(importance <= threshold, 0.0, self.block(x) * gate)

    def smallest(self, importance: Tensor) -> Tensor:
        """The largest importance at or below the (1 - budget)-quantile, 0 at full budget."""
        rank = round((1 - self.budget) * (importance.numel() - 1), 6)  # 1 - 0.8 is a little less than 0.2
        return importance.flatten().sort().values[int(rank)] if self.budget < 1 else importance.new_zeros(())
