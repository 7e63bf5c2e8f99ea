"""One method held against the reference or against stored results: what the pytest plugin asserts."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from suite.gate.compare import Gate
from suite.gate.quality import Facts
from suite.gate.report import Report
from suite.gate.sides import Cell, GateError, Stored, Tree
from suite.recipe import REFERENCE
from suite.registry import registry


@dataclass
class ReferenceOf(Tree):
    """A tree that gives the reference's rows, whichever method is asked for."""

    def rows(self, wanted: dict[Cell, list[int]], cost: float = 0.0) -> dict[Cell, pd.DataFrame]:
        stands_for = {cell: _reference(cell) for cell in wanted}
        found = super().rows({stands_for[cell]: seeds for cell, seeds in wanted.items()}, cost)
        return {cell: found[other] for cell, other in stands_for.items() if other in found}


def _reference(cell: Cell) -> Cell:
    return Cell(cell.tier, cell.task, REFERENCE, "{}", cell.budget, cell.device)


def installed() -> Path:
    """The source tree of the running code."""
    return Path(__file__).resolve().parent.parent.parent


def against_reference(tasks: Sequence[str], methods: Sequence[str], tier: str, seeds: int, folder: Path) -> Report:
    """Whether methods are no worse than the reference of each task, by the gate's rules on the same seeds.

    Parameters
    ----------
    tasks, methods : names.
    folder : where the runs go; those that are there are not made again.

    Raises
    ------
    UnknownName : no such task or method.
    GateError : no task has the tier and the method's slot.
    """
    started = time.monotonic()
    base, head = (kind(installed(), folder, label, os.cpu_count() or 1) for kind, label in _KINDS)
    facts = {}
    for info in map(registry().task, tasks):
        for method in methods:
            if tier in info.tiers and all(registry().method(part).fits(info) for part in method.split("+")):
                cell = Cell(tier, info.name, method, "{}", float(info.tiers[tier].budget))
                facts[cell] = Facts.of(info, tier)
    if not facts:
        raise GateError(f"no task of {', '.join(tasks)} has the tier {tier!r} and the slot of {', '.join(methods)}")
    gate = Gate(base, head, seeds, 0.0)
    gate.judge(facts)
    return Report(gate.found, gate.notes, time.monotonic() - started)


_KINDS: tuple[tuple[type[Tree], str], ...] = ((ReferenceOf, "reference"), (Tree, "method"))


def against_results(
    results: Path, tasks: Sequence[str], methods: Sequence[str], tier: str, seeds: int, folder: Path, cost: float = 0.0
) -> Report:
    """Whether methods are still what stored results say, the reference's own rows among them.

    Parameters
    ----------
    results : results folder.
    cost : longest measurement of one step cost, seconds; 0 leaves wall time and per-step counters out.
    """
    import suite

    base, head = Stored(suite.load_results(results)), Tree(installed(), folder, "head", os.cpu_count() or 1)
    return Gate(base, head, seeds, cost).report(tasks, methods, tier)
