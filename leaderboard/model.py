"""What the pages show, computed from result rows: slices, sheets, cells and their comparisons."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from leaderboard.charts import extent
from leaderboard.text import slug
from suite.recipe import REFERENCE
from suite.registry import Method, TaskInfo, registry
from suite.stats import NO_VALUES, Interval, compare_all, rank_intervals, t_interval, tie_letters, tier_groups
from suite.stats import Board as StatsBoard
from suite.stats.intervals import sample_sd
from suite.store.files import texts
from suite.store.schema import FIRST_HAND, SMOKE

NAN = float("nan")
TIERS = ("quick", "standard", "full", "smoke")  # smoke last: it is no evidence
DAMAGED = "damaged"  # kind of an exhibit that cannot be read
OLDER = "older code of the task or method"
FLOOR_WORDS = "the task's floor, as its seeds differ by less"
TUNING_SEEDS = 1_000_000  # seed indices from here on belong to a search, not to its report
SEARCHED = "trials of a search"
LETTERED = 80  # methods up to which ties have letters
FAILURES = {"diverged": "diverged", "oom": "out of memory", "timeout": "timed out"}  # others: "failed"
NOT_RUN = "skipped"  # the status of a run that was not attempted
UNVERIFIED = "self-reported: nobody has run it again"

_TEXT = (
    "run_id", "task", "task_hash", "family", "method", "slot", "method_hash", "hp", "set_hp", "tier", "budget_kind",
    "budget_unit", "status", "message", "metric", "unit", "direction", "digest", "environment", "environment_hash",
    "commit", "trust",
)  # fmt: skip
_NUMBERS = (
    "budget", "score", "val_score", "spent", "flops", "train_seconds", "cost_ratio", "cost_low", "cost_high",
)  # fmt: skip
_COUNTS = ("task_version", "attempts", "steps", "parameters", "peak_bytes")
_INDICES = {"seed": 0, "trial": -1, "trials": 0}  # whole numbers and what stands for a missing one


class Run(NamedTuple):
    """One result row as the pages use it: text "" and numbers nan where missing, `row` its place in the table."""

    row: int
    run_id: str
    task: str
    task_hash: str
    family: str
    method: str
    slot: str
    method_hash: str
    hp: str
    set_hp: str
    tier: str
    budget_kind: str
    budget_unit: str
    status: str
    message: str
    metric: str
    unit: str
    direction: str
    digest: str
    environment: str
    environment_hash: str
    commit: str
    trust: str
    budget: float
    score: float
    val_score: float
    spent: float
    flops: float
    train_seconds: float
    cost_ratio: float
    cost_low: float
    cost_high: float
    task_version: float
    attempts: float
    steps: float
    parameters: float
    peak_bytes: float
    seed: int
    trial: int
    trials: int
    dirty: bool
    finished: int

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def failed(self) -> bool:
        return self.status not in ("ok", NOT_RUN)


class Slice(NamedTuple):
    """Runs that may be compared with each other; nothing is ever mixed across slices.

    Attributes
    ----------
    tier : smoke, quick, standard or full.
    kind : budget kind, "steps" or "seconds".
    trials : tuning trials behind every method, 0 for default hyper-parameters.
    hardware : machine class of a "seconds" slice, "" for steps.
    """

    tier: str
    kind: str = "steps"
    trials: int = 0
    hardware: str = ""

    @property
    def main(self) -> bool:
        """Default hyper-parameters at equal steps: what the index shows."""
        return self.kind == "steps" and not self.trials

    @property
    def key(self) -> str:
        """Name for files and anchors."""
        parts = [self.tier]
        if self.trials:
            parts.append(f"tuned{self.trials}")
        if self.kind == "seconds":
            parts.append(f"seconds-{self.hardware}")
        return "-".join(parts)

    @property
    def title(self) -> str:
        """A column's name."""
        parts = [f"best of {self.trials}"] if self.trials else []
        parts += ["equal seconds"] if self.kind == "seconds" else []
        return ", ".join(parts) or "default"

    @property
    def protocol(self) -> str:
        """What was held equal, in words."""
        tuning = f"best of {self.trials} trials" if self.trials else "default hyper-parameters"
        budget = "equal steps" if self.kind == "steps" else f"equal device time, machine class {self.hardware}"
        return f"{tuning}, {budget}"

    @property
    def order(self) -> tuple[Any, ...]:
        place = TIERS.index(self.tier) if self.tier in TIERS else len(TIERS) - 1.5
        return (place, self.tier, self.kind, self.trials, self.hardware)


