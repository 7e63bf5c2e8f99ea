"""CIFAR-10 with a network of the airbench class: whitened patches, three pooled blocks, few epochs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite import Metric, Paper, Tier, define_task
from suite.train.build import Build
from tasks.vision.convnet import conv_layers
from tasks.vision.images import CIFAR10_MEAN, CIFAR10_STD, Normalise, RealImageTask

SMALL = {"widths": (8, 16, 16), "batch": 64, "eval_batch": 500}
LARGE = {"widths": (64, 256, 256), "batch": 1000, "eval_batch": 1000}
PATCH, WHITENED, RIDGE = 2, 5000, 5e-4
LOGIT_SCALE = 1.0 / 9.0


class Whitening(nn.Module):
    """Frozen 2x2 convolution onto the whitened principal directions of image patches and their negatives.

    Filters are the eigenvectors v of the patches' covariance over
    sqrt(eigenvalue + 5e-4), then -v: 24 for colour images. Its bias is trained.

    Parameters
    ----------
    images : (n, 3, height, width) normalised images, float.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", whitening_filters(images))
        self.bias = nn.Parameter(torch.zeros(len(self.weight)))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


def whitening_filters(images: Tensor) -> Tensor:
    """(24, 3, 2, 2) filters of `Whitening`, each direction's sign chosen so that its largest entry is positive."""
    patches = F.unfold(images.double(), PATCH).transpose(1, 2).reshape(-1, images.shape[1] * PATCH * PATCH)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    peak = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    filters = (vectors * peak.sign() / (values + RIDGE).sqrt()).T.flip(0)
    return torch.cat([filters, -filters]).view(-1, images.shape[1], PATCH, PATCH).float()


class AirbenchNet(nn.Sequential):
    """Whitening, activation, three blocks of two convolutions with pooling after the first, maximum, scaled head.

    Parameters
    ----------
    build : makes every replaceable part.
    normalise : first module, from stored images to floats.
    images : normalised images for the whitening.
    classes : number of classes.
    widths : channels of each block.
    """

    def __init__(
        self, build: Build, normalise: nn.Module, images: Tensor, *, classes: int, widths: Sequence[int]
    ) -> None:
        whitening = Whitening(images)
        activation = build.activation(len(whitening.bias))
        layers, channels = [normalise, whitening, activation], build.width(len(whitening.bias), activation)
        for features in widths:
            for pool in (True, False):
                more, channels = conv_layers(build, channels, features, pool=pool)
                layers += more
        head = build.head(channels, classes, bias=False)
        super().__init__(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), head, Scale(LOGIT_SCALE))


class Scale(nn.Module):
    """x times a fixed number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@define_task(
    "cifar10-airbench",
    title="CIFAR-10, airbench-class network",
    family="vision",
    version=1,
    metric=Metric("ce", "nats", "min", floor=0.0, chance=2.302585),
    slots=(
        "activation", "optimizer", "gradient", "schedule", "averaging", "init", "norm", "reparam", "regularizer",
        "loss",
    ),
    recipe={
        "activation": "gelu",
        "optimizer": ("nesterov", {"lr": 0.4, "momentum": 0.85, "weight_decay": 5e-4}),
        "schedule": ("linear", {"warmup": 0.23}),
        "init": "torch-default",
        "norm": ("batchnorm", {"momentum": 0.4}),
        "loss": ("cross-entropy", {"label_smoothing": 0.0}),
    },
    tiers={
        "smoke": Tier(15, evals=2, sizes={**SMALL, "train": 1000, "val": 200, "test": 500}),
        "standard": Tier(490, evals=10, sizes={**LARGE, "train": 49000, "val": 1000, "test": 10000}),
    },
    data="cifar10",
    paper=Paper("94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arxiv="2404.00498", year=2024),
)  # fmt: skip
class CIFAR10Airbench(RealImageTask):
    """CIFAR-10 with a network of the airbench class (2 million parameters) for 10 epochs.

    As the paper's network: frozen whitening of 2x2 patches from 5,000 training
    images, widths 64, 256, 256, logits over 9. Unlike it, everything a slot
    decides is an ordinary method (plain mirroring, no lookahead, norm with gain,
    random init, no test-time views), so that its 94% is not to be expected.
    49,000 train, 1,000 validate, 10,000 test. The learning rate follows the
    paper's; neither score nor noise of the standard tier is measured.
    """

    def model(self, build: Build, tier: Tier) -> nn.Module:
        normalise = Normalise(CIFAR10_MEAN, CIFAR10_STD)
        stored = self.arrays(tier, "train")["images"][:WHITENED]
        images = normalise(torch.from_numpy(np.ascontiguousarray(stored)).permute(0, 3, 1, 2))
        return AirbenchNet(build, normalise, images, classes=10, widths=tier.sizes["widths"])
