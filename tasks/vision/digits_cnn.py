"""Real handwritten digits, 8x8: the smallest real vision task."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from suite import Metric, Noise, Paper, Tier, define_task
from suite.train.build import Build, Interface
from suite.train.supervised import Splits, SupervisedTask

WIDTHS = (16, 32, 32)


@functools.lru_cache(maxsize=1)
def _digits() -> tuple[Tensor, Tensor]:
    """All 1,797 digits in a fixed shuffled order: (n, 1, 8, 8) in [-1, 1] and labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = torch.tensor(digits.images[order], dtype=torch.float32)[:, None] / 8.0 - 1.0
    return images, torch.tensor(digits.target[order], dtype=torch.long)


@define_task(
    "digits-cnn",
    title="Handwritten digits, small CNN",
    family="vision",
    version=2,
    metric=Metric("ce", "nats", "min", floor=0.0, chance=2.302585),
    lr_scale=3.0,
    slots=(
        "activation", "optimizer", "gradient", "schedule", "averaging", "init", "norm", "reparam", "regularizer",
        "loss", "architecture",
    ),
    recipe={
        "activation": "relu",
        "optimizer": ("nesterov", {"lr": 0.1, "weight_decay": 5e-4}),
        "schedule": ("linear", {"warmup": 0.1}),
        "init": "torch-default",
        "norm": "batchnorm",
        "loss": ("cross-entropy", {"label_smoothing": 0.0}),
    },
    tiers={
        "smoke": Tier(30, evals=3, sizes={"batch": 64, "train": 500}),
        "quick": Tier(225, evals=15, sizes={"batch": 64, "train": 1000}),
    },
    noise={"quick": Noise(0.003, floor=0.001, n=5, per_doubling=0.0085)},
    imports=("sklearn.datasets",),
    paper=Paper("Optical Recognition of Handwritten Digits", url="https://doi.org/10.24432/C50P49", year=1998),
)  # fmt: skip
class DigitsCNN(SupervisedTask):
    """1,797 scanned digits of 8x8 pixels (UCI, as shipped with scikit-learn), three 3x3 convolutions.

    1,000 train (500 in smoke), 297 validate, 500 test, in one fixed shuffled
    order. Accuracy is near its ceiling, so the primary statistic is the test
    cross-entropy. The only non-linearity of the network is the activation: it
    pools by means, so that the identity leaves a linear classifier.
    """

    channels_last = True

    def splits(self, tier: Tier) -> Splits:
        x, y = _digits()
        n = tier.sizes["train"]
        return Splits(x[:n], y[:n], x[1000:1297], y[1000:1297], x[1297:])

    def samples(self, tier: Tier) -> dict:
        """The first training image of each class."""
        from suite.samples import one_of_each, pictures

        data = self.splits(tier)
        index = one_of_each(data.train_y.numpy())
        grey = ((data.train_x.numpy()[index, 0] + 1.0) * 127.5).round().astype(np.uint8)
        return pictures(grey[..., None], [str(label) for label in data.train_y.numpy()[index]])

    def answers(self, tier: Tier) -> np.ndarray:
        return _digits()[1][1297:].numpy()

    def model(self, build: Build, tier: Tier) -> nn.Module:
        return build.network(Interface("images", (1, 8, 8), 10, functools.partial(small_cnn, build)))


def small_cnn(build: Build) -> nn.Module:
    """Three convolutions of `WIDTHS`, 2x2 means after the second, means of quarters, linear head."""
    layers: list[nn.Module] = []
    channels = 1
    for i, width in enumerate(WIDTHS):
        activation = build.activation(width)
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), build.norm(width), activation]
        channels = build.width(width, activation)
        if i == 1:
            layers.append(nn.AvgPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), build.head(4 * channels, 10))
