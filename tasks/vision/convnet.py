"""Plain convolutional networks whose activations, norms and init come from the recipe."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from suite.train.build import Build


def conv_layers(build: Build, channels: int, features: int, *, pool: bool = False) -> tuple[list[nn.Module], int]:
    """3x3 convolution, 2x2 maximum where `pool`, norm, activation; and the channels that come out."""
    activation = build.activation(features)
    layers: list[nn.Module] = [nn.Conv2d(channels, features, 3, padding=1, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(2))
    return [*layers, build.norm(features), activation], build.width(features, activation)


class ConvNet(nn.Sequential):
    """Two convolutions a resolution, with 2x2 maxima between resolutions; mean over places, linear head.

    Parameters
    ----------
    build : makes every replaceable part.
    normalise : first module, from stored images to floats.
    classes : number of classes.
    widths : channels at each resolution.
    """

    def __init__(self, build: Build, normalise: nn.Module, *, classes: int, widths: Sequence[int]) -> None:
        layers, channels = [normalise], 3
        for i, features in enumerate(widths):
            for pool in (False, i < len(widths) - 1):
                more, channels = conv_layers(build, channels, features, pool=pool)
                layers += more
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), build.head(channels, classes))
