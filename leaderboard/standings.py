"""Slot tables: methods of one slot over the tasks of a slice, with their headline, ranks and ties."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from leaderboard.model import NOT_RUN, NOWHERE, Board, Cell, Run, Sheet, Slice, entry_of, places_of, stats_frame
from suite.recipe import REFERENCE
from suite.slots import SLOTS
from suite.stats import Board as StatsBoard
from suite.stats import mean_interval, suite_speedups
from suite.stats.board import SD_CLIP
from suite.stats.speedup import seed_interval
from suite.store.schema import SMOKE


class Estimate(NamedTuple):
    """A mean over tasks with two intervals.

    Attributes
    ----------
    value : the mean.
    seeds_low, seeds_high : 95% interval over seeds, for exactly these tasks.
    low, high : 95% interval over tasks and seeds, for tasks like these; nan for one task.
    tasks : tasks counted.
    """

    value: float
    seeds_low: float
    seeds_high: float
    low: float
    high: float
    tasks: int


@dataclass(frozen=True)
class Standing:
    """One method's row.

    Attributes
    ----------
    cells : a cell for each task of the table; None where there is none.
    fits : for each task, whether the method is meant for it.
    speedup, gain : headline on the tasks with a ladder, and in seed standard
        deviations of the reference; None where no task counts.
    letters, rank, group : its place over seeds, on the tasks of the table (see `model.Place`).
    partial : whether it was run on too few tasks to have a place (see `partly_run`).
    """

    method: str
    cells: tuple[Cell | None, ...]
    fits: tuple[bool, ...]
    speedup: Estimate | None = None
    gain: Estimate | None = None
    letters: str = ""
    rank: tuple[int, int, int] | None = None
    group: int = 0
    partial: bool = False

    def estimate(self, headline: str) -> Estimate | None:
        """The headline by its name."""
        return self.speedup if headline == "speedup" else self.gain if headline == "gain" else None

    def verdict(self, headline: str) -> str:
        """better, worse or tied by the headline's interval over seeds; open where it is unknown."""
        found, even = self.estimate(headline), 1.0 if headline == "speedup" else 0.0
        if self.method == REFERENCE:
            return "reference"
        if found is None or not math.isfinite(found.seeds_low):
            return "open"
        return "better" if found.seeds_low > even else "worse" if found.seeds_high < even else "tied"

    @cached_property
    def verdicts(self) -> dict[str, int]:
        """Tasks by verdict."""
        found = [c.verdict for c in self.cells if c is not None]
        return {v: found.count(v) for v in set(found)}

    def tasks(self, *verdicts: str) -> int:
        return sum(self.verdicts.get(v, 0) for v in verdicts)

    @property
    def covered(self) -> int:
        """Tasks with an attempted run."""
        return sum(c is not None and c.attempted > 0 for c in self.cells)

    @property
    def possible(self) -> int:
        """Tasks of the table that the method is meant for."""
        return sum(self.fits)

    @property
    def missing(self) -> int:
        """Tasks that the method is meant for, and that nobody ran it on."""
        return sum(fits and (c is None or not c.attempted) for c, fits in zip(self.cells, self.fits, strict=True))

    @cached_property
    def cost(self) -> float:
        """Geometric mean over tasks of the step time relative to the reference's; nan where unmeasured."""
        logs = [math.log(c.cost.value) for c in self.cells if c is not None and c.cost.value > 0]
        return math.exp(math.fsum(logs) / len(logs)) if logs else math.nan


