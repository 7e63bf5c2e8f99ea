"""Which runs claims still need, and in what order they are made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from suite.claims import Arm, Claim, recipe_of
from suite.effort import ProcessorTime, Step
from suite.plain import canonical, read_json
from suite.recipe import REFERENCE
from suite.registry import RegistryError
from suite.runner.spec import RunSpec

if TYPE_CHECKING:
    import pyarrow as pa

_Cell = tuple[str, str, int, str]  # task, tier, seed, recipe: what a verdict asks for, whatever its name


@dataclass(frozen=True)
class Plan:
    """Runs by claim.

    Attributes
    ----------
    wanted : both sides of each claim on its tasks, each recipe under one name.
    missing : those of them that no stored row stands for.
    """

    wanted: Mapping[str, list[RunSpec]]
    missing: Mapping[str, list[RunSpec]]

    def steps(self, times: ProcessorTime) -> list[Step]:
        """The claims that lack runs, the one first that needs the least beside the runs of those before it.

        Claims come later that need a run whose time is not known. No run
        stands in two steps.
        """
        every = {spec.run_id: spec for specs in self.missing.values() for spec in specs}
        seconds = {run: times.of(spec) for run, spec in every.items()}
        left = {name: dict.fromkeys(spec.run_id for spec in specs) for name, specs in self.missing.items() if specs}

        def cost(name: str) -> tuple[int, float]:
            known = [seconds[run] for run in left[name] if not math.isnan(seconds[run])]
            return len(left[name]) - len(known), math.fsum(known)

        found, total = [], 0.0
        while left:
            name = min(left, key=cost)  # the ledger's order where two need the same
            runs = left.pop(name)
            total += math.fsum(seconds[run] for run in runs)
            found.append(Step(name, [every[run] for run in runs], total))
            for others in left.values():
                for run in runs:
                    others.pop(run, None)
        return found


def plan(claims: Iterable[Claim], seeds: Sequence[int], table: pa.Table, device: str = "cpu") -> Plan:
    """The runs of claims, and which of them result rows leave to be made.

    A side that is a task's reference by another name is planned as the
    reference. A row stands for every run of its recipe, under whatever name it
    was made, as long as its code is today's.

    Parameters
    ----------
    table : rows in the current schema (`suite.store.files.Read.table`).
    """
    cells: dict[_Cell, RunSpec] = {}
    needed: dict[str, list[_Cell]] = {}
    for claim in claims:
        mine = {}
        for task in claim.tasks:
            reference = recipe_of(task, Arm(REFERENCE))
            for arm in claim.arms.values():
                recipe = recipe_of(task, arm)
                name = Arm(REFERENCE) if recipe == reference else arm
                for seed in seeds:
                    cell = task, claim.tier, seed, recipe
                    spec = RunSpec(task, name.method, claim.tier, seed, dict(name.hp), device=device)
                    mine[cell] = cells.setdefault(cell, spec)
        needed[claim.id] = list(mine)
    there = _there(cells, table, device)
    wanted = {name: [cells[cell] for cell in mine] for name, mine in needed.items()}
    missing = {name: [cells[cell] for cell in mine if cell not in there] for name, mine in needed.items()}
    return Plan(wanted, missing)


def _there(cells: Mapping[_Cell, RunSpec], table: pa.Table, device: str) -> set[_Cell]:
    """The cells that have a row of today's code."""
    columns = ["run_id", "task", "tier", "seed", "method", "set_hp", "recipe", "status"]
    found = set()
    for row in table.select(columns).to_pylist():
        cell = row["task"], row["tier"], row["seed"], canonical(read_json(row["recipe"]) or {})
        if cell in cells and row["status"] != "skipped" and row["run_id"] == _id_today(row, device):
            found.add(cell)
    return found


def _id_today(row: Mapping[str, Any], device: str) -> str | None:
    """The id that a row's run would have now; None where it is no run any more."""
    settings = read_json(row["set_hp"]) or {}
    try:
        return RunSpec(row["task"], row["method"], row["tier"], row["seed"], settings, device=device).run_id
    except (RegistryError, ValueError):
        return None
