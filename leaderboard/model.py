"""What the pages show, computed from result rows: cells, comparisons, ties."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from suite.recipe import REFERENCE
from suite.registry import Method, TaskInfo, registry
from suite.stats.intervals import Interval, t_interval

NAN = float("nan")
NONE = Interval(NAN, NAN, NAN, 0, "none")


@dataclass(frozen=True)
class Cell:
    """One method on one task at one tier: all its seeds.

    Attributes
    ----------
    rows : result rows, one a seed, by seed.
    score : mean test score of the finished runs with its t-interval.
    gain : mean paired difference to the reference, signed so that + is better,
        with its t-interval; seeds that both finished.
    letters : tie letters; two methods that share one are not separated.
    rank : rank interval of the mean on this task (1 is best).
    """

    task: str
    method: str
    rows: list[dict[str, Any]]
    score: Interval
    gain: Interval
    letters: str = ""

    @property
    def failed(self) -> int:
        return sum(r["status"] != "ok" for r in self.rows)

    @property
    def n(self) -> int:
        return len(self.rows) - self.failed

    @property
    def verdict(self) -> str:
        """better, worse or tied, by the interval of the paired difference."""
        if self.method == REFERENCE:
            return "reference"
        if not self.n:
            return "failed"
        if math.isnan(self.gain.low):
            return "open"
        return "better" if self.gain.low > 0 else "worse" if self.gain.high < 0 else "tied"

    @property
    def cost(self) -> float:
        values = [r["cost_ratio"] for r in self.rows if not _missing(r["cost_ratio"])]
        return values[0] if values else NAN


@dataclass
class Sheet:
    """One task at one tier.

    Attributes
    ----------
    cells : by method name; the reference under ``"reference"``.
    stale : runs left out because the task or the method has changed since.
    """

    task: str
    tier: str
    cells: dict[str, Cell] = field(default_factory=dict)
    stale: int = 0

    @property
    def first(self) -> dict[str, Any]:
        return next(iter(self.cells.values())).rows[0]

    @property
    def info(self) -> TaskInfo | None:
        """The task's stated facts, when this release still has it."""
        return registry().tasks.get(self.task)

    @property
    def direction(self) -> str:
        return str(self.first["direction"])

    @property
    def metric(self) -> str:
        return str(self.first["metric"])

    @property
    def unit(self) -> str:
        return str(self.first["unit"])

    @cached_property
    def sd(self) -> float:
        """Seed standard deviation of the reference; the task's stored noise where there is one."""
        noise = self.info.noise.get(self.tier) if self.info else None
        if noise and noise.sd > 0:
            return noise.sd
        scores = [r["score"] for r in self.cells[REFERENCE].rows if r["status"] == "ok"] if self.reference else []
        return pd.Series(scores, dtype=float).std(ddof=1) if len(scores) > 1 else NAN

    @property
    def reference(self) -> Cell | None:
        return self.cells.get(REFERENCE)

    @property
    def ranked(self) -> list[Cell]:
        """Best mean first, failed cells last."""
        sign = 1 if self.direction == "min" else -1

        def key(cell: Cell) -> tuple[bool, float, str]:
            return (cell.n == 0, sign * cell.score.value if cell.n else 0.0, cell.method)

        return sorted(self.cells.values(), key=key)


@dataclass
class Board:
    """Everything the pages need.

    Attributes
    ----------
    sheets : by (tier, task).
    curves : run id -> curve points.
    problems : files that were set aside.
    """

    sheets: dict[tuple[str, str], Sheet]
    curves: dict[str, list[dict[str, Any]]]
    problems: list[str]

    @property
    def tiers(self) -> list[str]:
        order = ["smoke", "quick", "standard", "full"]
        return sorted({tier for tier, _ in self.sheets}, key=lambda t: (order.index(t) if t in order else 9, t))

    @property
    def methods(self) -> list[str]:
        return sorted({m for s in self.sheets.values() for m in s.cells if m != REFERENCE})

    def of_tier(self, tier: str) -> list[Sheet]:
        return [s for (t, _), s in sorted(self.sheets.items()) if t == tier]

    def of_method(self, method: str) -> list[tuple[Sheet, Cell]]:
        return [(s, s.cells[method]) for _, s in sorted(self.sheets.items()) if method in s.cells]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [r for _, s in sorted(self.sheets.items()) for c in s.cells.values() for r in c.rows]


