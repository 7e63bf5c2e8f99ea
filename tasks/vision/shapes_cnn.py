"""Procedural shapes with a small convolutional network."""

from __future__ import annotations

import functools

from torch import nn

from suite import Metric, Noise, Tier, define_task
from suite.train.build import Build, Interface
from tasks.vision.convnet import ConvNet
from tasks.vision.images import Normalise
from tasks.vision.shapes import CLASSES, MEAN, STD, ShapesTask

SMALL = {"pixels": 16, "widths": (16, 32, 32), "batch": 64, "eval_batch": 500}


@define_task(
    "shapes-cnn",
    title="Shapes and stripes, small CNN",
    family="vision",
    version=2,
    metric=Metric("ce", "nats", "min", floor=0.0, chance=2.302585),
    slots=(
        "activation", "optimizer", "gradient", "schedule", "averaging", "init", "norm", "reparam", "regularizer",
        "loss", "architecture",
    ),
    recipe={
        "activation": "relu",
        "optimizer": ("nesterov", {"lr": 0.2, "weight_decay": 2e-3}),
        "schedule": ("linear", {"warmup": 0.1}),
        "init": "torch-default",
        "norm": "batchnorm",
        "loss": ("cross-entropy", {"label_smoothing": 0.1}),
    },
    lr_scale=2.0,
    tiers={
        "smoke": Tier(20, evals=2, sizes={**SMALL, "train": 1000, "val": 200, "test": 500}),
        "quick": Tier(1200, evals=10, sizes={**SMALL, "train": 20000, "val": 1000, "test": 10000}),
        "standard": Tier(
            2000,
            evals=10,
            sizes={
                "pixels": 32, "widths": (64, 256, 256), "batch": 500, "eval_batch": 1000,
                "train": 50000, "val": 1000, "test": 10000,
            },
        ),
    },
    noise={"quick": Noise(0.011, floor=0.005, n=5, per_doubling=0.36)},
    target=0.32,
)  # fmt: skip
class ShapesCNN(ShapesTask):
    """Procedural images of 16x16: five shapes times two stripe directions, behind clutter and noise.

    20,000 images to train on, 1,000 to validate, 10,000 to test, mirrored and
    shifted by up to 2 pixels in training. 36k parameters: six 3x3 convolutions of
    16, 32 and 32 channels. ``standard``: 32x32 pixels, 50,000 images, widths 64,
    256 and 256.

    On one core ``quick`` takes 14 s. The reference reaches a test cross-entropy of
    0.323 (accuracy 91.2%; an untrained model 2.31 and 10%), GELU in place of ReLU 0.275.
    Labels are smoothed by .1 in training, not in the metric, and weights decay by 2e-3:
    relu and gelu part at five seeds (t = 4.7), which they did not before (t = 2.9).
    """

    def model(self, build: Build, tier: Tier) -> nn.Module:
        normalise = functools.partial(Normalise, MEAN, STD)
        shape = (3, tier.sizes["pixels"], tier.sizes["pixels"])

        def own() -> nn.Module:
            return ConvNet(build, normalise(), classes=CLASSES, widths=tier.sizes["widths"])

        return build.network(Interface("images", shape, CLASSES, own, first=normalise))
