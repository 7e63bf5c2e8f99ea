"""A recipe: for each slot the method that fills it, with its hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from suite.registry import Method, TaskInfo, registry

REFERENCE = "reference"


@dataclass(frozen=True)
class Choice:
    """A method and its complete hyper-parameters."""

    method: str
    hp: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entry(self) -> Method:
        return registry().method(self.method)

    def make(self, *args: Any, **more: Any) -> Any:
        return self.entry.make(*args, **self.hp, **more)


@dataclass(frozen=True)
class Recipe:
    """The task's defaults with at most one slot changed (several for a combination ``a+b``)."""

    choices: Mapping[str, Choice]

    def __getitem__(self, slot: str) -> Choice:
        return self.choices[slot]

    def __contains__(self, slot: str) -> bool:
        return slot in self.choices

    def with_choice(self, slot: str, choice: Choice) -> Recipe:
        return Recipe({**self.choices, slot: choice})

    def as_dict(self) -> dict[str, Any]:
        """Plain form for a result row: slot -> {method, hp}."""
        return {s: {"method": c.method, "hp": dict(c.hp)} for s, c in sorted(self.choices.items())}


def reference_recipe(task: TaskInfo) -> Recipe:
    """The task's frozen reference, each method with its full hyper-parameters."""
    choices = {}
    for slot, stated in task.recipe.items():
        name, hp = (stated, {}) if isinstance(stated, str) else stated
        choices[slot] = Choice(name, {**registry().method(name).defaults, **hp})
    return Recipe(choices)


def recipe_for(task: TaskInfo, method: str, hp: Mapping[str, Any] | None = None) -> Recipe:
    """The reference with `method` in its slot ('a+b' fills two slots, 'reference' none).

    Parameters
    ----------
    task : the task.
    method : a method's name, names joined by '+', or ``"reference"``.
    hp : hyper-parameters set by hand or by a trial; absolute, not scaled.

    Raises
    ------
    UnknownName : no such method.
    ValueError : the task does not declare the method's slot, a slot is filled
        twice, or a hyper-parameter belongs to none of the methods.
    """
    recipe = reference_recipe(task)
    left = dict(hp or {})
    if method != REFERENCE:
        filled: set[str] = set()
        for name in method.split("+"):
            entry = registry().method(name)
            if entry.slot not in task.slots:
                raise ValueError(
                    f"task {task.name!r} does not declare slot {entry.slot!r} of method {name!r}; "
                    f"its slots: {', '.join(task.slots)}"
                )
            if entry.slot in filled:
                raise ValueError(f"{method!r} fills slot {entry.slot!r} twice")
            filled.add(entry.slot)
            chosen = {k: left.pop(k) for k in list(left) if k in entry.defaults}
            recipe = recipe.with_choice(entry.slot, Choice(name, {**scaled_defaults(task, entry), **chosen}))
    if left:
        raise ValueError(f"{method!r} has no hyper-parameter {sorted(left)}; see `levelfield show {method}`")
    return recipe


def scaled_defaults(task: TaskInfo, entry: Method) -> dict[str, Any]:
    """The method's defaults with its learning rates on the task's scale."""
    return {k: v * task.lr_scale if is_learning_rate(k) else v for k, v in entry.defaults.items()}


def is_learning_rate(name: str) -> bool:
    return name == "lr" or name.endswith("_lr")
