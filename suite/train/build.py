"""Builds a recipe's parts into a model and notes which slots it reached."""

from __future__ import annotations

import functools
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from suite.registry import Method
from suite.train.roles import mark, mark_activation, mark_residual, named_parameters
from suite.train.workload import Context, DoesNotApply

FORWARDS_PER_PASS = 3  # a forward-backward pass costs about three forward passes


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
    classifier : the module that was made last to give the model's output; its input are the model's features.
    passes : forward-backward passes that the init's look at data was worth.
    """

    classifier: nn.Module

    def __init__(self, context: Context) -> None:
        self.context = context
        self.recipe = context.recipe
        self.sites: Counter[str] = Counter()
        self.stacked: dict[str, list[nn.Module]] = {"norm": [], "attention": []}
        self.passes = 0

    def activation(self, features: int) -> nn.Module:
        """The recipe's activation for `features` channels."""
        return mark_activation(self._make("activation", features))

    def width(self, features: int, activation: nn.Module) -> int:
        """Channels that come out of `activation` for `features` channels in."""
        return int(features * getattr(activation, "width_factor", 1))

    def norm(self, features: int) -> nn.Module:
        """The recipe's normalisation of `features` channels."""
        self.sites["norm"] += 1
        norm = mark(self.recipe["norm"].make(features), "norm")
        self.stacked["norm"].append(norm)
        return norm

    def block(self, features: int, hidden: int) -> nn.Module:
        """The recipe's feed-forward block."""
        self.sites["block"] += 1
        return self.recipe["block"].make(features, hidden, self.activation)

    def attention(self, features: int, heads: int, causal: bool) -> nn.Module:
        """The recipe's token mixing."""
        self.sites["attention"] += 1
        attention = self.recipe["attention"].make(features, heads, causal)
        self.stacked["attention"].append(attention)
        return attention

    def network(self, interface: Interface) -> nn.Module:
        """The recipe's architecture; the task's own network where the recipe names none."""
        self.sites["architecture"] += 1
        if "architecture" in self.recipe:
            return self.recipe["architecture"].make(self, interface)
        return interface.own()

    def parameters(self, make: Callable[[], nn.Module]) -> int:
        """Parameters of the module that `make` makes from this build's parts; no site is counted, no draw used up."""
        sites, stacked = self.sites.copy(), {slot: list(modules) for slot, modules in self.stacked.items()}
        with torch.random.fork_rng(devices=[]):
            count = sum(p.numel() for p in make().parameters())
        self.sites, self.stacked = sites, stacked
        return count

    def head(self, features: int, outputs: int, bias: bool = True) -> nn.Module:
        """The output layer: linear, unless the recipe's loss brings its own (`suite.slots`).

        Of an `nn.Sequential` the last module is the classifier, with the role
        "head"; those before it map features to features.
        """
        make: Callable[[int, int, bool], nn.Module] = nn.Linear
        if "loss" in self.recipe:
            make = loss_head(self.recipe["loss"].entry, self.recipe["loss"].hp)
        layer, self.classifier = output_layer(make(features, outputs, bias))
        return layer

    @staticmethod
    def residual(layer: nn.Module) -> nn.Module:
        """Mark the last layer of a residual branch, for inits that treat it apart."""
        return mark_residual(layer)

    def finish(self, model: nn.Module, inputs: Callable[[], Tensor] | None = None) -> nn.Module:
        """Initialise every parameter by the recipe's init and move the model to the device.

        Each parameter draws from a stream of its own, named after it, so that
        changing one part of the model leaves every other weight as it was. A norm or
        attention with a method `place(index, stack)` is told before that where it
        stands among those of the model.

        Parameters
        ----------
        inputs : draws a batch of training inputs, on the CPU, for an init that looks at data.

        Raises
        ------
        DoesNotApply : the init looks at data and the task gives none.
        """
        for stack in self.stacked.values():
            for index, module in enumerate(stack):
                place = getattr(module, "place", None)
                if callable(place):
                    place(index, stack)
        if "init" in self.recipe:
            choice = self.recipe["init"]
            fill, calibrate = choice.make(), getattr(choice.entry.factory, "calibrate", None)
            with torch.no_grad():
                for parameter, info in list(named_parameters(model)):
                    if info.role != "other":
                        self.sites["init"] += 1
                        fill(parameter, info, self.context.generator("init", info.name))
                if calibrate is not None:
                    if inputs is None:
                        raise DoesNotApply(f"{choice.method} looks at a batch of inputs, and this task shows none")
                    self.passes += math.ceil(calibrate(model, inputs(), **choice.hp) / FORWARDS_PER_PASS)
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


def loss_head(method: Method, hp: Mapping[str, Any]) -> Callable[[int, int, bool], nn.Module]:
    """What makes the output layer from (features, outputs, bias): the loss's own, or a linear layer."""
    head = getattr(method.factory, "head", None)
    return nn.Linear if head is None else functools.partial(head, **hp)


def output_layer(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The layer, and its classifier: the last module of an `nn.Sequential`, marked with the role "head"."""
    return layer, mark(layer[-1] if isinstance(layer, nn.Sequential) else layer, "head")


def _takes_features(factory: object) -> bool:
    try:
        return "features" in inspect.signature(factory).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
