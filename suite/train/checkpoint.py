"""Checkpoints inside a run: written whole or not at all, read without unpickling objects."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suite.store.files import write_bytes

PLAIN = (bool, int, float, str, type(None))


def plain_state(part: Any) -> dict[str, Any]:
    """State of a part of a workload: its state dict where it has one, and what its attributes hold.

    Anything else an object holds (data, other parts) is made again from the
    run's specification.
    """
    state = {"state": part.state_dict()} if hasattr(part, "state_dict") else {}
    return state | attribute_state(part)


def attribute_state(part: Any) -> dict[str, Any]:
    """An object's tensors, plain numbers and random streams, by attribute."""
    values = {name: value for name, value in vars(part).items() if isinstance(value, (*PLAIN, Tensor))}
    streams = {n: g.get_state() for n, g in vars(part).items() if isinstance(g, torch.Generator)}
    return {"values": values, "streams": streams}


def load_plain_state(part: Any, state: Mapping[str, Any]) -> None:
    """Give a part of a workload the state that `plain_state` took."""
    if "state" in state:
        part.load_state_dict(state["state"])
    load_attribute_state(part, state)


def load_attribute_state(part: Any, state: Mapping[str, Any]) -> None:
    """Give an object the attributes that `attribute_state` took."""
    for name, value in state["values"].items():
        setattr(part, name, value)
    for name, stream in state["streams"].items():
        getattr(part, name).set_state(stream)


class Checkpoint:
    """The one checkpoint of a run.

    Parameters
    ----------
    path : its file.
    seconds : wall-clock seconds between writes; 0 writes at every evaluation.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self.written = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.written >= self.seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_bytes(self.path, buffer.getvalue())
        self.written = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint; None when there is none or it is damaged, and the run starts anew."""
        try:
            return torch.load(self.path, weights_only=True, map_location="cpu")
        except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile):
            return None
        except Exception as error:  # an object that is not plain data: never loaded
            if type(error).__name__ == "UnpicklingError":
                return None
            raise
