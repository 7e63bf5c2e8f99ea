"""Builds a recipe's parts into a model and notes which slots it reached."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from suite.train.roles import mark, mark_residual, named_parameters
from suite.train.workload import Context


@dataclass(frozen=True)
class Interface:
    """What a task's network takes and gives, whatever is in between.

    Attributes
    ----------
    kind : "images", "tokens" (indices) or "points" (coordinates).
    shape : of one input: (channels, height, width), (time,) or (coordinates,).
    outputs : columns of the result: one row of them an image or point, one for every token.
    own : makes the task's own network; an architecture may start from it.
    vocabulary : number of different tokens.
    first : makes the layer that images have to pass first, as they are stored.
    """

    kind: str
    shape: tuple[int, ...]
    outputs: int
    own: Callable[[], nn.Module]
    vocabulary: int = 0
    first: Callable[[], nn.Module] = nn.Identity


class Build:
    """Makes the recipe's modules at the sites of a task's model.

    Attributes
    ----------
    sites : how often each slot was built, for the test that a declared slot is used.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.recipe = context.recipe
        self.sites: Counter[str] = Counter()

    def activation(self, features: int) -> nn.Module:
        """The recipe's activation for `features` channels."""
        return mark(self._make("activation", features), "other")

    def width(self, features: int, activation: nn.Module) -> int:
        """Channels that come out of `activation` for `features` channels in."""
        return int(features * getattr(activation, "width_factor", 1))

    def norm(self, features: int) -> nn.Module:
        """The recipe's normalisation of `features` channels."""
        self.sites["norm"] += 1
        return mark(self.recipe["norm"].make(features), "norm")

    def block(self, features: int, hidden: int) -> nn.Module:
        """The recipe's feed-forward block."""
        self.sites["block"] += 1
        return self.recipe["block"].make(features, hidden, self.activation)

    def attention(self, features: int, heads: int, causal: bool) -> nn.Module:
        """The recipe's token mixing."""
        self.sites["attention"] += 1
        return self.recipe["attention"].make(features, heads, causal)

    def network(self, interface: Interface) -> nn.Module:
        """The recipe's architecture; the task's own network where the recipe names none."""
        self.sites["architecture"] += 1
        if "architecture" in self.recipe:
            return self.recipe["architecture"].make(self, interface)
        return interface.own()

    def parameters(self, make: Callable[[], nn.Module]) -> int:
        """Parameters of the module that `make` makes from this build's parts; no site is counted, no draw used up."""
        sites = self.sites.copy()
        with torch.random.fork_rng(devices=[]):
            count = sum(p.numel() for p in make().parameters())
        self.sites = sites
        return count

    @staticmethod
    def head(features: int, outputs: int, bias: bool = True) -> nn.Linear:
        """The output layer."""
        layer = nn.Linear(features, outputs, bias=bias)
        mark(layer, "head")
        return layer

    @staticmethod
    def residual(layer: nn.Module) -> nn.Module:
        """Mark the last layer of a residual branch, for inits that treat it apart."""
        return mark_residual(layer)

    def finish(self, model: nn.Module) -> nn.Module:
        """Initialise every parameter by the recipe's init and move the model to the device.

        Each parameter draws from a stream of its own, named after it, so that
        changing one part of the model leaves every other weight as it was.
        """
        if "init" in self.recipe:
            fill = self.recipe["init"].make()
            with torch.no_grad():
                for parameter, info in list(named_parameters(model)):
                    if info.role != "other":
                        self.sites["init"] += 1
                        fill(parameter, info, self.context.generator("init", info.name))
        if "reparam" in self.recipe:
            self.sites["reparam"] += 1
            self.recipe["reparam"].make(model)
        return model.to(self.context.device)

    def _make(self, slot: str, features: int) -> nn.Module:
        self.sites[slot] += 1
        choice = self.recipe[slot]
        if _takes_features(choice.entry.factory):
            return choice.make(features=features)
        return choice.make()


def _takes_features(factory: object) -> bool:
    try:
        return "features" in inspect.signature(factory).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
