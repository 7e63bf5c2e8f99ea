"""Residual convolutional network whose activations, norms and init come from the recipe."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from suite.train.build import Build


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015, arXiv 1512.03385).

    The shortcut is a 1x1 convolution with a norm where the shape changes.

    Attributes
    ----------
    width : channels that come out.
    """

    def __init__(self, build: Build, channels: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, stride=stride, padding=1, bias=False)
        self.norm1 = build.norm(features)
        self.activation1 = build.activation(features)
        inner = build.width(features, self.activation1)
        self.conv2 = nn.Conv2d(inner, features, 3, padding=1, bias=False)
        build.residual(self.conv2)
        self.norm2 = build.norm(features)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != features:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, features, 1, stride=stride, bias=False), build.norm(features)
            )
        self.activation2 = build.activation(features)
        self.width = build.width(features, self.activation2)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm2(self.conv2(self.activation1(self.norm1(self.conv1(x)))))
        return self.activation2(branch + self.shortcut(x))


class ResNet(nn.Sequential):
    """Stem, stages of basic blocks that halve the resolution, mean over places, linear head.

    Parameters
    ----------
    build : makes every replaceable part.
    normalise : first module, from stored images to floats.
    classes : number of classes.
    widths : channels of each stage; a stage after the first starts with stride 2.
    blocks : basic blocks a stage.
    stem_stride : stride of the 3x3 stem.
    """

    def __init__(
        self,
        build: Build,
        normalise: nn.Module,
        *,
        classes: int,
        widths: Sequence[int],
        blocks: int,
        stem_stride: int,
    ) -> None:
        activation = build.activation(widths[0])
        layers: list[nn.Module] = [
            normalise,
            nn.Conv2d(3, widths[0], 3, stride=stem_stride, padding=1, bias=False),
            build.norm(widths[0]),
            activation,
        ]
        channels = build.width(widths[0], activation)
        for stage, features in enumerate(widths):
            for i in range(blocks):
                block = BasicBlock(build, channels, features, stride=2 if stage and i == 0 else 1)
                layers.append(block)
                channels = block.width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), build.head(channels, classes))