@dataclass(frozen=True)
class Cell:
    """One method on one task: all its seeds.

    Attributes
    ----------
    runs : by seed; attempts that were skipped for want of a package or data included.
    score : mean test score of the finished runs with its t-interval.
    gain : mean difference to the reference, paired by seed and signed so that
        + is better, with its t-interval; seeds that finished on both sides.
    letters : tie letters; methods that share one are not separated on this task.
    rank : rank by mean score and its lower and upper end, 1 is best; None without an attempt.
    group : 1 where nobody is separated above it, 2 where only those of group 1 are, and so on; 0 without an attempt.
    """

    task: str
    method: str
    runs: tuple[Run, ...]
    score: Interval = NO_VALUES
    gain: Interval = NO_VALUES
    letters: str = ""
    rank: tuple[int, int, int] | None = None
    group: int = 0

    @property
    def first(self) -> Run:
        return self.runs[0]

    @cached_property
    def n(self) -> int:
        """Finished runs."""
        return sum(r.ok for r in self.runs)

    @cached_property
    def failed(self) -> int:
        return sum(r.failed for r in self.runs)

    @property
    def attempted(self) -> int:
        return self.n + self.failed

    @property
    def trouble(self) -> Run | None:
        """The first run that did not finish."""
        return next((r for r in self.runs if not r.ok), None)

    @cached_property
    def failure(self) -> str:
        """How its failed runs failed, in a word or two."""
        kinds = {r.status for r in self.runs if r.failed}
        return FAILURES.get(kinds.pop(), "failed") if len(kinds) == 1 else "failed"

    @cached_property
    def verdict(self) -> str:
        """reference, skipped, failed, same, better, worse, tied, or open where one pair says nothing of the spread."""
        if self.method == REFERENCE:
            return "reference"
        if not self.attempted:
            return "skipped"
        if not self.n:
            return "failed"
        if self.gain.n and self.gain.value == self.gain.low == self.gain.high == 0:
            return "same"
        if not math.isfinite(self.gain.low):
            return "open"
        return "better" if self.gain.low > 0 else "worse" if self.gain.high < 0 else "tied"

    @cached_property
    def cost(self) -> Interval:
        """Step time over the reference's, measured once for the cell; n counts runs that state it."""
        known = [r for r in self.runs if math.isfinite(r.cost_ratio)]
        if not known:
            return NO_VALUES
        return Interval(known[0].cost_ratio, known[0].cost_low, known[0].cost_high, len(known), "measured")

    @cached_property
    def seconds(self) -> float:
        """Mean training seconds of the finished runs; nan where they are of several machine classes."""
        timed = [r for r in self.runs if r.ok and math.isfinite(r.train_seconds)]
        if len({hardware_class(r.environment) for r in timed}) != 1:
            return NAN
        return math.fsum(r.train_seconds for r in timed) / len(timed)


