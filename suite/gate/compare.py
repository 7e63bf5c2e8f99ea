"""The gate itself: which cells, on which seeds, held against which rule."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

import pandas as pd

from suite.gate.quality import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    REVIEW,
    T0_SEEDS,
    T2_SEEDS,
    Batch,
    Facts,
    Verdict,
    definition,
    failures,
    finished,
    identical,
    quality,
    unpaired,
)
from suite.gate.report import Report
from suite.gate.sides import Cell, GateError, Listing, Stored, Tree
from suite.gate.speed import TIME_MARGIN, TIME_MARGIN_CUDA, Timing, against_stored, counters, known, step_time
from suite.gate.stepping import Bench
from suite.recipe import REFERENCE
from suite.registry import UnknownName, registry


class Rows(NamedTuple):
    """Result rows of a cell, one a seed; `paired` where both sides have the same seeds."""

    base: pd.DataFrame
    head: pd.DataFrame
    paired: bool = True


@dataclass
class Gate:
    """Base against head.

    Attributes
    ----------
    base, head : the sides.
    seeds : seeds of the first batch, at most.
    cost : longest measurement of one step time, seconds; 0 leaves wall time out.
    say : takes a line of progress.
    """

    base: Tree | Stored
    head: Tree | Stored
    seeds: int = 5
    cost: float = 3.0
    say: Callable[[str], None] = lambda text: None
    found: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(
        self, tasks: Sequence[str] = (), methods: Sequence[str] = (), tier: str = "", device: str = "cpu"
    ) -> Report:
        """Verdicts on the cells of the tasks and methods named.

        Parameters
        ----------
        tasks, methods : names. No task: every one of the tier. No method: between two trees the
            reference and every method whose code differs, of stored results every one.
        tier : "" takes every stored tier, and "quick" between two trees.

        Raises
        ------
        UnknownName : neither side has a name.
        GateError : a side cannot be run, or there is nothing to compare.
        """
        started = time.monotonic()
        rows = self.judge(self._choose(tasks, methods, tier, device))
        self._speed([cell for cell, (base, head, _) in rows.items() if len(_good(base)) and len(_good(head))], rows)
        return Report(self.found, self.notes, time.monotonic() - started)

    def judge(self, facts: dict[Cell, Facts]) -> dict[Cell, Rows]:
        """Verdicts on failures, quality and definition of these cells; returns the rows of the first batch."""
        rows = self._first(facts)
        doubtful = [cell for cell, first in rows.items() if _doubtful(cell, facts[cell], first)]
        fresh = self._fresh(doubtful)
        for cell, first in rows.items():
            self.found += _verdicts(cell, facts[cell], first, fresh.get(cell))
        return rows

    # ------------------------------------------------------------ cells

    def _choose(self, tasks: Sequence[str], methods: Sequence[str], tier: str, device: str) -> dict[Cell, Facts]:
        """The cells of base that head has too; what head lacks is a FAIL, what is new there a note."""
        base, head = self._listings(tasks, methods, tier, device)
        _check_names("task", tasks, base.tasks, head.tasks)
        _check_names("method", [m for m in methods if m != REFERENCE], base.methods, head.methods)
        told = base.problems if isinstance(self.base, Stored) else []
        self.notes += [f"set aside: {p}" for p in [*told, *(p for p in head.problems if p not in base.problems)]]
        chosen = [cell for cell in base.cells if _wanted(cell, head)]
        if not methods and isinstance(self.base, Tree) and isinstance(self.head, Tree):
            chosen = [c for c in chosen if c.method == REFERENCE or base.cells[c] != head.cells.get(c)]
        there = {(c.tier, c.task, c.method) for c in head.cells}
        for cell in chosen:
            if (cell.tier, cell.task, cell.method) not in there:
                self._missing(cell, _gone(cell, base, head))
        new = {(c.task, c.method) for c in head.cells} - {(c.task, c.method) for c in base.cells}
        if new:
            self.notes.append(f"new in head, nothing to hold it against: {_listed(new)}")
        if not chosen:
            raise GateError("nothing to compare: base has no such cells at this tier")
        facts = {c: _facts(c, base, head) for c in chosen if (c.tier, c.task, c.method) in there}
        self.say(f"{len(facts)} cells")
        return facts

    def _listings(
        self, tasks: Sequence[str], methods: Sequence[str], tier: str, device: str
    ) -> tuple[Listing, Listing]:
        """Both sides' cells; a tree is asked at the tiers that the other side has stored."""
        stored = next((s.listing(tasks, methods, tier) for s in (self.base, self.head) if isinstance(s, Stored)), None)
        tiers = sorted({c.tier for c in stored.cells}) if stored else [tier or "quick"]

        def of(side: Tree | Stored) -> Listing:
            if isinstance(side, Stored):
                return side.listing(tasks, methods, tier)
            return Listing.union([side.listing(tasks, methods, t, device) for t in tiers or [tier or "quick"]])

        return of(self.base), of(self.head)

    def _missing(self, cell: Cell, why: str) -> None:
        self.found.append(Verdict(cell.task, cell.method, "presence", FAIL, why, tier=cell.tier))

    # ------------------------------------------------------------ runs

    def _seeds(self, cell: Cell) -> list[int] | None:
        """Seeds that both sides have; None: any."""
        have = [seeds for seeds in (self.base.seeds(cell), self.head.seeds(cell)) if seeds is not None]
        return sorted(set.intersection(*map(set, have))) if have else None

    def _run(self, wanted: dict[Cell, list[int]]) -> dict[Cell, Rows]:
        """Rows of both sides, base first; a cell that one of them lacks is left out."""
        if not wanted:
            return {}
        for side in (self.base, self.head):
            if isinstance(side, Tree):
                self.say(f"{side.label}: {sum(map(len, wanted.values()))} runs")
        cost = 0.0 if isinstance(self.base, Tree) and isinstance(self.head, Tree) else self.cost
        base, head = self.base.rows(wanted, cost), self.head.rows(wanted, cost)
        empty = pd.DataFrame(columns=next(iter({**base, **head}.values())).columns if base or head else [])
        return {cell: Rows(base.get(cell, empty), head.get(cell, empty)) for cell in wanted}

    def _first(self, facts: dict[Cell, Facts]) -> dict[Cell, Rows]:
        """The first batch: two seeds, and the rest of them where those are not bit-identical."""
        seeds = {c: (list(range(self.seeds)) if (s := self._seeds(c)) is None else s[: self.seeds]) for c in facts}
        for cell in [c for c, some in seeds.items() if not some]:
            self._missing(cell, "the two sides have no seed of it in common")
            del seeds[cell]
        rows = self._run({c: some[:T0_SEEDS] for c, some in seeds.items()})
        rows = {c: both for c, both in rows.items() if self._ran(c, both)}
        more = {c: seeds[c] for c, both in rows.items() if not identical(both.base, both.head)}
        return rows | self._run({c: some for c, some in more.items() if len(some) > T0_SEEDS})

    def _ran(self, cell: Cell, rows: Rows) -> bool:
        """Whether there is something to compare; says what is wrong where there is not."""
        for side in (self.base, self.head):
            if isinstance(side, Tree) and cell in side.refused:
                self._missing(cell, f"{side.label} cannot run it: {side.refused[cell]}")
                return False
        skipped = [len(part) > 0 and bool((part["status"] == "skipped").all()) for part in rows[:2]]
        if skipped[0]:
            self.notes.append(f"{cell.task}, {cell.method}: skipped: {rows.base['message'].iloc[0]}")
        elif skipped[1]:
            self._missing(cell, f"head skips it: {rows.head['message'].iloc[0]}")
        elif rows.base.empty or rows.head.empty:
            self._missing(cell, f"{'base' if rows.base.empty else 'head'} gave no result")
        else:
            return True
        return False

    def _fresh(self, cells: Iterable[Cell]) -> dict[Cell, Rows]:
        """The second batch (T2): seeds that the first did not have.

        Stored runs cannot be made again. Where they have two seeds more, those
        are taken; else the other side runs fresh seeds and meets all the stored
        ones, unpaired and at a stricter level.
        """
        paired: dict[Cell, list[int]] = {}
        alone: dict[Cell, list[int]] = {}
        for cell in cells:
            seeds = self._seeds(cell)
            if seeds is None:
                paired[cell] = list(range(self.seeds, self.seeds + T2_SEEDS))
            elif len(seeds) >= self.seeds + 2:
                paired[cell] = seeds[self.seeds : self.seeds + T2_SEEDS]
            elif isinstance(self.base, Tree) or isinstance(self.head, Tree):
                alone[cell] = list(range(max(seeds) + 1, max(seeds) + 1 + T2_SEEDS))
        found = self._run(paired)
        for cell, seeds in alone.items():
            stored = {cell: self._seeds(cell) or []}
            sides = [s.rows({cell: seeds} if isinstance(s, Tree) else stored) for s in (self.base, self.head)]
            if all(cell in side for side in sides):
                found[cell] = Rows(sides[0][cell], sides[1][cell], paired=False)
        return found

    # ------------------------------------------------------------ speed

    def _speed(self, cells: list[Cell], rows: dict[Cell, Rows]) -> None:
        """Exact counters of every cell, then step times; one that does not pass is measured once more, afresh."""
        trees = isinstance(self.base, Tree) and isinstance(self.head, Tree)
        timings = self._stepped(cells) if trees else self._stored_timings(cells, rows)
        again = [c for c, (first,) in timings.items() if first.decide(_margin(c))[0] != PASS]
        confirmed = self._stepped(again, confirming=True) if trees else self._measured_again(again, rows)
        for cell, found in timings.items():
            found += confirmed.get(cell, [])
            self.found.append(step_time(cell.task, cell.method, found, _margin(cell), tier=cell.tier))

    def _stepped(self, cells: list[Cell], confirming: bool = False) -> dict[Cell, list[Timing]]:
        """Counts and step times of two trees, in fresh processes of both."""
        assert isinstance(self.base, Tree) and isinstance(self.head, Tree)
        timings: dict[Cell, list[Timing]] = {}
        bench: Bench | None = None
        with ExitStack() as stack:
            for cell in cells:
                self.say(f"{'once more: ' if confirming else ''}step of {cell.method} on {cell.task}")
                try:
                    bench = bench or stack.enter_context(Bench(self.base, self.head, arm=self.cost > 0))
                    measured = bench.measure(cell.spec(0), cell.spec(0), self.cost)
                except GateError as error:
                    stack.close()
                    bench = None
                    self._unmeasured(cell, str(error))
                    continue
                if not confirming:
                    seconds = measured.seconds - (measured.timing.seconds if measured.timing else 0.0)
                    more = {"tier": cell.tier, "seconds": seconds}
                    self.found += counters(cell.task, cell.method, measured.base, measured.head, **more)
                if measured.timing is not None:
                    timings[cell] = [measured.timing]
        return timings

    def _unmeasured(self, cell: Cell, why: str) -> None:
        rule = f"could not be measured: {why}"
        self.found.append(Verdict(cell.task, cell.method, "step time", INCONCLUSIVE, rule, tier=cell.tier))

    def _stored_timings(self, cells: list[Cell], rows: dict[Cell, Rows]) -> dict[Cell, list[Timing]]:
        """Counts of the stored rows, and the ratio to the reference then and now."""
        timings = {}
        for cell in cells:
            base, head = (_good(part).iloc[0].to_dict() for part in rows[cell][:2])
            self.found += counters(cell.task, cell.method, base, head, tier=cell.tier)
            measured = all(known(row[k]) for row in (base, head) for k in ("cost_ratio", "cost_low", "cost_high"))
            if self.cost and cell.method != REFERENCE and measured:
                timings[cell] = [against_stored(base, head)]
        return timings

    def _measured_again(self, cells: list[Cell], rows: dict[Cell, Rows]) -> dict[Cell, list[Timing]]:
        """The ratio to the reference measured once more, with the reference against itself beside it."""
        timings = {}
        for cell in cells:
            if not isinstance(self.head, Tree):
                continue  # stored on both sides: nothing can be measured
            self.say(f"once more: step of {cell.method} on {cell.task}")
            started = time.monotonic()
            try:
                found = self.head.measure(cell, self.cost)
            except GateError as error:
                self.say(f"{cell.method} on {cell.task} could not be measured again: {error}")
                continue
            stored = _good(rows[cell].base).iloc[0].to_dict()
            itself = abs(math.log(found["itself"]["cost_ratio"]))
            timing = against_stored(stored, found["cost"], itself)
            timings[cell] = [replace(timing, seconds=time.monotonic() - started)]
        return timings


