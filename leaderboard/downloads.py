"""What the pages show, for spreadsheets and programs: the rows, the cells, the standings and the claims."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from leaderboard.model import Board, Cell, Run, Sheet, Slice
from leaderboard.standings import Estimate, Overview, SlotTable, Standing
from suite.claims import Judged, TaskVerdict
from suite.recipe import REFERENCE

COLUMNS = (
    "run_id", "tier", "family", "task", "task_version", "task_hash", "method", "slot", "method_hash", "hp", "set_hp",
    "budget_kind", "budget", "budget_unit", "seed", "trial", "trials", "status", "message", "metric", "unit",
    "direction", "score", "val_score", "steps", "spent", "flops", "parameters", "peak_bytes", "train_seconds",
    "cost_ratio", "cost_low", "cost_high", "digest", "environment_hash", "commit", "dirty", "trust",
)  # fmt: skip
_BOARD = ("tier", "budget_kind", "trials", "hardware")
CELLS = (
    *_BOARD, "family", "task", "method", "slot", "metric", "unit", "direction", "n", "failed", "score", "score_low",
    "score_high", "gain", "gain_low", "gain_high", "gain_n", "verdict", "group", "rank", "rank_low", "rank_high",
    "ties", "cost_ratio", "cost_low", "cost_high", "train_seconds",
)  # fmt: skip
STANDINGS = (
    *_BOARD, "family", "slot", "method", "headline", "value", "seeds_low", "seeds_high", "low", "high", "verdict",
    "tasks", "covered", "possible", "partial", "group", "rank", "rank_low", "rank_high", "ties", "better", "tied",
    "worse", "failed", "cost_ratio",
)  # fmt: skip
CLAIMS = (
    "claim", "paper", "link", "statement", "published", "a", "b", "predicted", "tier", "task", "metric", "unit",
    "verdict", "difference", "low", "high", "n", "p", "q", "stands", "detectable", "margin", "failed_a", "failed_b",
    "idle", "why", "runs_a", "runs_b",
)  # fmt: skip
_WHOLE = frozenset(("task_version", "steps", "parameters", "peak_bytes"))
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CHUNK = 5000  # rows turned into text at once, so that memory stays flat


class Table(NamedTuple):
    """Rows to write: one sequence of values a column; None where a number is missing."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


def runs(found: Sequence[Run]) -> Table:
    """The result rows."""
    return Table(COLUMNS, found)


def cells(board: Board) -> Table:
    """Every method on every task of every board."""
    found = [(s, c) for s in board.sheets.values() for c in s.ranked]
    return Table(CELLS, [_cell(sheet, cell) for sheet, cell in found])


def standings(views: Iterable[Overview]) -> Table:
    """Every slot's table of every board; `family` is "" where all families count."""
    return Table(STANDINGS, [_standing(v, t, r) for v in views for t in v.tables for r in t.rows])


def claims(judged: Iterable[Judged]) -> Table:
    """Every claim: a row over all its tasks (`task` is "all"), then one a task; only the first where none tests it.

    `runs_a` and `runs_b` are the ids of the runs behind a row, `stands` whether a verdict that names a better side
    stands among all of these.
    """
    return Table(CLAIMS, [_claim(j, verdict) for j in judged for verdict in (j.total, *j.tasks)])


def _board(part: Slice) -> tuple[Any, ...]:
    return (part.tier, part.kind, part.trials, part.hardware)


def _cell(sheet: Sheet, cell: Cell) -> tuple[Any, ...]:
    run, score, cost = sheet.first, cell.score, cell.cost
    gain = () if cell.method == REFERENCE else (cell.gain.value, cell.gain.low, cell.gain.high)
    return (
        *_board(sheet.slice), run.family, sheet.task, cell.method, cell.first.slot, run.metric, run.unit, run.direction,
        cell.n, cell.failed, score.value, score.low, score.high, *(gain or (math.nan,) * 3),
        cell.gain.n if gain else 0, cell.verdict, *_place(cell), cost.value, cost.low, cost.high, cell.seconds,
    )  # fmt: skip


def _standing(view: Overview, table: SlotTable, row: Standing) -> tuple[Any, ...]:
    found = row.estimate(table.headline) or Estimate(*(math.nan,) * 5, 0)
    return (
        *_board(view.slice), view.family, table.slot, row.method, table.headline, found.value, found.seeds_low,
        found.seeds_high, found.low, found.high, row.verdict(table.headline), found.tasks, row.covered, row.possible,
        row.partial, *_place(row), row.tasks("better"), row.tasks("tied", "open", "same"), row.tasks("worse"),
        row.tasks("failed"), row.cost,
    )  # fmt: skip