@dataclass
class Sheet:
    """One task in one slice.

    Attributes
    ----------
    cells : by method name; the reference under ``"reference"``.
    ladder : finished and failed runs of the reference at other budgets, as (share of the budget, run).
    """

    task: str
    slice: Slice
    cells: dict[str, Cell] = field(default_factory=dict)
    ladder: list[tuple[float, Run]] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"task/{slug(self.slice.key)}.{slug(self.task)}.html"

    def cell_path(self, method: str) -> str:
        """Page of the runs of a cell."""
        return f"run/{slug(self.slice.key)}.{slug(self.task)}.{slug(method)}.html"

    @cached_property
    def first(self) -> Run:
        """A run to read the task's facts from: the reference's where there is one."""
        cell = self.cells.get(REFERENCE) or next(iter(self.cells.values()))
        return cell.first

    @cached_property
    def machine(self) -> str:
        """The machine class whose seconds are shown: that of most of the reference's finished runs, else of all."""
        cells = [self.reference] if self.reference and self.reference.n else self.others
        votes = Counter(hardware_class(r.environment) for c in cells for r in c.runs if r.ok)
        return min(votes, key=lambda name: (-votes[name], name), default="")

    def of_machine(self, cell: Cell) -> Cell | None:
        """The cell with its finished runs on `machine` alone, its scores as they are; None without any."""
        runs = tuple(r for r in cell.runs if r.ok and hardware_class(r.environment) == self.machine)
        return replace(cell, runs=runs) if runs else None

    @cached_property
    def info(self) -> TaskInfo | None:
        """The task's stated facts, when this release still has it."""
        return registry().find_task(self.task)

    @property
    def title(self) -> str:
        return (self.info.title if self.info else "") or self.task

    @property
    def reference(self) -> Cell | None:
        return self.cells.get(REFERENCE)

    @property
    def others(self) -> list[Cell]:
        return [c for m, c in self.cells.items() if m != REFERENCE]

    @cached_property
    def noise(self) -> tuple[float, int, str]:
        """Seed standard deviation of the reference or the task's floor for it, seeds behind it, and which it is."""
        stated = self.info.noise.get(self.slice.tier) if self.info else None
        if stated and stated.margin > 0:
            source = "measured for this version of the task" if stated.sd >= stated.floor else FLOOR_WORDS
            return stated.margin, stated.n, source
        scores = [r.score for r in self.reference.runs if r.ok] if self.reference else []
        if len(scores) < 2:
            return NAN, len(scores), "unknown"
        return sample_sd(scores), len(scores), "of the runs shown"

    @property
    def usable(self) -> bool:
        """Whether differences to the reference have a scale: it finished at least twice, or once with a ladder."""
        return self.reference is not None and self.reference.n >= (1 if self.rungs else 2)

    @property
    def rungs(self) -> dict[float, list[Run]]:
        """Finished runs of the reference's ladder by share of the budget, 1 left out."""
        found: dict[float, list[Run]] = {}
        for share, run in self.ladder:
            if run.ok:
                found.setdefault(share, []).append(run)
        return found

    @cached_property
    def ranked(self) -> list[Cell]:
        """Best first by the mean score as it stands to the reference's on the same seeds; cells without one last."""
        sign = 1 if self.first.direction == "min" else -1
        base = {r.seed: r.score for r in self.reference.runs if r.ok} if self.reference else {}
        mean = self.reference.score.value if base and self.reference else 0.0

        def key(cell: Cell) -> tuple[bool, float, bool, str]:
            scores = [mean + (r.score - base[r.seed]) if r.seed in base else r.score for r in cell.runs if r.ok]
            value = sign * math.fsum(scores) / len(scores) if scores else 0.0
            return (cell.n == 0, value, cell.method != REFERENCE, cell.method)

        return sorted(self.cells.values(), key=key)

    @cached_property
    def reach(self) -> float:
        """End of the task's common axis of differences to the reference."""
        known = [(c.gain.value, c.gain.low, c.gain.high) for c in self.others if c.gain.n]
        return extent([max(abs(v) for v in ends if math.isfinite(v)) for ends in known])

    @cached_property
    def leaders(self) -> list[str]:
        """Methods that nobody is separated above: they share first place."""
        return [c.method for c in self.ranked if c.n and c.rank and c.rank[1] == 1]