# ---------------------------------------------------------------- helpers


def _check_names(kind: str, wanted: Sequence[str], base: Sequence[str], head: Sequence[str]) -> None:
    known = {*base, *head}
    for name in wanted:
        if name not in known and not set(name.split("+")) <= known:
            near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UnknownName(f"neither base nor head has a {kind} named {name!r}{hint}")


def _wanted(cell: Cell, head: Listing) -> bool:
    """Whether a cell is a method's result; the reference at other budgets is the ladder, and no method's."""
    budget = head.facts.get((cell.tier, cell.task), {}).get("budget")
    info = registry().find_task(cell.task)
    if budget is None and info and cell.tier in info.tiers:  # stored on both sides
        budget = float(info.tiers[cell.tier].budget)
    return cell.method != REFERENCE or budget in (None, cell.budget)


def _gone(cell: Cell, base: Listing, head: Listing) -> str:
    """Why head has no such cell, with what may be its new name."""
    if cell.task not in head.tasks:
        kind, name, new = "task", cell.task, set(head.tasks) - set(base.tasks)
    elif cell.method not in (*head.methods, REFERENCE) and "+" not in cell.method:
        kind, name, new = "method", cell.method, set(head.methods) - set(base.methods)
    else:
        return f"head has no cell of {cell.method} on {cell.task} at tier {cell.tier}: a cell that is gone is a failure"
    hint = f"; new there: {_listed(new)}: a rename is a failure too" if new else ""
    return f"head has no {kind} named {name}{hint}"


