"""Evaluation-time weights, swapped in for evaluation and back bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Averager:
    """Evaluates the last iterate; the base class of every method of slot ``averaging``.

    A method overrides `update`, called after each step, and `weights`, which
    gives the tensors to evaluate with, by their names in the model's state dict.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def update(self, step: float, total: float) -> None:
        """Take in the model's weights after `step` of `total` budget units."""

    def weights(self) -> dict[str, Tensor] | None:
        """Tensors to evaluate with, by state-dict name; None evaluates the model as it is."""
        return None

    def tensors(self) -> dict[str, Tensor]:
        """The model's parameters and buffers by state-dict name, not copied."""
        return dict(self.model.state_dict(keep_vars=False))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Evaluate inside with the averaged weights; outside, the model is bit-identical to before."""
        average = self.weights()
        if average is None:
            yield
            return
        live = self.tensors()
        saved = {name: live[name].clone() for name in average}
        with torch.no_grad():
            for name, tensor in average.items():
                live[name].copy_(tensor)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in saved.items():
                    live[name].copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        """State of the average; tensors and plain numbers only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
