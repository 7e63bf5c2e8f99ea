"""A run's specification: everything that fixes it, and the id that follows from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from suite.fingerprint import digest, method_hash, task_hash
from suite.recipe import REFERENCE, Recipe, recipe_for
from suite.registry import Method, TaskInfo, registry
from suite.store.schema import SCHEMA_VERSION

_KINDS: dict[str, Any] = {
    **dict.fromkeys(("task", "method", "tier", "budget_kind", "device"), str),
    **dict.fromkeys(("seed", "trial", "trials"), int),
    "hp": Mapping,
    "budget": int | float | None,
}


@dataclass(frozen=True)
class RunSpec:
    """One (task, method, hyper-parameters, budget, seed).

    Attributes
    ----------
    task, method, tier : names; method may be ``"reference"`` or ``"a+b"``.
    seed : seed index.
    hp : hyper-parameters set by hand or by a trial; the rest are the method's defaults.
    budget : units given; None takes the tier's.
    budget_kind : "steps", or "seconds" for a budget that came from a cost ratio.
    trial, trials : tuning trial index (-1: defaults) and count.
    device : "cpu" or "cuda[:n]".
    """

    task: str
    method: str
    tier: str = "quick"
    seed: int = 0
    hp: Mapping[str, Any] = field(default_factory=dict)
    budget: float | None = None
    budget_kind: str = "steps"
    trial: int = -1
    trials: int = 0
    device: str = "cpu"

    @property
    def info(self) -> TaskInfo:
        return registry().task(self.task)

    @property
    def recipe(self) -> Recipe:
        return recipe_for(self.info, self.method, self.hp)

    @property
    def entries(self) -> list[Method]:
        """The methods under test: none for the reference."""
        return [] if self.method == REFERENCE else [registry().method(n) for n in self.method.split("+")]

    @property
    def slot(self) -> str:
        return "+".join(entry.slot for entry in self.entries)

    @property
    def given(self) -> float:
        """Budget in the task's unit."""
        return self.info.tiers[self.tier].budget if self.budget is None else self.budget

    @property
    def limit(self) -> float:
        """Wall-clock limit in seconds: the tier's, and as much more as the budget is more than the tier's."""
        tier = self.info.tiers[self.tier]
        return tier.limit * max(1.0, self.given / tier.budget)

    @property
    def code(self) -> str:
        """Hash of the source of the methods under test ('reference' for the reference)."""
        if not self.entries:
            return REFERENCE
        hashes = [method_hash(entry) for entry in self.entries]
        return hashes[0] if len(hashes) == 1 else digest(hashes, 12)

    @property
    def run_id(self) -> str:
        """Hash of the run and of the code it depends on; a docstring edit leaves it as it is."""
        recipe = self.recipe
        sources = {slot: method_hash(choice.entry) for slot, choice in recipe.choices.items()}
        return digest(
            {
                "schema": SCHEMA_VERSION,
                "task": [self.task, task_hash(self.info, self.tier)],
                "method": self.method,
                "recipe": recipe.as_dict(),
                "sources": sources,
                "tier": self.tier,
                "budget": [self.budget_kind, float(self.given)],
                "seed": self.seed,
                "trial": [self.trial, self.trials],
                "device": self.device.partition(":")[0],
            }
        )

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "hp": dict(self.hp)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
        """The specification `to_json` wrote.

        Raises
        ------
        ValueError : not a specification.
        """
        try:
            stated = json.loads(text)
            spec = cls(**stated)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"not a run specification: {error}") from None
        for name, kind in _KINDS.items():
            if not isinstance(value := getattr(spec, name), kind) or isinstance(value, bool):
                raise ValueError(f"not a run specification: {name} is {str(value)[:40]!r}")
        return spec


def plan(
    tasks: Sequence[str],
    methods: Sequence[str],
    tier: str,
    seeds: Iterable[int],
    *,
    hp: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> tuple[list[RunSpec], list[str]]:
    """All runs of methods on the tasks they fit, the reference of each task first.

    Parameters
    ----------
    tasks, methods : names; unknown ones raise `UnknownName`.
    tier : tasks without this tier are left out and named.
    seeds : seed indices.
    hp : hyper-parameters for every method that has them.

    Returns
    -------
    specs : the runs, seeds outermost, so that a stopped plan has whole pairs.
    notes : one sentence for each task or method that was left out.
    """
    specs: list[RunSpec] = []
    notes: list[str] = []
    pairs: list[tuple[str, str]] = []
    used: set[str] = set()
    for task_name in tasks:
        info = registry().task(task_name)
        if tier not in info.tiers:
            notes.append(f"{task_name} has no tier {tier!r} (it has {', '.join(info.tiers)})")
            continue
        fitting = [m for m in methods if m != REFERENCE and _fits(m, info)]
        used.update(fitting)
        if fitting or REFERENCE in methods:
            pairs += [(task_name, m) for m in (REFERENCE, *fitting)]
    for name in methods:
        if name != REFERENCE and name not in used:
            slots = " and ".join(registry().method(n).slot for n in name.split("+"))
            notes.append(f"{name} ({slots}) fits none of the chosen tasks")
    for seed in seeds:
        for task_name, method in pairs:
            own = {k: v for k, v in (hp or {}).items() if method != REFERENCE and _has(method, k)}
            specs.append(RunSpec(task_name, method, tier, seed, own, device=device))
    return specs, notes


def _fits(method: str, info: TaskInfo) -> bool:
    entries = [registry().method(name) for name in method.split("+")]
    return all(entry.fits(info) for entry in entries)


def _has(method: str, key: str) -> bool:
    return any(key in registry().method(name).defaults for name in method.split("+"))
