from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.architecture.common import nearest_size
from suite import IntUniform, Paper, architecture
from suite.train.build import Build, Interface

Pair = tuple[Tensor, Tensor]


def padded(x: Tensor, channels: int) -> Tensor:
    """`x` with channels of zeros up to `channels`."""
    return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))


class InvertibleBlock(nn.Module):
    """(x₁, x₂) to (ψx₂, F(x₂) + ψx₁), ψ a space-to-depth rearrangement where `stride` is 2.

    F is [norm, activation,] 3x3 convolution, norm, activation, 3x3 convolution,
    norm, activation, 3x3 convolution, the inner two of `middle` channels.

    Parameters
    ----------
    build : makes norms and activations.
    inputs : channels of each stream that comes in.
    outputs : channels of each stream that goes out, inputs · stride².
    middle : channels of the bottleneck.
    stride : 1 or 2.
    first : leave out F's first norm and activation.
    """

    def __init__(self, build: Build, inputs: int, outputs: int, middle: int, *, stride: int, first: bool) -> None:
        super().__init__()
        self.stride = stride
        layers: list[nn.Module] = []
        channels = inputs
        for i, features in enumerate((middle, middle, outputs)):
            if i or not first:
                activation = build.activation(channels)
                layers += [build.norm(channels), activation]
                channels = build.width(channels, activation)
            step = stride if i == 0 else 1
            layers.append(nn.Conv2d(channels, features, 3, stride=step, padding=1, bias=False))
            channels = features
        build.residual(layers[-1])
        self.function = nn.Sequential(*layers)

    def forward(self, pair: Pair) -> Pair:
        x1, x2 = pair
        y = self.function(x2)
        if self.stride == 2:
            x1, x2 = (F.pixel_unshuffle(x, 2) for x in pair)
        return x2, y + x1

    def inverse(self, pair: Pair) -> Pair:
        """What came in, from what went out."""
        x2, y = pair
        if self.stride == 2:
            x2 = F.pixel_shuffle(x2, 2)
        x1 = y - self.function(x2)
        return (F.pixel_shuffle(x1, 2) if self.stride == 2 else x1), x2


class IRevNet(nn.Module):
    """Invertible blocks on two streams, then norm, activation, mean over places and a linear head.

    The image's channels are split into two streams, each padded with zeros to
    `width`; three stages of `blocks` follow, the last two of which begin with stride 2,
    so that streams have width, 4 width and 16 width channels.

    Parameters
    ----------
    build : makes every replaceable part.
    interface : of the task.
    width : channels of each stream in the first stage, at least those that the image gives it.
    blocks : blocks a stage.
    narrowing : channels of a stage over those of its bottlenecks.
    """

    def __init__(self, build: Build, interface: Interface, width: int, blocks: int, narrowing: float) -> None:
        super().__init__()
        self.first, self.width, self.channels = interface.first(), width, interface.shape[0]
        stages: list[InvertibleBlock] = []
        inputs = width
        for stage in range(3):
            outputs = width * 4**stage
            for i in range(blocks):
                stride = 2 if stage and i == 0 else 1
                middle = max(1, round(outputs / narrowing))
                stages.append(InvertibleBlock(build, inputs, outputs, middle, stride=stride, first=not stages))
                inputs = outputs
        self.blocks = nn.ModuleList(stages)
        self.norm, self.activation = build.norm(2 * inputs), build.activation(2 * inputs)
        self.head = build.head(build.width(2 * inputs, self.activation), interface.outputs)

    def features(self, x: Tensor) -> Tensor:
        """Both streams after the last block, of normalised images: nothing of the image is lost."""
        half = self.channels // 2
        pair = padded(x[:, :half], self.width), padded(x[:, half:], self.width)
        for block in self.blocks:
            pair = block(pair)
        return torch.cat(pair, dim=1)

    def inverse(self, features: Tensor) -> Tensor:
        """The normalised images from their features, in evaluation mode."""
        first, second = features.chunk(2, dim=1)
        pair = first, second
        for block in reversed(self.blocks):
            pair = block.inverse(pair)  # type: ignore[operator]
        half = self.channels // 2
        return torch.cat([pair[0][:, :half], pair[1][:, : self.channels - half]], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm(self.features(self.first(x))))
        return self.head(y.mean((2, 3)))


@architecture(
    "i-revnet",
    paper=Paper("i-RevNet: Deep Invertible Networks", arxiv="1802.07088", year=2018),
    defaults={"blocks": 2},
    space={"blocks": IntUniform(1, 4)},
    families=("vision",),
    confidence="verified",
)
def i_revnet(build: Build, interface: Interface, blocks: int = 2) -> nn.Module:
    """Network of invertible blocks (x₁, x₂) → (x₂, F(x₂) + x₁), at the parameters of the task's own network.

    The streams are as wide as the paper's bottlenecks of a quarter of them allow
    (18 blocks a stage and 16 channels for CIFAR-10); the bottlenecks are then
    widened or narrowed until the parameters agree. Norm and activation are the
    recipe's. The published code pads the image before it splits it, which leaves the
    first block nothing but zeros; here either stream holds a part of the image.

    Parameters
    ----------
    build, interface : as the slot gives them.
    blocks : blocks of each of the three stages.
    """

    def quartered(width: int) -> nn.Module:
        return IRevNet(build, interface, width, blocks, narrowing=4)

    width = nearest_size(build, interface, quartered, start=max(2, -(-interface.shape[0] // 2)))

    def make(size: int) -> nn.Module:
        return IRevNet(build, interface, width, blocks, narrowing=16 * width / size)

    return make(nearest_size(build, interface, make))