def _listed(names: Iterable[object]) -> str:
    words = sorted(" ".join(name[::-1]) if isinstance(name, tuple) else str(name) for name in names)
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")


def _facts(cell: Cell, base: Listing, head: Listing) -> Facts:
    """What is known of the cell's task; base's word counts before head's, and head's before this code's."""
    info = registry().find_task(cell.task)
    stated = asdict(Facts.of(info, cell.tier)) if info else {}
    for side in (head, base):
        stated |= side.facts.get((cell.tier, cell.task), {})
    return Facts(cell.task, cell.tier, stated["direction"], stated.get("best"), stated.get("sd"), stated.get("floor"))


def _doubtful(cell: Cell, facts: Facts, first: Rows) -> bool:
    """Whether fresh seeds may change the verdict: quality is open, and no run is lost that was not before."""
    verdict = quality(facts, cell.method, first.base, first.head)
    lost = failures(facts, cell.method, first.base, first.head).verdict == FAIL
    return not lost and verdict.verdict != PASS and not verdict.rule.startswith(REVIEW)


def _verdicts(cell: Cell, facts: Facts, first: Rows, fresh: Rows | None) -> list[Verdict]:
    """Verdicts on failures, quality and definition of one cell."""
    parts = [first, *([fresh] if fresh is not None and fresh.paired else [])]
    base, head = (pd.concat([part[side] for part in parts], ignore_index=True) for side in (0, 1))

    def again() -> Batch | None:
        return None if fresh is None else (finished if fresh.paired else unpaired)(fresh.base, fresh.head)

    ran = [*first[:2], *(fresh[:2] if fresh is not None else ())]
    seconds = sum(float(rows[["train_seconds", "eval_seconds", "setup_seconds"]].sum().sum()) for rows in ran)
    return [
        failures(facts, cell.method, base, head),
        replace(quality(facts, cell.method, first.base, first.head, again), seconds=seconds),
        *definition(facts, cell.method, base, head),
    ]


def _good(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["status"] == "ok"]


def _margin(cell: Cell) -> float:
    return TIME_MARGIN if cell.device == "cpu" else TIME_MARGIN_CUDA
