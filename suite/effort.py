"""What runs will take, by the rows of runs like them, and which of a plan fit into some processor hours."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from suite.plain import canonical, read_json
from suite.recipe import REFERENCE
from suite.registry import Method, RegistryError, registry

if TYPE_CHECKING:
    import pyarrow as pa

    from suite.runner.spec import RunSpec


class Step(NamedTuple):
    """Runs that are made together, in their place of a plan.

    Attributes
    ----------
    name : what they settle: a claim's id, or ``task: method``.
    specs : the runs it needs beside those of the steps before it.
    seconds : processor seconds of its runs and of those of all steps before it; nan where one is not known.
    """

    name: str
    specs: list[RunSpec]
    seconds: float


def within(steps: Sequence[Step], hours: float) -> list[Step]:
    """The first of the steps, whose runs together take no more than that many processor hours; none of unknown time."""
    return list(itertools.takewhile(lambda step: step.seconds <= hours * 3600, steps))


def steps_of(specs: Iterable[RunSpec], times: ProcessorTime) -> list[Step]:
    """Runs by task and method: tasks first that need the least, of each the reference, then the cheapest methods.

    Tasks come later that need a run whose time is not known, and so do such
    methods of a task; the plan's order decides where two need the same.
    """
    tasks: dict[str, dict[str, list[RunSpec]]] = {}
    for spec in specs:
        tasks.setdefault(spec.task, {}).setdefault(spec.method, []).append(spec)
    costs = {(t, m): times.total(runs) for t, methods in tasks.items() for m, runs in methods.items()}

    def of_task(task: str) -> tuple[int, float]:
        mine = [costs[task, method] for method in tasks[task]]
        return sum(unknown for _, unknown in mine), math.fsum(seconds for seconds, _ in mine)

    def of_method(cell: tuple[str, str]) -> tuple[bool, int, float]:
        seconds, unknown = costs[cell]
        return cell[1] != REFERENCE, unknown, seconds

    found, total = [], 0.0
    for task in sorted(tasks, key=of_task):
        for cell in sorted(((task, method) for method in tasks[task]), key=of_method):
            seconds, unknown = costs[cell]
            total += math.nan if unknown else seconds
            found.append(Step(": ".join(cell), tasks[task][cell[1]], total))
    return found


class ProcessorTime:
    """What runs will take, by the rows of runs like them.

    Parameters
    ----------
    table : rows in the current schema.
    """

    def __init__(self, table: pa.Table) -> None:
        columns = ["task", "tier", "method", "set_hp", "status", "budget_kind", "budget", "trial", "cpu_seconds"]
        times: dict[tuple[str, ...], list[float]] = {}
        refused: set[tuple[str, ...]] = set()
        ratios: dict[tuple[str, bool], list[float]] = {}
        for row in table.select([*columns, "family", "cost_ratio"]).to_pylist():
            if row["cost_ratio"]:
                ratios.setdefault((row["method"], row["family"] == "pde"), []).append(row["cost_ratio"])
            if row["trial"] != -1 or row["budget_kind"] != "steps":
                continue
            arm = row["task"], row["tier"], row["method"], canonical(read_json(row["set_hp"]) or {})
            if row["status"] == "skipped":
                refused.update((arm, arm[:3]))
            elif row["status"] == "ok" and row["cpu_seconds"] and row["budget"] == _budget(*arm[:2]):
                for length in (2, 3, 4):
                    times.setdefault(arm[:length], []).append(row["cpu_seconds"])
        self.medians = dict.fromkeys(refused, 0.0) | {key: statistics.median(values) for key, values in times.items()}
        self.ratios = {key: statistics.median(values) for key, values in ratios.items()}

    def of(self, spec: RunSpec) -> float:
        """Processor seconds of a run: the median of its arm, else of its method, else of its task.

        Runs that were skipped, and never made, take none: a method that a task has no place for says so at once.

        The task's is multiplied by what a unit of the budget costs with each of
        the run's methods: as measured, on any task, else by the passes that a
        step takes. nan where the task has no rows with a time.
        """
        arm = spec.task, spec.tier, spec.method, canonical(spec.hp)
        for length in (4, 3):
            if arm[:length] in self.medians:
                return self.medians[arm[:length]]
        costs = [self._cost(entry, spec.info.family == "pde") for entry in spec.entries]
        return math.prod(costs) * self.medians.get(arm[:2], math.nan)

    def _cost(self, entry: Method, pde: bool) -> float:
        """Cost of a unit of budget: of a gradient evaluation on a PDE task, of a step elsewhere."""
        if (entry.name, pde) in self.ratios:
            return self.ratios[entry.name, pde]
        other = self.ratios.get((entry.name, not pde), entry.passes if pde else 1.0)
        return other / entry.passes if pde else other * entry.passes

    def total(self, specs: Iterable[RunSpec]) -> tuple[float, int]:
        """(processor seconds of the runs whose time is known, how many are not)."""
        seconds = [self.of(spec) for spec in specs]
        known = [x for x in seconds if not math.isnan(x)]
        return math.fsum(known), len(seconds) - len(known)


def _budget(task: str, tier: str) -> float | None:
    try:
        return registry().task(task).tiers[tier].budget
    except (RegistryError, KeyError):
        return None
