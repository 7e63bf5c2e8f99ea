"""Which published systems are on the board, what the others wait for, and how much has been run on each task."""

from __future__ import annotations

import csv
import functools
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources

from suite.registry import Method, TaskInfo

COLUMNS = ("id", "name", "paper", "arxiv", "slot", "track", "variants", "reason")
ON_BOARD, REGISTERED, WAITING = "on the board", "registered", "waiting"
NO_REASON = "not written yet"


class CoverageError(ValueError):
    """The table of systems is not what it says; the message names the line."""


@dataclass(frozen=True)
class System:
    """A published system that belongs on the board.

    Attributes
    ----------
    id : short name; methods state it as their ``system``.
    arxiv : ids of its papers.
    variants : method names it comes in.
    reason : why it isn't registered; "" when there is none but work.
    """

    id: str
    name: str
    paper: str
    arxiv: tuple[str, ...]
    slot: str
    track: str
    variants: tuple[str, ...]
    reason: str

    def owns(self, method: Method) -> bool:
        """Whether a registered method is one of its variants."""
        return (method.system or method.name) == self.id or (not method.system and method.name in self.variants)


@dataclass(frozen=True)
class Covered:
    """A system with its state.

    Attributes
    ----------
    registered : its registered methods.
    shown : those of them, and of its variants, with results on the board.
    """

    system: System
    registered: tuple[str, ...]
    shown: tuple[str, ...]

    @property
    def state(self) -> str:
        return ON_BOARD if self.shown else REGISTERED if self.registered else WAITING

    @property
    def why(self) -> str:
        """What a waiting system waits for."""
        return (self.system.reason or NO_REASON) if self.state == WAITING else ""


@functools.cache
def systems() -> tuple[System, ...]:
    """The project's table of systems, ``baselines/coverage.tsv``, by id.

    Raises
    ------
    CoverageError : a line has the wrong number of columns, or an id twice.
    """
    text = resources.files("baselines").joinpath("coverage.tsv").read_text(encoding="utf-8")
    return parse(text)


def parse(text: str) -> tuple[System, ...]:
    """Systems of a tab-separated table with the header `COLUMNS`."""
    rows = list(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise CoverageError(f"coverage.tsv:1: the columns must be {', '.join(COLUMNS)}")
    found: dict[str, System] = {}
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS) or not row[0]:
            raise CoverageError(f"coverage.tsv:{line}: {len(row)} columns, wanted {len(COLUMNS)}")
        if row[0] in found:
            raise CoverageError(f"coverage.tsv:{line}: {row[0]!r} stands there twice")
        name, title, paper, arxiv, slot, track, variants, reason = row
        found[name] = System(name, title, paper, _split(arxiv), slot, track, _split(variants), reason)
    return tuple(found[i] for i in sorted(found))


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def coverage(methods: Mapping[str, Method], shown: Collection[str]) -> list[Covered]:
    """Every system with its state, the same order as the table.

    Parameters
    ----------
    methods : the registry's methods by name.
    shown : methods with results on the board; a combination ``a+b`` shows both parts.
    """
    parts = {part for name in shown for part in (name, *name.split("+"))}
    found = []
    for system in systems():
        own = sorted(name for name, method in methods.items() if system.owns(method))
        known = sorted(parts & {*own, *(v for v in system.variants if v not in methods)})
        found.append(Covered(system, tuple(own), tuple(known)))
    return found


def unlisted(methods: Mapping[str, Method]) -> list[Method]:
    """Registered methods of no listed system: classics and rivals, by slot and name."""
    known = systems()
    return sorted(
        (m for m in methods.values() if not any(s.owns(m) for s in known)), key=lambda m: (m.slot, m.name)
    )  # fmt: skip


def counts(found: Collection[Covered]) -> Counter[str]:
    """Systems by state."""
    return Counter(c.state for c in found)


@dataclass(frozen=True)
class Progress:
    """How many of the methods meant for a task have been run on it.

    Attributes
    ----------
    slots : by slot that has such methods, (methods with a run, methods).
    """

    task: str
    slots: Mapping[str, tuple[int, int]]

    @property
    def total(self) -> tuple[int, int]:
        """(methods with a run, methods) of all slots."""
        return sum(done for done, _ in self.slots.values()), sum(meant for _, meant in self.slots.values())


def progress(task: TaskInfo, methods: Mapping[str, Method], run: Collection[str]) -> Progress:
    """Methods run on a task, by slot.

    Parameters
    ----------
    methods : the registry's methods by name.
    run : names of methods with a run on the task; one that failed or said why it cannot be made has one.
    """
    meant = [method for method in methods.values() if method.fits(task)]
    everything, done = (Counter(m.slot for m in found) for found in (meant, [m for m in meant if m.name in run]))
    return Progress(task.name, {slot: (done[slot], everything[slot]) for slot in sorted(everything)})