@dataclass
class Board:
    """Everything the pages need.

    Attributes
    ----------
    sheets : by (slice, task), in the order of the pages.
    left_out : reason -> number of runs that are in the files and not on the board.
    problems : one sentence for each file or row that was set aside.
    table : the rows the board was made of.
    trials : runs of searches, which are in no sheet.
    unverified : runs beyond tier smoke that are only self-reported; they are told of, never ranked.
    """

    sheets: dict[tuple[Slice, str], Sheet]
    left_out: dict[str, int]
    problems: list[str]
    table: pa.Table
    trials: tuple[Run, ...] = ()
    unverified: tuple[Run, ...] = ()

    @cached_property
    def slices(self) -> list[Slice]:
        return sorted({s for s, _ in self.sheets}, key=lambda s: s.order)

    @cached_property
    def methods(self) -> list[str]:
        return sorted({m for s in self.sheets.values() for m in s.cells if m != REFERENCE})

    def of_slice(self, part: Slice) -> list[Sheet]:
        return [s for (p, _), s in self.sheets.items() if p == part]

    def other_protocols(self, sheet: Sheet) -> list[Sheet]:
        """The same task and tier under other protocols: tuned, at equal device time."""
        parts = [p for p in self.slices if p.tier == sheet.slice.tier and p != sheet.slice]
        return [self.sheets[p, sheet.task] for p in parts if (p, sheet.task) in self.sheets]

    @cached_property
    def addresses(self) -> dict[str, str]:
        """Run id -> page of its cell; the reference's runs stand on the page of the first slice that has them."""
        found: dict[str, str] = {}
        for sheet in self.sheets.values():
            for method, cell in sheet.cells.items():
                path = sheet.cell_path(method)
                for run in (*cell.runs, *(r for _, r in sheet.ladder if method == REFERENCE)):
                    found.setdefault(run.run_id, path)
        return found

    def cell_path(self, cell: Cell) -> str:
        """Page of a cell's runs."""
        return self.addresses[cell.first.run_id]

    def run_link(self, run: Run) -> str:
        """Stable address of a run, its id on its cell's page; "" for the rungs of a reference without a cell."""
        page = self.addresses.get(run.run_id)
        return f"{page}#{run.run_id}" if page else ""

    @cached_property
    def _of_methods(self) -> dict[str, list[tuple[Sheet, Cell]]]:
        found: dict[str, list[tuple[Sheet, Cell]]] = {}
        for sheet in self.sheets.values():
            for method, cell in sheet.cells.items():
                found.setdefault(method, []).append((sheet, cell))
        return found

    def of_method(self, method: str) -> list[tuple[Sheet, Cell]]:
        return self._of_methods.get(method, [])

    def slot_of(self, method: str) -> str:
        cells = self.of_method(method)
        return cells[0][1].first.slot if cells else ""

    @cached_property
    def runs(self) -> list[Run]:
        """Every run shown, each once (the reference is in several slices), in an order of their own."""
        shown: dict[int, Run] = {}
        for sheet in self.sheets.values():
            for cell in sheet.cells.values():
                shown |= {r.row: r for r in cell.runs}
            shown |= {r.row: r for _, r in sheet.ladder}
        return sorted(shown.values(), key=lambda r: (r.tier, r.task, r.method, r.trial, r.seed, r.run_id))

    @cached_property
    def _curves(self) -> tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[np.floating]]]:
        whole = self.table["curve"].combine_chunks()
        points = whole.flatten()
        columns = {n: points.field(n).to_numpy(zero_copy_only=False) for n in ("spent", "seconds", "score")}
        sizes = np.nan_to_num(whole.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
        return np.concatenate([[0], np.cumsum(sizes)]), columns

    def curve(self, run: Run, column: str) -> npt.NDArray[np.float64]:
        """Evaluations of a run: "spent", "seconds" or "score" (points,)."""
        starts, columns = self._curves
        return columns[column][starts[run.row] : starts[run.row + 1]].astype(np.float64)

    @cached_property
    def reference_curves(self) -> dict[str, Any]:
        """What `figures` keeps of the reference, by the sheet's page, as every method stands beside it."""
        return {}

    @cached_property
    def _with_exhibits(self) -> frozenset[int]:
        return frozenset(
            np.flatnonzero(pc.greater(pc.binary_length(self.table["exhibits"]), 0).fill_null(False)).tolist()
        )

    def exhibits(self, cell: Cell) -> dict[str, Mapping[str, Any]]:
        """Things to show that a run of the cell left (maps, transcripts, function values), by name."""
        for run in cell.runs:
            if run.row in self._with_exhibits:
                return named_exhibits(self.table["exhibits"][run.row].as_py())
        return {}

    def recipe(self, cell: Cell) -> dict[str, Mapping[str, Any]]:
        """Slot -> method and hyper-parameters of the cell's runs; empty where they state none."""
        text = self.table["recipe"][cell.first.row].as_py() or ""
        stated = json.loads(text) if text and is_object(text) else {}
        return {s: c for s, c in stated.items() if isinstance(c, Mapping) and isinstance(c.get("hp"), Mapping)}

    @cached_property
    def _metrics(self) -> tuple[list[int], list[str], list[float]]:
        whole = self.table["metrics"].combine_chunks()
        return (
            whole.offsets.to_pylist(),
            whole.keys.to_pylist(),
            whole.items.to_numpy(zero_copy_only=False).tolist(),
        )

    def metrics(self, cell: Cell) -> dict[str, float]:
        """Mean of every test metric over the finished runs that have it."""
        starts, names, values = self._metrics
        found: dict[str, list[float]] = {}
        for run in cell.runs:
            for at in range(starts[run.row], starts[run.row + 1]) if run.ok else ():
                if math.isfinite(values[at]):
                    found.setdefault(names[at], []).append(values[at])
        return {name: math.fsum(values) / len(values) for name, values in sorted(found.items())}


@functools.lru_cache(maxsize=40)
def named_exhibits(text: str) -> dict[str, Mapping[str, Any]]:
    """Exhibits (JSON) by name, whether the run left one (its facts at the top) or several; not to be changed."""
    try:
        stored = json.loads(text)
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        return {"exhibits": {"kind": DAMAGED}}
    found = {name: shown for name, shown in stored.items() if isinstance(shown, Mapping) and "kind" in shown}
    if "kind" in stored:
        found = {str(stored["kind"]): {k: v for k, v in stored.items() if k not in found}, **found}
    return found


def entry_of(method: str) -> Method | None:
    """The registered method, when this release still has it."""
    return registry().methods.get(method)


# ---------------------------------------------------------------- building


def build(table: pa.Table, problems: Iterable[str] = ()) -> Board:
    """The board of a result table (`suite.store.files.Read.table`).

    Rows that are only self-reported are told of and never compared with others.
    Of a task or method whose code changed, the latest code's rows count; older
    ones, hyper-parameters set by hand, budgets other than the tier's and trials
    of a search are counted and left out, never mixed in.

    Parameters
    ----------
    table : rows in the current schema, in any order.
    problems : files that were set aside.
    """
    left: dict[str, set[int]] = defaultdict(set)
    trouble: list[str] = []
    trials: list[Run] = []
    unverified: list[Run] = []
    slices: dict[Slice, dict[str, list[Run]]] = {}
    for run in _runs(table):
        fault = _fault(run)
        if fault:
            trouble.append(f"run {run.run_id}: {fault}")
            continue
        part = _slice_of(run)
        if run.tier != SMOKE and run.trust != FIRST_HAND:
            left[UNVERIFIED].add(run.row)
            unverified.append(run)
        elif isinstance(part, str):
            left[part].add(run.row)
            trials += [run] if part == SEARCHED else []
        else:
            slices.setdefault(part, {}).setdefault(run.task, []).append(run)
    sheets = {}
    for part in sorted(slices, key=lambda s: s.order):
        for task in sorted(slices[part]):
            base = [] if part.main else slices.get(Slice(part.tier), {}).get(task, [])
            references = [r for r in base if r.method == REFERENCE]
            sheet = _sheet(part, task, [*slices[part][task], *references], left)
            if sheet.cells:
                sheets[part, task] = sheet
    left_out = {reason: len(left[reason]) for reason in sorted(left) if left[reason]}
    return Board(sheets, left_out, [*problems, *sorted(trouble)], table, tuple(trials), tuple(unverified))


def _runs(table: pa.Table) -> list[Run]:
    """The rows as light tuples; equal texts are one object."""
    columns: dict[str, list[Any]] = {"row": list(range(table.num_rows))}
    for name in _TEXT:
        columns[name] = texts(table[name].fill_null(""))
    for name in (*_NUMBERS, *_COUNTS):
        columns[name] = table[name].cast(pa.float64()).to_numpy().tolist()
    for name, missing in _INDICES.items():
        columns[name] = table[name].fill_null(missing).to_pylist()
    columns["dirty"] = table["dirty"].fill_null(False).to_pylist()
    columns["finished"] = table["finished_at"].cast(pa.int64()).fill_null(0).to_pylist()
    return list(map(Run, *(columns[name] for name in Run._fields)))


def _fault(run: Run) -> str:
    """Why a row cannot be shown, "" when it can."""
    if run.direction not in ("min", "max"):
        return f"direction is {run.direction!r}, not 'min' or 'max'"
    if run.ok and not math.isfinite(run.score):
        return "finished without a score"
    if run.budget_kind not in ("steps", "seconds"):
        return f"unknown budget kind {run.budget_kind!r}"
    for name in ("hp", "set_hp", "environment"):
        if not is_object(getattr(run, name)):
            return f"{name} is not a JSON object"
    return ""


@functools.lru_cache(maxsize=65536)
def is_object(text: str) -> bool:
    """Whether a text is empty or a JSON object."""
    try:
        return not text or isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _slice_of(run: Run) -> Slice | str:
    """The slice a run belongs to, or why it is in none."""
    tuned = run.trial >= 0
    if not tuned and run.set_hp not in ("", "{}"):
        return "hyper-parameters set by hand"
    if tuned and run.seed >= TUNING_SEEDS:
        return SEARCHED
    hardware = hardware_class(run.environment) if run.budget_kind == "seconds" else ""
    return Slice(run.tier, run.budget_kind, run.trials if tuned else 0, hardware)


@functools.lru_cache(maxsize=1024)
def hardware_class(environment: str) -> str:
    """Short name of the machine class that an environment (JSON) was measured on."""
    facts = json.loads(environment or "{}")
    parts = [str(facts.get(k, "")) for k in ("device", "hardware", "threads", "dtype")]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:6]