@dataclass(frozen=True)
class SlotTable:
    """Methods of one slot on the tasks they share.

    Attributes
    ----------
    sheets : the tasks.
    rows : in the order of the headline, the reference among them; those run on too few tasks last.
    headline : "speedup" where every task has a ladder, else "gain"; "" where there is nothing to order by.
    blunt : tasks whose ladder is too flat to count in effective speedups.
    leaders : methods that share first place.
    stats : the statistics board that headline, ranks and ties come from; None without a usable task.
    """

    slot: str
    sheets: tuple[Sheet, ...]
    rows: tuple[Standing, ...]
    headline: str
    leaders: tuple[str, ...]
    stats: StatsBoard | None
    blunt: tuple[str, ...] = ()

    @property
    def has_speedup(self) -> bool:
        return any(row.speedup for row in self.rows)

    @property
    def laddered(self) -> int:
        """Tasks that effective speedups count."""
        return sum(s.usable and bool(s.rungs) and s.task not in self.blunt for s in self.sheets)

    @property
    def has_cost(self) -> bool:
        """Whether the step time of any method was measured."""
        return any(math.isfinite(row.cost) for row in self.rows if row.method != REFERENCE)

    @property
    def partial(self) -> int:
        """Methods without a place, for they were run on too few tasks."""
        return sum(row.partial for row in self.rows)


@dataclass(frozen=True)
class SliceStats:
    """The statistics boards of a slice's sheets; slot tables are cut from them.

    Attributes
    ----------
    laddered : tasks with a finished reference and a ladder that is sharp (`suite.stats.Board.sharp`), on the scale
        of effective speedups.
    blunt : tasks whose ladder is not.
    spread : tasks whose reference finished at least twice, in its seed standard deviations.
    """

    laddered: StatsBoard | None
    blunt: tuple[str, ...]
    spread: StatsBoard | None

    @classmethod
    def of(cls, sheets: Sequence[Sheet]) -> SliceStats:
        usable = [s for s in sheets if s.usable]
        laddered = _stats_board([s for s in usable if s.rungs], ladder=True)
        blunt: tuple[str, ...] = ()
        if laddered is not None and not laddered.sharp.all():
            blunt = tuple(t for t, sharp in zip(laddered.cells.tasks, laddered.sharp, strict=True) if not sharp)
            rest = [t for t in laddered.cells.tasks if t not in blunt]
            laddered = laddered.only(tasks=rest) if rest else None
        return cls(
            laddered,
            blunt,
            _stats_board([s for s in usable if s.reference is not None and s.reference.n > 1]),
        )

    def cut(self, methods: Sequence[str], tasks: Sequence[str]) -> tuple[StatsBoard | None, StatsBoard | None]:
        """The laddered and the spread board of some methods and tasks, as far as it has them; None without a task."""

        def part(board: StatsBoard | None) -> StatsBoard | None:
            known = [] if board is None else [t for t in tasks if t in board.cells.tasks]
            if board is None or not known:
                return None
            return board.only([m for m in methods if m in board.cells.methods], known)

        return part(self.laddered), part(self.spread)


def slot_tables(sheets: Sequence[Sheet], stats: SliceStats) -> list[SlotTable]:
    """A table for each slot that the sheets have methods of, in the order of the slots."""
    by_slot: dict[str, set[str]] = {}
    for sheet in sheets:
        for cell in sheet.others:
            by_slot.setdefault(cell.first.slot, set()).add(cell.method)
    order = [s for s in SLOTS if s in by_slot] + sorted(set(by_slot) - set(SLOTS))
    return [_table(slot, sorted(by_slot[slot]), sheets, stats) for slot in order]


def _table(slot: str, methods: list[str], sheets: Iterable[Sheet], stats: SliceStats) -> SlotTable:
    shown = tuple(s for s in sheets if any(m in s.cells for m in methods))
    usable = [s.task for s in shown if s.usable]
    laddered, spread = stats.cut([REFERENCE, *methods], usable)
    blunt = tuple(t for t in usable if t in stats.blunt)
    whole = laddered is not None and len(laddered.cells.tasks) + len(blunt) == len(usable)
    speedups = _speedups(laddered)
    gains = {} if whole else _gains(spread)
    board = laddered if whole else spread
    few = partly_run(methods, [s for s in shown if board and s.task in board.cells.tasks])
    placed = board.only([m for m in board.cells.methods if m not in few]) if board and few else board
    places = places_of(placed) if placed else {}
    leaders = tuple(m for m, place in places.items() if place.rank and place.rank[1] == 1)
    rows = [
        Standing(
            m,
            tuple(s.cells.get(m) for s in shown),
            tuple(_fits(m, s) for s in shown),
            speedups.get(m),
            gains.get(m),
            *places.get(m, NOWHERE),
            m in few,
        )
        for m in (REFERENCE, *methods)
        if m != REFERENCE or usable
    ]
    headline = "speedup" if whole else "gain" if gains else ""

    def key(row: Standing) -> tuple[bool, bool, float, bool, str]:
        found = row.estimate(headline)
        value = found.value if found else math.nan
        unknown = math.isnan(value)
        return (row.partial, unknown, 0.0 if unknown else -value, row.method != REFERENCE, row.method)

    return SlotTable(slot, shown, tuple(sorted(rows, key=key)), headline, leaders, board, blunt)


