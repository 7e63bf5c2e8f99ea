from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from suite import Choice, Paper, architecture
from suite.train.build import Build, Interface
from suite.train.roles import mark
from suite.train.workload import DoesNotApply

ADAPOOL = Paper(
    "AdaPool: Exponential Adaptive Pooling for Information-Retaining Downsampling", arxiv="2111.00772", year=2021
)
SPACE = {"exact": Choice(False, True)}


def windows(x: Tensor, size: int) -> Tensor:
    """(size², n, channels, height/size, width/size), the entries of the windows that tile `x`."""
    height, width = (n - n % size for n in x.shape[2:])
    return torch.stack([x[:, :, i:height:size, j:width:size] for i in range(size) for j in range(size)])


def soft_weights(entries: Tensor) -> Tensor:
    """Softmax over each window (SoftPool)."""
    return entries.softmax(0)


def similarity_weights(entries: Tensor) -> Tensor:
    """Softmax over each window of the Dice similarity 2|a ā|/(a² + ā²) with its mean ā, 0 where both are 0 (eDSCW)."""
    mean = entries.mean(0, keepdim=True)
    total = entries.square() + mean.square()
    alike = torch.where(total > 0, 2 * (entries * mean).abs() / torch.where(total > 0, total, 1.0), 0.0)
    return alike.softmax(0)


class WindowMean(nn.Module):
    """Mean over windows with weights of the entries themselves.

    Parameters
    ----------
    size : side of the windows, and stride.
    exact : take the gradient of the weights as well; the published backward pass holds them constant.
    """

    def __init__(self, size: int, exact: bool) -> None:
        super().__init__()
        self.size, self.exact = size, exact

    def weights(self, entries: Tensor) -> Tensor:
        """Weights of the entries (size², ...), of sum 1 over a window."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        entries = windows(x, self.size)
        weights = self.weights(entries if self.exact else entries.detach())
        return (weights * entries).sum(0)


class SoftPool(WindowMean):
    """Mean over windows with the weights of `soft_weights`."""

    def weights(self, entries: Tensor) -> Tensor:
        return soft_weights(entries)


class SimilarityPool(WindowMean):
    """Mean over windows with the weights of `similarity_weights`."""

    def weights(self, entries: Tensor) -> Tensor:
        return similarity_weights(entries)


class AdaPool(WindowMean):
    """β times the mean by similarity and 1 - β times the soft mean, with a learned β for every place.

    β starts at N(0, 1) clipped to [0, 1]. It is used clipped; unless `exact`, its
    gradient passes whatever the clipping.

    Parameters
    ----------
    size : side of the windows, and stride.
    exact : see `WindowMean`.
    places : height and width of what comes out.
    """

    def __init__(self, size: int, exact: bool, places: tuple[int, int]) -> None:
        super().__init__(size, exact)
        self.beta = nn.Parameter(torch.randn(places).clamp(0, 1))
        mark(self, "other")

    def weights(self, entries: Tensor) -> Tensor:
        clipped = self.beta.clamp(0, 1)
        beta = clipped if self.exact else self.beta + (clipped - self.beta).detach()
        return beta * similarity_weights(entries) + (1 - beta) * soft_weights(entries)


def with_pools(interface: Interface, make: Callable[[int, tuple[int, int]], nn.Module]) -> nn.Module:
    """The task's own network with ``make(size, places)`` for every maximum or mean over windows of that size.

    Raises
    ------
    DoesNotApply : the network has no such pooling.
    """
    network = interface.own().eval()
    pools = {name: part for name, part in network.named_modules() if isinstance(part, nn.MaxPool2d | nn.AvgPool2d)}
    if not pools:
        raise DoesNotApply("the network has no maximum or mean over windows to replace")
    places: dict[nn.Module, tuple[int, int]] = {}
    hooks = [
        pool.register_forward_hook(lambda pool, _, y: places.update({pool: tuple(y.shape[2:])}))
        for pool in pools.values()
    ]
    with torch.no_grad():
        network(torch.zeros(1, *interface.shape))
    for hook in hooks:
        hook.remove()
    for name, pool in pools.items():
        parent, _, attribute = f".{name}".rpartition(".")
        setattr(network.get_submodule(parent.lstrip(".")), attribute, make(pool.kernel_size, places[pool]))
    return network.train()


@architecture(
    "adapool",
    paper=ADAPOOL,
    defaults={"exact": False},
    space=SPACE,
    families=("vision",),
    confidence="verified",
    surrogate=True,
)
def adapool(build: Build, interface: Interface, exact: bool = False) -> nn.Module:
    """The task's own network with every 2x2 maximum or mean replaced by AdaPool, β eDSCW + (1 - β) SoftPool.

    Parameters
    ----------
    build, interface : as the slot gives them.
    exact : take the gradient of the pooling weights as well; the published backward pass holds them constant.
    """
    return with_pools(interface, lambda size, places: AdaPool(size, exact, places))


@architecture(
    "softpool",
    paper=ADAPOOL,
    system="adapool",
    defaults={"exact": False},
    space=SPACE,
    families=("vision",),
    confidence="verified",
    surrogate=True,
)
def softpool(build: Build, interface: Interface, exact: bool = False) -> nn.Module:
    """The task's own network with every 2x2 maximum or mean replaced by Σ a softmax(a), SoftPool.

    Parameters
    ----------
    build, interface : as the slot gives them.
    exact : take the gradient of the pooling weights as well; the published backward pass holds them constant.
    """
    return with_pools(interface, lambda size, places: SoftPool(size, exact))


@architecture(
    "edscw",
    paper=ADAPOOL,
    system="adapool",
    defaults={"exact": False},
    space=SPACE,
    families=("vision",),
    confidence="verified",
    surrogate=True,
)
def edscw(build: Build, interface: Interface, exact: bool = False) -> nn.Module:
    """The task's own network with every 2x2 maximum or mean replaced by Σ a softmax(s), s the similarity to the mean.

    Parameters
    ----------
    build, interface : as the slot gives them.
    exact : take the gradient of the pooling weights as well; the published backward pass holds them constant.
    """
    return with_pools(interface, lambda size, places: SimilarityPool(size, exact))