def _sheet(part: Slice, task: str, runs: Sequence[Run], left: dict[str, set[int]]) -> Sheet:
    """One task's cells from all its rows in a slice; `left` takes the rows that are left out, by reason.

    A slice beside the main one has the reference's runs at equal steps as well. They are the
    reference that searched methods stand beside, and everybody's ladder: a share of the
    reference's steps is that share of its device time.
    """
    newest = max(runs, key=lambda r: (r.finished, r.run_id))
    current = [r for r in runs if r.task_hash == newest.task_hash]
    left[OLDER] |= {r.row for r in runs if r.task_hash != newest.task_hash}
    full = _full_budget(part, task, current)
    sheet = Sheet(task, part)
    by_method: dict[str, list[Run]] = {}
    for run in current:
        if run.budget_kind == "steps" and run.budget != full:
            if run.method == REFERENCE:
                sheet.ladder.append((run.budget / full, run))
            else:
                left["a budget other than the tier's"].add(run.row)
        elif run.budget_kind == part.kind or part.trials:
            by_method.setdefault(run.method, []).append(run)
    sheet.ladder.sort(key=lambda pair: (pair[0], pair[1].seed, pair[1].run_id))
    kept = {method: _latest(found, left) for method, found in sorted(by_method.items())}
    base = {r.seed: r.score for r in kept.get(REFERENCE, []) if r.ok}
    places = _places([r for found in kept.values() for r in found] if part.tier != SMOKE else [])
    for method, found in kept.items():
        place = places.get(method, NOWHERE)
        sheet.cells[method] = Cell(task, method, tuple(found), _score(found), _gain(found, base), *place)
    return sheet