def partly_run(methods: Iterable[str], sheets: Sequence[Sheet]) -> frozenset[str]:
    """Methods run on fewer than half of the tasks that are meant for them and that most were run on.

    A task counts for this where at least half of the methods meant for it were run, so
    that nobody falls behind for a task that hardly anyone has run. Whoever ran a method
    where it is good, and nowhere else, gets no place. A run that says that it cannot be
    made leaves the task out.
    """
    tried = {
        m: {s.task: m in s.cells for s in sheets if (s.cells[m].attempted if m in s.cells else _fits(m, s))}
        for m in methods
    }
    votes: dict[str, list[bool]] = {}
    for tasks in tried.values():
        for task, run in tasks.items():
            votes.setdefault(task, []).append(run)
    common = {task for task, runs in votes.items() if 2 * sum(runs) >= len(runs)}
    shares = {m: [run for task, run in tasks.items() if task in common] for m, tasks in tried.items()}
    return frozenset(m for m, runs in shares.items() if 2 * sum(runs) < len(runs))


def _fits(method: str, sheet: Sheet) -> bool:
    """Whether the method is meant for the task, as far as this release knows both; so it is wherever it was run."""
    if method in sheet.cells:
        return True
    parts = [part for name in method.split("+") if (part := entry_of(name)) is not None]
    if sheet.info is None:
        return all(sheet.first.family in part.families for part in parts)
    return all(part.fits(sheet.info) for part in parts)


def _stats_board(sheets: Sequence[Sheet], ladder: bool = False) -> StatsBoard | None:
    runs = [r for s in sheets for c in s.cells.values() for r in c.runs if r.status != NOT_RUN]
    if not runs:
        return None
    noise = {s.task: s.noise[0] for s in sheets if s.noise[0] > 0}
    board = StatsBoard.of(stats_frame(runs), ladder_frame(sheets) if ladder else None, noise=noise)
    _ = board.variances, board.run_values  # what the tables cut from it take over, computed once
    return board


def ladder_frame(sheets: Iterable[Sheet]) -> pd.DataFrame:
    """The reference's finished runs at other budgets, as `suite.stats` takes them."""
    rows = [
        (s.task, share, run.seed, run.status, run.score)
        for s in sheets
        for share, runs in s.rungs.items()
        for run in _one_a_seed(runs)
    ]
    return pd.DataFrame(rows, columns=["task", "budget", "seed", "status", "score"])


def _one_a_seed(runs: Iterable[Run]) -> list[Run]:
    latest = {r.seed: r for r in sorted(runs, key=lambda r: (r.finished, r.run_id))}
    return [latest[s] for s in sorted(latest)]


def _speedups(board: StatsBoard | None) -> dict[str, Estimate]:
    """Geometric mean of the effective speedups over the tasks that have a ladder."""
    if board is None:
        return {}
    frame = suite_speedups(board)
    columns = ["speedup", "seeds_low", "seeds_high", "low", "high", "tasks"]
    rows = frame[columns].itertuples(index=False, name=None)
    return {str(m): Estimate(*row) for m, row in zip(frame["method"], rows, strict=True)}


def _gains(board: StatsBoard | None) -> dict[str, Estimate]:
    """Mean difference to the reference in its seed standard deviations, clipped to +-6, a failed run counting -6."""
    if board is None:
        return {}
    found = {}
    for m, method in enumerate(board.cells.methods):
        counted = np.isfinite(board.values[m])
        if not counted.any():
            continue
        values = board.values[m, counted]
        both = mean_interval(values, board.level, board.rounds, board.seed)
        freedom = board.freedom[m, counted].astype(float)
        seeds = seed_interval(values, board.variances[m, counted], freedom, board.level)
        a, b, c, d = np.clip([seeds.low, seeds.high, both.low, both.high], -SD_CLIP, SD_CLIP).tolist()
        found[method] = Estimate(both.value, a, b, c, d, len(values))
    return found