def _claim(judged: Judged, verdict: TaskVerdict) -> tuple[Any, ...]:
    claim, whole = judged.claim, verdict is judged.total
    arms, stated = claim.arms, None if whole else claim.measured(verdict.task)
    ordered = whole and judged.word in ("holds", "opposite") and not math.isnan(judged.q)
    behind = [r for r in judged.runs if whole or r.task == verdict.task]
    return (
        claim.id, claim.paper.title, claim.paper.link, claim.statement, claim.published,
        *(arms[side].label if side in arms else "" for side in "AB"), claim.direction, claim.tier if arms else "",
        verdict.task, stated.name if stated else claim.metric, stated.unit if stated else "seed sd", verdict.word,
        verdict.difference, verdict.low, verdict.high, verdict.n, verdict.p, judged.q if whole else math.nan,
        not judged.alone if ordered else None, verdict.detectable, verdict.margin,
        *verdict.failed, verdict.idle, judged.why,
        *(" ".join(r.run_id for r in behind if r.side == side) for side in "AB"),
    )  # fmt: skip


def _place(found: Cell | Standing) -> tuple[Any, ...]:
    return (found.group or None, *(found.rank or (None,) * 3), found.letters)


# ---------------------------------------------------------------- writing


def _chunks(table: Table, texts: Callable[[list[str]], list[str]]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of a table: None where a number is missing, counts whole, text columns as `texts` gives them."""
    names = table.rows[0]._fields if table.rows and isinstance(table.rows[0], Run) else table.columns
    places = [(name, names.index(name)) for name in table.columns]
    for start in range(0, len(table.rows), _CHUNK):
        part = table.rows[start : start + _CHUNK]
        yield list(zip(*(_column(name, [r[i] for r in part], texts) for name, i in places), strict=True))


def _column(name: str, values: list[Any], texts: Callable[[list[str]], list[str]]) -> list[Any]:
    if isinstance(values[0], str):
        return texts(values)
    if not any(issubclass(kind, float) for kind in set(map(type, values))):
        return values
    kind = int if name in _WHOLE else float
    return [kind(v) if v is not None and math.isfinite(v) else None for v in values]


def csv_bytes(table: Table) -> bytes:
    """Comma-separated, UTF-8; texts that a spreadsheet would take for a formula start with an apostrophe."""
    out = io.BytesIO()
    with io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table.columns)
        for rows in _chunks(table, _no_formulas):
            writer.writerows(rows)
        return out.getvalue()


def _no_formulas(texts: list[str]) -> list[str]:
    if not any(v.startswith(_FORMULA) for v in set(texts)):
        return texts
    return [f"'{v}" if v.startswith(_FORMULA) else v for v in texts]


def json_bytes(table: Table) -> bytes:
    """``{"columns": [...], "data": [[...], ...]}``, what pandas reads as orient="split"."""
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    out = io.BytesIO()
    out.write(b'{"columns":' + encode(table.columns).encode() + b',"data":[')
    for i, rows in enumerate(_chunks(table, list)):
        out.write(b"," * (i > 0) + encode(rows)[1:-1].encode())
    out.write(b"]}")
    return out.getvalue()


def table_bytes(table: Table) -> bytes:
    """A table as Parquet."""
    rows = [row for part in _chunks(table, list) for row in part]
    columns = [pa.array([row[i] for row in rows]) for i in range(len(table.columns))]
    sink = pa.BufferOutputStream()
    made = pa.table(columns, names=list(table.columns))
    pq.write_table(made, sink, compression="zstd", write_statistics=False, store_schema=False)
    return sink.getvalue().to_pybytes()


def parquet_bytes(board: Board) -> bytes:
    """The rows in the result schema, learning curves included; exhibits are on the pages."""
    table = board.table.drop_columns(["exhibits"])
    rows = np.array([r.row for r in board.runs], dtype=np.int64)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema.remove_metadata(), compression="zstd", write_statistics=False) as writer:
        for start in range(0, len(rows), _CHUNK):
            part = table.take(pa.array(rows[start : start + _CHUNK]))
            writer.write_table(part.replace_schema_metadata(None))
    return sink.getvalue().to_pybytes()
