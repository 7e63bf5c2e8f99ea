from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines.reparam.common import weights
from baselines.reparam.constraint import Constraint, Owner, constrain
from suite import Choice, IntUniform, LogUniform, Paper, reparam

BRANCHES_PER_BLOCK = 2  # a transformer block's attention and feed-forward branches


class TargetSpread(Constraint):
    """Weights whose standard deviation has outgrown their target are brought back to it, about their mean.

    Parameters
    ----------
    owners : the layer and the attribute of each weight.
    targets : standard deviation of each weight.
    every : updates between looks.
    ratio : deviation over target from which a weight is changed.
    """

    def __init__(self, owners: Sequence[Owner], targets: Sequence[float], *, every: int, ratio: float) -> None:
        super().__init__(owners)
        self.targets, self.every, self.ratio = tuple(targets), every, ratio

    def apply_to(self, weights: list[Tensor], step: int) -> None:
        if step % self.every:
            return
        for weight, target, (layer, _) in zip(weights, self.targets, self.owners, strict=True):
            deviation, mean = torch.std_mean(weight)
            outgrown = deviation > self.ratio * target
            weight.copy_(torch.where(outgrown, (weight - mean) * (target / deviation) + mean, weight))
            bias = getattr(layer, "bias", None)
            if isinstance(bias, Tensor):
                bias.masked_fill_(outgrown, 0.0)


@reparam(
    "tvr",
    paper=Paper("Variance Control via Weight Rescaling in LLM Pre-training", arxiv="2503.17500", year=2025),
    defaults={"target": 0.02, "every": 50, "ratio": 1.2, "by_depth": False},
    space={
        "target": LogUniform(0.005, 0.5),
        "every": IntUniform(10, 200),
        "by_depth": Choice(False, True),
    },
    families=("language",),
    confidence="verified",
    vmap=False,
)
def target_variance_rescaling(
    model: nn.Module, *, target: float = 0.02, every: int = 50, ratio: float = 1.2, by_depth: bool = False
) -> None:
    """Every 50 updates, W ← (W - mean)·σ_t/std + mean for the matrices of the blocks with std > 1.2·σ_t; biases to 0.

    σ_t is in the units of the weights: the paper starts from deviations of 0.006 to
    0.02. The optimizer's state is left as it is.

    Parameters
    ----------
    target : σ_t.
    every : updates between rescalings.
    ratio : deviation over target from which a matrix is rescaled.
    by_depth : divide the target by √l in block l = 1, 2, ...
    """
    inside = [(m, name, info) for m, name, info in weights(model, ("matrix",)) if info.branch <= info.depth]
    blocks = [math.ceil(info.branch / BRANCHES_PER_BLOCK) if by_depth else 1 for *_, info in inside]
    owners = [(module, name) for module, name, _ in inside]
    constrain(TargetSpread(owners, [target / math.sqrt(block) for block in blocks], every=every, ratio=ratio))