def families(sheets: Iterable[Sheet]) -> list[str]:
    """Families of the sheets, sorted."""
    return sorted({s.first.family for s in sheets if s.first.family})


@dataclass(frozen=True)
class Overview:
    """A slice, or one family of it, ready to print.

    Attributes
    ----------
    family : "" for all families.
    """

    slice: Slice
    family: str
    sheets: tuple[Sheet, ...]
    tables: tuple[SlotTable, ...]

    @cached_property
    def runs(self) -> list[Run]:
        return [r for s in self.sheets for c in s.cells.values() for r in c.runs]

    @property
    def methods(self) -> int:
        return len({c.method for s in self.sheets for c in s.others})

    @property
    def failed(self) -> int:
        return sum(r.failed for r in self.runs)

    @property
    def has_speedup(self) -> bool:
        return any(table.has_speedup for table in self.tables)

    @property
    def has_cost(self) -> bool:
        return any(table.has_cost for table in self.tables)

    @cached_property
    def overall(self) -> list[tuple[SlotTable, Standing]]:
        """Every method of every slot with its own slot's table, by effective speedup, then by mean gain, best first.

        Methods run on too few tasks to have a place stand last.
        """
        rows = [(table, row) for table in self.tables for row in table.rows if row.method != REFERENCE]

        def key(pair: tuple[SlotTable, Standing]) -> tuple[bool, float, float, str]:
            row, found = pair[1], (pair[1].speedup, pair[1].gain)
            speedup, gain = (math.inf if e is None or math.isnan(e.value) else -e.value for e in found)
            return row.partial, speedup, gain, row.method

        return sorted(rows, key=key)

    @property
    def cells(self) -> tuple[int, int]:
        """Cells with a finished run, and cells that the tables' methods are meant for."""
        rows = [r for t in self.tables for r in t.rows if r.method != REFERENCE]
        return sum(c is not None and c.n > 0 for r in rows for c in r.cells), sum(r.possible for r in rows)


class Protocol(NamedTuple):
    """How methods do under another protocol of the tier: tuned, or at equal device time.

    Attributes
    ----------
    rows : method -> its headline's name and its row.
    """

    slice: Slice
    rows: dict[str, tuple[str, Standing]]

    def covers(self, table: SlotTable) -> bool:
        """Whether a method of the table was run under it."""
        return any(row.method in self.rows for row in table.rows)

    def estimate(self, method: str) -> tuple[Estimate | None, str, str]:
        """A method's headline, the headline's name and the verdict; None where it was not run."""
        headline, row = self.rows.get(method, ("", None))
        return (row.estimate(headline), headline, row.verdict(headline)) if row else (None, "", "none")


def protocols(views: Iterable[Overview]) -> dict[str, list[Protocol]]:
    """Tier -> its protocols beside default hyper-parameters at equal steps."""
    found: dict[str, list[Protocol]] = {}
    for view in views:
        if not view.slice.main:
            rows = {r.method: (t.headline, r) for t in view.tables for r in t.rows if r.method != REFERENCE}
            found.setdefault(view.slice.tier, []).append(Protocol(view.slice, rows))
    return found


def overviews(board: Board) -> list[Overview]:
    """Every slice, and of the main ones every family by itself where there are several.

    Every interval, rank and tie is computed from the tasks of its own overview only.
    """
    found = []
    for part in board.slices:
        sheets = board.of_slice(part)
        stats = SliceStats.of(sheets if part.tier != SMOKE else [])  # what is no evidence has no order
        names = families(sheets)
        for family in ("", *(names if part.main and len(names) > 1 else ())):
            chosen = tuple(s for s in sheets if not family or s.first.family == family)
            found.append(Overview(part, family, chosen, tuple(slot_tables(chosen, stats))))
    return found
