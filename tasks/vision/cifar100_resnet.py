"""CIFAR-100 with a residual network."""

from __future__ import annotations

from torch import nn

from suite import Metric, Paper, Tier, define_task
from suite.train.build import Build
from tasks.vision.images import CIFAR100_MEAN, CIFAR100_STD, Normalise, RealImageTask
from tasks.vision.resnet import ResNet

SMALL = {"widths": (8, 16, 32), "blocks": 1, "stem_stride": 2, "batch": 64, "eval_batch": 500}
LARGE = {"widths": (64, 128, 256), "blocks": 2, "stem_stride": 1, "batch": 512, "eval_batch": 1000}


@define_task(
    "cifar100-resnet",
    title="CIFAR-100, ResNet",
    family="vision",
    version=1,
    metric=Metric("ce", "nats", "min", floor=0.0, chance=4.605170),
    slots=(
        "activation", "optimizer", "gradient", "schedule", "averaging", "init", "norm", "reparam", "regularizer",
        "loss",
    ),
    recipe={
        "activation": "relu",
        "optimizer": ("nesterov", {"lr": 0.2, "weight_decay": 5e-4}),
        "schedule": ("linear", {"warmup": 0.1}),
        "init": "torch-default",
        "norm": "batchnorm",
        "loss": ("cross-entropy", {"label_smoothing": 0.0}),
    },
    tiers={
        "smoke": Tier(15, evals=2, sizes={**SMALL, "train": 1000, "val": 200, "test": 500}),
        "standard": Tier(1900, evals=10, sizes={**LARGE, "train": 49000, "val": 1000, "test": 10000}),
    },
    data="cifar100",
    paper=Paper("Deep Residual Learning for Image Recognition", arxiv="1512.03385", year=2015),
)  # fmt: skip
class CIFAR100ResNet(RealImageTask):
    """CIFAR-100 with the residual network of `cifar10-resnet` in its standard size, 20 epochs.

    49,000 train, 1,000 validate, 10,000 test, with mirroring and shifts by up to
    2 pixels; no CPU tier but ``smoke``. The learning rate is that of
    `cifar10-resnet`; neither score nor noise of the standard tier is measured.
    """

    def model(self, build: Build, tier: Tier) -> nn.Module:
        sizes = {name: tier.sizes[name] for name in ("widths", "blocks", "stem_stride")}
        return ResNet(build, Normalise(CIFAR100_MEAN, CIFAR100_STD), classes=100, **sizes)
