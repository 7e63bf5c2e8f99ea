"""Traps inside the training process: common tricks fail loudly there.

They hold what can be held from inside. What cannot (a method that undoes its
changes in time) is held from outside: by the parent's clock, by scoring in
another process, by the sandbox and by a rerun.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from suite import seeds
from suite.registry import package_roots, rename_task

if TYPE_CHECKING:
    from suite.runner.spec import RunSpec

# Modules whose members a method has no business replacing; suite's own are added when they are loaded.
_SEALED = (
    "builtins", "time", "os", "gc", "math", "random", "json", "zipfile", "numpy", "numpy.random", "numpy.lib.format",
    "torch", "torch.nn", "torch.nn.functional", "torch.autograd", "torch.optim", "torch.random",
)  # fmt: skip
_OWN = ("suite.train.", "suite.runner.", "suite.store.", "suite.trust.", "suite.seeds", "suite.recipe")
_FUNCTIONS = (FunctionType, type(len), type, staticmethod, classmethod, property)


class Tampered(RuntimeError):
    """A run changed what is not its own, or asked for what it may not see; the message says what."""


@contextmanager
def guard(spec: RunSpec, task: Any) -> Iterator[None]:
    """Inside, a run trains: answers are kept from its methods, and what they changed is told at the end.

    Raises
    ------
    Tampered : a method replaced a function or changed a setting that is not its own.
    """
    functions, settings = seals(), process_settings()
    with answers_kept_from(method_places(spec), task):
        yield
    changed = functions.broken() or changed_setting(settings)
    if changed:
        raise Tampered(changed)


# ---------------------------------------------------------------- seals


class Seals:
    """Functions and classes as they are before any method is imported."""

    def __init__(self) -> None:
        loaded = [sys.modules[name] for name in _SEALED if name in sys.modules]
        own = [m for name, m in sys.modules.items() if name.startswith(_OWN) and isinstance(m, ModuleType)]
        owners: list[tuple[str, Any]] = [(m.__name__, m) for m in (*loaded, *own)]
        for module in own:
            classes = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
            owners += [(f"{module.__name__}.{cls.__qualname__}", cls) for cls in classes]
        self.members = [(name, owner, _functions(owner)) for name, owner in owners]

    def broken(self) -> str:
        """The first that has been replaced since, in words; "" when none has."""
        for name, owner, before in self.members:
            now = vars(owner)
            for member, value in before.items():
                if now.get(member) is not value:
                    return f"it replaced {name}.{member}"
        return ""


def _functions(owner: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(owner).items() if isinstance(value, _FUNCTIONS)}


@functools.cache
def seals() -> Seals:
    """The seals of this process, made at the first call; a warm server calls before it forks."""
    return Seals()


def process_settings() -> dict[str, Any]:
    """Settings that a run may not change for everybody."""
    import torch

    return {
        "the environment": hash(frozenset(os.environ.items())),
        "the number of threads": torch.get_num_threads(),
        "the default type": torch.get_default_dtype(),
        "the precision of matrix products": torch.get_float32_matmul_precision(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
    }


def changed_setting(before: Mapping[str, Any]) -> str:
    """The first setting that is not as it was, in words; "" when all are."""
    after = process_settings()
    for name, value in before.items():
        if after[name] != value:
            return f"it changed {name}" + (f" from {value} to {after[name]}" if name != "the environment" else "")
    return ""


# ---------------------------------------------------------------- answers

_ANSWERS = ("answers", "validation_answers", "reference", "solution", "solve")


def method_places(spec: RunSpec) -> tuple[str, ...]:
    """What the file names of methods begin with: the folder of the baselines, and each entry file of the recipe."""
    own = [choice.entry.path for choice in spec.recipe.choices.values()]
    return (*(f"{root}{os.sep}" for root in package_roots("baselines")), *own)


@contextmanager
def answers_kept_from(places: tuple[str, ...], task: Any) -> Iterator[None]:
    """Inside, a task's answers are refused to calls that come, at any depth, from source files at `places`.

    The engine itself may ask: a PDE's validation values are its solution.
    """
    changed: list[tuple[type, str, Any]] = []
    for cls in type(task).__mro__:
        for name in _ANSWERS:
            function = vars(cls).get(name)
            if isinstance(function, FunctionType):
                changed.append((cls, name, function))
                setattr(cls, name, _kept(function, places))
    try:
        yield
    finally:
        for cls, name, function in changed:
            setattr(cls, name, function)


def _kept(function: Callable[..., Any], places: tuple[str, ...]) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(places):
                raise Tampered(f"it asked for the task's {function.__name__}, which no method may see")
            frame = frame.f_back  # type: ignore[assignment]
        return function(*args, **kwargs)

    return guarded


# ---------------------------------------------------------------- names


def masked(spec: RunSpec) -> RunSpec:
    """The same run on a task of another name, in this process from now on: seeds stay what they were.

    A method that looks at the name of what it runs on then takes another path,
    and its curve is another one.
    """
    name = "task-" + hashlib.sha256(spec.task.encode()).hexdigest()[:8]
    rename_task(spec.task, name)
    seeds.ALIASES[name] = spec.task
    return replace(spec, task=name)
