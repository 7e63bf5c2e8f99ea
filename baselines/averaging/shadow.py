"""A second set of a model's tensors, shared by the averages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from suite.train.average import Averager


class Shadow:
    """Copies of named tensors that follow the model's, in a few foreach calls.

    Parameters
    ----------
    tensors : name -> tensor; copied.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def lerp(self, towards: Mapping[str, Tensor], weight: float) -> None:
        """shadow + weight * (towards - shadow), in place."""
        torch._foreach_lerp_(list(self.tensors.values()), [towards[name] for name in self.tensors], weight)

    @torch.no_grad()
    def copy(self, source: Mapping[str, Tensor]) -> None:
        """Take over the values of `source`, in place."""
        torch._foreach_copy_(list(self.tensors.values()), [source[name] for name in self.tensors])

    def save(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under names that begin with `prefix` and a dot."""
        return {f"{prefix}.{name}": tensor for name, tensor in self.tensors.items()}

    def load(self, state: Mapping[str, Any], prefix: str) -> None:
        """Restore what `save` gave under the same prefix."""
        self.copy({name: state[f"{prefix}.{name}"] for name in self.tensors})


class ShadowAverager(Averager):
    """Averages the floating-point tensors of the state dict, buffers included.

    Integer buffers (batch counters) are not averaged: evaluation sees the model's
    own.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        averaged = [name for name, t in self.tensors().items() if t.is_floating_point() or t.is_complex()]
        self.sites = {name: _site(model, name) for name in averaged}

    def live(self) -> dict[str, Tensor]:
        """The model's floating-point (and complex) parameters and buffers by name, not copied."""
        return {name: table[key] for name, (table, key) in self.sites.items()}


def _site(model: nn.Module, name: str) -> tuple[Any, str]:
    """Table of the owning module, and the key in it, where the tensor called `name` is found.

    Looking there at each update costs a tenth of building the state dict.
    """
    path, _, key = name.rpartition(".")
    module = model.get_submodule(path)
    return (module._parameters if key in module._parameters else module._buffers), key


def periods(step: float, total: float, share: float) -> int:
    """Whole periods of `share` of the budget that `step` of `total` budget units has completed."""
    return math.floor(step / (share * total) + 1e-9)
