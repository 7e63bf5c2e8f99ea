"""CIFAR-10 with a small residual network."""

from __future__ import annotations

from torch import nn

from suite import Metric, Paper, Tier, define_task
from suite.train.build import Build
from tasks.vision.images import CIFAR10_MEAN, CIFAR10_STD, Normalise, RealImageTask
from tasks.vision.resnet import ResNet

SMALL = {"widths": (16, 32, 64), "blocks": 1, "stem_stride": 2, "batch": 128, "eval_batch": 500}


@define_task(
    "cifar10-resnet",
    title="CIFAR-10, small ResNet",
    family="vision",
    version=1,
    metric=Metric("ce", "nats", "min", floor=0.0, chance=2.302585),
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
    lr_scale=2.0,
    tiers={
        "smoke": Tier(12, evals=2, sizes={**SMALL, "train": 1000, "val": 200, "test": 500}),
        "quick": Tier(280, evals=10, sizes={**SMALL, "train": 10000, "val": 1000, "test": 10000}),
        "standard": Tier(
            1450,
            evals=10,
            sizes={
                "widths": (64, 128, 256), "blocks": 2, "stem_stride": 1, "batch": 512, "eval_batch": 1000,
                "train": 49000, "val": 1000, "test": 10000,
            },
        ),
        "full": Tier(2300, evals=12, sizes={**SMALL, "train": 49000, "val": 1000, "test": 10000}, limit=3600),
    },
    data="cifar10",
    noise={"quick": {"sd": 0.036, "floor": 0.005, "n": 5, "per_doubling": 0.19}},
    target=1.23,
    paper=Paper("Deep Residual Learning for Image Recognition", arxiv="1512.03385", year=2015),
)  # fmt: skip
class CIFAR10ResNet(RealImageTask):
    """CIFAR-10 with a small residual network, from the Hub or the data root.

    ``quick``: 10,000 training images (1,000 of each class), 1,000 others to
    validate, all 10,000 test images; widths 16, 32 and 64, one basic block each, a
    stem of stride 2 (78k parameters), 3.6 epochs. ``standard``: 49,000 images,
    widths 64, 128 and 256, two blocks each at full resolution, 15 epochs. ``full``:
    49,000 images through the net of ``quick``, 6 epochs, for a machine without a GPU. Images are
    mirrored and shifted by up to 2 pixels.

    On one core ``quick`` takes 13 s. The reference reaches a test cross-entropy of 1.234
    (accuracy 55.0%; an untrained model 2.30 and 10%); ``full``, in 93 s, 0.611 and 78.8%.
    Learning rate of ``quick`` from .05 (1.220), .1 (1.215), .2 (1.187) and .4 (1.229) at seed 0.
    """

    def model(self, build: Build, tier: Tier) -> nn.Module:
        sizes = {name: tier.sizes[name] for name in ("widths", "blocks", "stem_stride")}
        return ResNet(build, Normalise(CIFAR10_MEAN, CIFAR10_STD), classes=10, **sizes)
