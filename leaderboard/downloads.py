"""The rows shown, for spreadsheets and programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from leaderboard.model import Board, Run
from suite.store.files import table_bytes

COLUMNS = (
    "run_id", "tier", "family", "task", "task_version", "task_hash", "method", "slot", "method_hash", "hp", "set_hp",
    "budget_kind", "budget", "budget_unit", "seed", "trial", "trials", "status", "message", "metric", "unit",
    "direction", "score", "val_score", "steps", "spent", "flops", "parameters", "peak_bytes", "train_seconds",
    "cost_ratio", "cost_low", "cost_high", "digest", "environment_hash", "commit", "dirty", "trust",
)  # fmt: skip


def records(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """One flat record a run; None where a number is missing, whole numbers whole."""
    places = [Run._fields.index(name) for name in COLUMNS]
    for run in runs:
        yield dict(zip(COLUMNS, (_plain(run[i]) for i in places), strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() and abs(value) < 2**53 else value
    return value


def csv_bytes(runs: Sequence[Run]) -> bytes:
    """Comma-separated, UTF-8; texts that a spreadsheet would take for a formula start with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records(runs):
        writer.writerow([_safe(v) for v in record.values()])
    return out.getvalue().encode()


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def json_bytes(runs: Sequence[Run]) -> bytes:
    """A list of records, one a line."""
    lines = ",\n".join(json.dumps(r, ensure_ascii=False, separators=(",", ":"), allow_nan=False) for r in records(runs))
    return f"[\n{lines}\n]\n".encode()


def parquet_bytes(board: Board) -> bytes:
    """The complete rows in the result schema, curves and exhibits included, in the order of their ids."""
    chosen = sorted(board.runs, key=lambda r: (r.run_id, r.row))
    return table_bytes(board.table.take(pa.array([r.row for r in chosen], type=pa.int64())))
