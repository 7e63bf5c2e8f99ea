from __future__ import annotations

from torch import Tensor, nn

from baselines.architecture.common import nearest_size
from suite import IntUniform, Paper, architecture
from suite.train.build import Build, Interface
from suite.train.workload import DoesNotApply

SHALLOW_AGAIN = Paper("Make Deep Networks Shallow Again", arxiv="2309.08414", year=2023)
SPACE = {"depth": IntUniform(2, 6)}


def layer(build: Build, channels: int, features: int) -> nn.Sequential:
    """3x3 convolution, norm, activation.

    Raises
    ------
    DoesNotApply : the activation changes the number of channels, so that nothing can be added to it.
    """
    activation = build.activation(features)
    if build.width(features, activation) != features:
        raise DoesNotApply("residual sums need an activation that keeps the number of channels")
    return nn.Sequential(nn.Conv2d(channels, features, 3, padding=1, bias=False), build.norm(features), activation)


class Residual(nn.Module):
    """A stack of residual layers, (I + F_L) ∘ ... ∘ (I + F_1), or its first-order part, I + Σ F_i.

    Parameters
    ----------
    build : makes norms and activations.
    features : channels.
    depth : number of layers F_i.
    parallel : keep the first-order part only.
    """

    def __init__(self, build: Build, features: int, depth: int, *, parallel: bool) -> None:
        super().__init__()
        self.parallel = parallel
        self.layers = nn.ModuleList(layer(build, features, features) for _ in range(depth))
        for f in self.layers:
            build.residual(f[0])

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for f in self.layers:
            y = y + f(x if self.parallel else y)
        return y


def residual_net(build: Build, interface: Interface, width: int, depth: int, *, parallel: bool) -> nn.Module:
    """Three stages of a layer and a `Residual`, of width, 2 width and 2 width channels, with 2x2 maxima in between."""
    layers: list[nn.Module] = [interface.first()]
    channels = interface.shape[0]
    for stage, features in enumerate((width, 2 * width, 2 * width)):
        if stage:
            layers.append(nn.MaxPool2d(2))
        layers += [layer(build, channels, features), Residual(build, features, depth, parallel=parallel)]
        channels = features
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), build.head(channels, interface.outputs))


def matched_net(build: Build, interface: Interface, depth: int, *, parallel: bool) -> nn.Module:
    """`residual_net` with the parameters of the task's own network."""

    def make(width: int) -> nn.Module:
        return residual_net(build, interface, width, depth, parallel=parallel)

    return make(nearest_size(build, interface, make))


@architecture(
    "parallel-shallow",
    paper=SHALLOW_AGAIN,
    defaults={"depth": 3},
    space=SPACE,
    families=("vision",),
    confidence="partly",
)
def parallel_shallow(build: Build, interface: Interface, depth: int = 3) -> nn.Module:
    """Residual stacks with all layers side by side, x + Σ F_i(x), at the parameters of the task's own network.

    F_i is a 3x3 convolution, the recipe's norm and its activation. There are three
    stages with 2x2 maxima in between; `residual-stack` is the same with the layers
    one after another.

    Parameters
    ----------
    build, interface : as the slot gives them.
    depth : layers F_i of a stage.
    """
    return matched_net(build, interface, depth, parallel=True)


@architecture(
    "residual-stack",
    paper=SHALLOW_AGAIN,
    system="parallel-shallow",
    defaults={"depth": 3},
    space=SPACE,
    families=("vision",),
    confidence="partly",
)
def residual_stack(build: Build, interface: Interface, depth: int = 3) -> nn.Module:
    """Residual stacks (I + F_L) ∘ ... ∘ (I + F_1), the control of `parallel-shallow`, at equal parameters.

    Parameters
    ----------
    build, interface : as the slot gives them.
    depth : layers F_i of a stage.
    """
    return matched_net(build, interface, depth, parallel=False)