def entry_of(method: str) -> Method | None:
    """The registered method, when this release still has it."""
    return registry().methods.get(method)


def slot_of(board: Board, method: str) -> str:
    cells = board.of_method(method)
    return str(cells[0][1].rows[0]["slot"]) if cells else ""


def build(table: Any, problems: Iterable[str] = ()) -> Board:
    """The board of a result table (`suite.store.files.Read.table`).

    Only default hyper-parameters at step budgets are compared here. Of a task
    or method whose code changed, the latest code's rows count; the others are
    counted as stale and left out, never mixed in.
    """
    frame = table.to_pandas(maps_as_pydicts="strict")
    frame = frame[(frame["trial"] == -1) & (frame["budget_kind"] == "steps") & (frame["set_hp"].isin(["{}", "", None]))]
    sheets: dict[tuple[str, str], Sheet] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    for (tier, task), rows in frame.groupby(["tier", "task"], sort=True):
        sheet = Sheet(str(task), str(tier))
        kept = _latest(_latest(rows, ["task_hash"], []), ["method_hash"], ["method"])
        kept = kept.sort_values("finished_at").drop_duplicates(["method", "seed"], keep="last")
        sheet.stale = len(rows) - len(kept)
        records = kept.sort_values(["method", "seed"]).to_dict("records")
        for record in records:
            points = record.pop("curve")
            curves[record["run_id"]] = [] if points is None else list(points)
        by_method: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            by_method.setdefault(record["method"], []).append(record)
        letters = _letters(kept)
        for method, own in by_method.items():
            sheet.cells[method] = _cell(str(task), method, own, by_method.get(REFERENCE, []), letters.get(method, ""))
        sheets[str(tier), str(task)] = sheet
    return Board(sheets, curves, list(problems))


def _latest(rows: pd.DataFrame, code: list[str], within: list[str]) -> pd.DataFrame:
    """Rows of the code that finished a run last, within each group."""
    if not within:
        newest = rows.sort_values("finished_at").iloc[-1][code[0]]
        return rows[rows[code[0]] == newest]
    newest = rows.sort_values("finished_at").groupby(within)[code[0]].last()
    return rows[rows[code[0]] == rows[within[0]].map(newest)]


def _cell(task: str, method: str, rows: list[dict[str, Any]], base: list[dict[str, Any]], letters: str) -> Cell:
    good = {r["seed"]: r["score"] for r in rows if r["status"] == "ok"}
    other = {r["seed"]: r["score"] for r in base if r["status"] == "ok"}
    sign = -1 if rows[0]["direction"] == "min" else 1
    gains = [sign * (good[s] - other[s]) for s in sorted(set(good) & set(other))]
    score = t_interval(list(good.values())) if good else NONE
    return Cell(task, method, rows, score, t_interval(gains) if gains else NONE, letters)


def _letters(rows: pd.DataFrame) -> dict[str, str]:
    """Tie letters of one task's methods, from Holm-corrected paired tests."""
    from suite.stats.ranks import tie_letters

    good = rows[rows["status"] == "ok"]
    counts = good.groupby("method").size()
    several = good[good["method"].isin(counts[counts > 1].index)]
    return tie_letters(several) if several["method"].nunique() > 1 else {}


def exhibits(cell: Cell) -> dict[str, Any]:
    """Things to show that the cell's first seed left (maps, transcripts, function values)."""
    for row in cell.rows:
        if row["exhibits"]:
            return json.loads(row["exhibits"])
    return {}


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
