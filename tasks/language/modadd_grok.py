"""Addition modulo a prime from a fixed share of the table: memorised first, understood (grokked) later."""

from __future__ import annotations

import numpy as np
import torch
from numpy.random import RandomState
from torch import Tensor, nn

from suite import Metric, Noise, Paper, Tier, define_task
from suite.train.build import Build
from suite.train.supervised import Splits, SupervisedTask

PAPER = Paper(
    "Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets", arxiv="2201.02177", year=2022
)
SPLIT_SEED = 0
PRIME = 59
SIZES = {"features": 64, "hidden": 128, "train": 1392, "val": 348, "batch": 1392, "eval_batch": 4096}
SLOTS = (
    "activation", "optimizer", "gradient", "schedule", "averaging", "init", "reparam", "regularizer", "loss",
)  # fmt: skip
RECIPE = {
    "activation": "relu",
    "schedule": ("constant", {"warmup": 0.01}),
    "init": "torch-default",
    "loss": ("cross-entropy", {"label_smoothing": 0.0}),
}
TIERS = {
    "smoke": Tier(30, evals=3, sizes=SIZES),
    "quick": Tier(1000, evals=50, sizes=SIZES),
    "standard": Tier(20000, evals=50, sizes=SIZES),
}


class PairNet(nn.Module):
    """Embeddings of both summands side by side, one hidden layer, linear head."""

    def __init__(self, build: Build, numbers: int, features: int, hidden: int) -> None:
        super().__init__()
        self.numbers = nn.Embedding(numbers, features)
        self.hidden = nn.Linear(2 * features, hidden)
        self.activation = build.activation(hidden)
        self.head = build.head(build.width(hidden, self.activation), numbers)

    def forward(self, pairs: Tensor) -> Tensor:
        """(batch, numbers) logits of (batch, 2) summands."""
        return self.head(self.activation(self.hidden(self.numbers(pairs).flatten(1))))


class ModularAddition(SupervisedTask):
    """All pairs (a, b) modulo a prime, split once; every step sees all training pairs."""

    def splits(self, tier: Tier) -> Splits:
        train, val, test = (torch.from_numpy(part) for part in self._pairs(tier))
        return Splits(train, train.sum(1) % PRIME, val, val.sum(1) % PRIME, test)

    def samples(self, tier: Tier) -> dict:
        """A few training sums."""
        from suite.samples import texts

        return texts(f"{a} + {b} = {(a + b) % PRIME}" for a, b in self._pairs(tier)[0][:6])

    def answers(self, tier: Tier) -> np.ndarray:
        return self._pairs(tier)[2].sum(axis=1) % PRIME

    def model(self, build: Build, tier: Tier) -> nn.Module:
        return PairNet(build, PRIME, tier.sizes["features"], tier.sizes["hidden"])

    @staticmethod
    def _pairs(tier: Tier) -> list[np.ndarray]:
        """Training, validation and test pairs, (n, 2) int64 each."""
        order = RandomState(SPLIT_SEED).permutation(PRIME * PRIME)
        pairs = np.stack([order // PRIME, order % PRIME], axis=1).astype(np.int64)
        train, val = tier.sizes["train"], tier.sizes["val"]
        return np.split(pairs, [train, train + val])


@define_task(
    "modadd-grok",
    title="Addition mod 59, weight decay 1",
    family="language",
    version=1,
    metric=Metric("accuracy", "share", "max", floor=1.0, chance=0.016949),
    slots=SLOTS,
    recipe={**RECIPE, "optimizer": ("adamw", {"lr": 0.01, "weight_decay": 1.0})},
    lr_scale=3.0,
    tiers=TIERS,
    noise={"quick": Noise(0.14, floor=0.02, n=5, per_doubling=0.72)},
    target=0.9,
    paper=PAPER,
)
class ModAddGrok(ModularAddition):
    """a + b mod 59 from 40% of all pairs: memorised in 100 steps, understood hundreds of steps later.

    Two embeddings, one hidden layer of 128, full batches, AdamW with weight
    decay 1. 1,392 pairs to train on, 348 to validate, 1,741 to test. The primary
    statistic is the test accuracy when the reference is halfway through its
    transition: a method that brings it forward nears 1, one that delays it
    nears 1/59. Cross-entropy would compare losses that scale logits differently.

    On one core ``quick`` takes 3.5 s. The reference reaches an accuracy of 0.76,
    from 0.60 to 0.94 over 5 seeds: when the transition comes varies. Learning
    rate and decay from (.003, 1), (.01, 1), (.003, 3) and (.01, .3): (.01, 1) is
    first to 50%.
    """


@define_task(
    "modadd-nodecay",
    title="Addition mod 59, no weight decay",
    family="language",
    version=1,
    metric=Metric("accuracy", "share", "max", floor=1.0, chance=0.016949),
    slots=SLOTS,
    recipe={**RECIPE, "optimizer": ("adamw", {"lr": 0.01, "weight_decay": 0.0})},
    lr_scale=3.0,
    tiers=TIERS,
    noise={"quick": Noise(0.0, floor=0.02, n=5)},
    target=0.9,
    paper=PAPER,
)
class ModAddNoDecay(ModularAddition):
    """a + b mod 59 as in `modadd-grok`, without weight decay: the reference memorises and never understands.

    After Prieto et al. 2025 (arXiv 2501.04697): without decay the logits grow
    until the softmax saturates, and training stops on the training pairs. The
    reference's test accuracy is 0 on all 5 seeds; removing the gradient's part
    along the weights (`perp-grad`) passes 0.9 in 600 steps.
    """
