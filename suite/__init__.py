"""levelfield: a level playing field for training methods.

The public API; importing it imports neither torch nor pandas.

>>> import suite
>>> [m.name for m in suite.methods(slot="activation")]      # metadata only
>>> suite.method("golu").make()                             # nn.Module
>>> result = suite.run("digits-cnn", "golu", tier="smoke")  # result.metrics, result.curve
>>> frame = suite.load_results("runs")                      # one row a run
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from suite.facts import Metric, Noise, Paper, Tier
from suite.registry import Method, RegistryError, TaskInfo, UnknownName, decorator_for, registry
from suite.slots import SLOTS
from suite.space import Choice, IntUniform, LogUniform, Uniform

if TYPE_CHECKING:
    from suite.api import load_curves, load_results, run, task

__version__ = "0.1.0"

activation = decorator_for("activation")
optimizer = decorator_for("optimizer")
gradient = decorator_for("gradient")
schedule = decorator_for("schedule")
averaging = decorator_for("averaging")
init = decorator_for("init")
norm = decorator_for("norm")
block = decorator_for("block")
attention = decorator_for("attention")
reparam = decorator_for("reparam")
regularizer = decorator_for("regularizer")
loss = decorator_for("loss")
sampler = decorator_for("sampler")
pde_method = decorator_for("pde-method")
objective = decorator_for("objective")
data_method = decorator_for("data")
offline_objective = decorator_for("offline-objective")
define_task = decorator_for("task")


def methods(slot: str | None = None) -> list[Method]:
    """Registered methods, by slot then name; metadata only, torch is not imported.

    Raises
    ------
    UnknownName : no such slot.
    """
    if slot is not None and slot not in SLOTS:
        raise UnknownName(f"no slot named {slot!r}; slots: {', '.join(SLOTS)}")
    order = list(SLOTS)
    found = [m for m in registry().methods.values() if slot in (None, m.slot)]
    return sorted(found, key=lambda m: (order.index(m.slot), m.name))


def tasks(family: str | None = None) -> list[TaskInfo]:
    """Registered tasks, in their families' order; metadata only."""
    found = [t for t in registry().tasks.values() if family in (None, t.family)]
    return sorted(found, key=lambda t: (t.family, t.name))


def method(name: str) -> Method:
    """One registered method by name; a near name is suggested when there is none."""
    return registry().method(name)


_LAZY = {"task", "run", "load_results", "load_curves"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module("suite.api"), name)
    raise AttributeError(f"module 'suite' has no attribute {name!r}")


__all__ = [
    "SLOTS", "Choice", "IntUniform", "LogUniform", "Method", "Metric", "Noise", "Paper", "RegistryError",
    "TaskInfo", "Tier", "Uniform", "UnknownName", "activation", "attention", "averaging", "block", "data_method",
    "define_task", "gradient", "init", "load_curves", "load_results", "loss", "method", "methods", "norm", "objective",
    "offline_objective", "optimizer", "pde_method", "registry", "regularizer", "reparam", "run", "sampler", "schedule",
    "task", "tasks",
]  # fmt: skip
