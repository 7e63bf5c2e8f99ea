"""CIFAR-10 with a small vision transformer."""

from __future__ import annotations

from torch import nn

from suite import Metric, Paper, Tier, define_task
from suite.train.build import Build
from tasks.vision.images import CIFAR10_MEAN, CIFAR10_STD, Normalise, RealImageTask
from tasks.vision.vit import ViT

SMALL = {"pixels": 32, "patch": 8, "features": 32, "layers": 2, "heads": 2, "batch": 64, "eval_batch": 500}
LARGE = {"pixels": 32, "patch": 4, "features": 192, "layers": 6, "heads": 6, "batch": 512, "eval_batch": 1000}


@define_task(
    "cifar10-vit",
    title="CIFAR-10, ViT of 4x4 patches",
    family="vision",
    version=1,
    metric=Metric("ce", "nats", "min", floor=0.0, chance=2.302585),
    slots=(
        "activation", "optimizer", "gradient", "schedule", "averaging", "init", "norm", "block", "attention",
        "reparam", "regularizer", "loss",
    ),
    recipe={
        "activation": "gelu",
        "optimizer": ("adamw", {"lr": 0.001, "weight_decay": 0.05}),
        "gradient": ("grad-clip", {"max_norm": 1.0}),
        "schedule": ("linear", {"warmup": 0.1}),
        "init": "gpt2",
        "norm": "layernorm",
        "block": "ffn",
        "attention": "softmax-attention",
        "loss": ("cross-entropy", {"label_smoothing": 0.0}),
    },
    tiers={
        "smoke": Tier(20, evals=2, sizes={**SMALL, "train": 1000, "val": 200, "test": 500}),
        "standard": Tier(1900, evals=10, sizes={**LARGE, "train": 49000, "val": 1000, "test": 10000}),
    },
    data="cifar10",
    paper=Paper("An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", arxiv="2010.11929"),
)  # fmt: skip
class CIFAR10ViT(RealImageTask):
    """CIFAR-10 with a vision transformer: 4x4 patches, 192 channels, 6 layers, 20 epochs in ``standard``.

    49,000 train, 1,000 validate, 10,000 test, with mirroring and shifts by up to
    2 pixels. Far from saturation at this budget (76.7% at depth 6 and width 128
    in the literature, with more epochs), so that parts of the recipe show.
    ``smoke`` is a 2-layer model of 8x8 patches on 1,000 images. The standard
    tier's learning rate is the customary one of the shape; it was not swept, and
    its noise is not measured.
    """

    channels_last = False

    def model(self, build: Build, tier: Tier) -> nn.Module:
        sizes = {name: tier.sizes[name] for name in ("pixels", "patch", "features", "layers", "heads")}
        return ViT(build, Normalise(CIFAR10_MEAN, CIFAR10_STD), classes=10, **sizes)