def _full_budget(part: Slice, task: str, runs: Sequence[Run]) -> float:
    """The tier's budget: as stated where runs have it, else that of most methods' runs (the smallest of several)."""
    info = registry().find_task(task)
    stated = float(info.tiers[part.tier].budget) if info and part.tier in info.tiers else NAN
    if any(r.budget == stated for r in runs):
        return stated
    votes = Counter(r.budget for r in runs if r.method != REFERENCE) or Counter(r.budget for r in runs)
    return min(votes, key=lambda budget: (-votes[budget], budget))


def _latest(runs: Sequence[Run], left: dict[str, set[int]]) -> list[Run]:
    """One run a seed of the method's latest code, by seed."""
    code = max(runs, key=lambda r: (r.finished, r.run_id)).method_hash
    current = [r for r in runs if r.method_hash == code]
    left[OLDER] |= {r.row for r in runs if r.method_hash != code}
    seeds: dict[int, Run] = {}
    for run in sorted(current, key=lambda r: (r.finished, r.run_id)):
        seeds[run.seed] = run
    left["the same run again"] |= {r.row for r in current} - {r.row for r in seeds.values()}
    return [seeds[s] for s in sorted(seeds)]


def _score(runs: Iterable[Run]) -> Interval:
    scores = [r.score for r in runs if r.ok]
    return t_interval(scores) if scores else NO_VALUES


def _gain(runs: Iterable[Run], base: Mapping[int, float]) -> Interval:
    """Paired difference to the reference, + is better."""
    gains = [(base[r.seed] - r.score) * (1 if r.direction == "min" else -1) for r in runs if r.ok and r.seed in base]
    return t_interval(gains) if gains else NO_VALUES


def stats_frame(runs: Iterable[Run]) -> pd.DataFrame:
    """Runs as `suite.stats` takes them."""
    rows = [(r.task, r.method, r.seed, r.status, r.score, r.direction, r.family) for r in runs]
    return pd.DataFrame(rows, columns=["task", "method", "seed", "status", "score", "direction", "family"])


class Place(NamedTuple):
    """Where a method stands among others.

    Attributes
    ----------
    letters : tie letters.
    rank : rank, lower and upper end; None without an attempt.
    group : see `suite.stats.tier_groups`; 0 without an attempt.
    """

    letters: str
    rank: tuple[int, int, int] | None
    group: int


NOWHERE = Place("", None, 0)


def places_of(board: StatsBoard) -> dict[str, Place]:
    """Place of every method over seeds on the board's tasks, best first.

    Beyond `LETTERED` methods there are no letters: nobody could read them.
    """
    found = compare_all(board, over="seeds")
    ranks, groups = rank_intervals(found), tier_groups(found)
    letters = tie_letters(found) if len(groups) <= LETTERED else {}
    rows = zip(ranks["method"], ranks["rank"], ranks["low"], ranks["high"], strict=True)
    return {str(m): Place(letters.get(m, ""), (int(r), int(a), int(b)), groups[m]) for m, r, a, b in rows}


def _places(runs: Sequence[Run]) -> dict[str, Place]:
    """Place of every method that was attempted on one task."""
    tried = [r for r in runs if r.status != NOT_RUN]
    return places_of(StatsBoard.of(stats_frame(tried))) if tried else {}
