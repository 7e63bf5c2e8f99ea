"""The rows shown, for spreadsheets and programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from leaderboard.model import Board, Run

COLUMNS = (
    "run_id", "tier", "family", "task", "task_version", "task_hash", "method", "slot", "method_hash", "hp", "set_hp",
    "budget_kind", "budget", "budget_unit", "seed", "trial", "trials", "status", "message", "metric", "unit",
    "direction", "score", "val_score", "steps", "spent", "flops", "parameters", "peak_bytes", "train_seconds",
    "cost_ratio", "cost_low", "cost_high", "digest", "environment_hash", "commit", "dirty", "trust",
)  # fmt: skip
_WHOLE = ("task_version", "steps", "parameters", "peak_bytes")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CHUNK = 5000  # rows turned into text at once, so that memory stays flat


def _chunks(runs: Sequence[Run], texts: Callable[[list[str]], list[str]]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of `COLUMNS`: None where a number is missing, counts whole, text columns as `texts` gives them."""
    places = [(name, Run._fields.index(name)) for name in COLUMNS]
    for start in range(0, len(runs), _CHUNK):
        part = runs[start : start + _CHUNK]
        yield list(zip(*(_column(name, [r[i] for r in part], texts) for name, i in places), strict=True))


def _column(name: str, values: list[Any], texts: Callable[[list[str]], list[str]]) -> list[Any]:
    if isinstance(values[0], str):
        return texts(values)
    if not isinstance(values[0], float):
        return values
    kind = int if name in _WHOLE else float
    return [kind(v) if math.isfinite(v) else None for v in values]


def csv_bytes(runs: Sequence[Run]) -> bytes:
    """Comma-separated, UTF-8; texts that a spreadsheet would take for a formula start with an apostrophe."""
    out = io.BytesIO()
    with io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for rows in _chunks(runs, _no_formulas):
            writer.writerows(rows)
        return out.getvalue()


def _no_formulas(texts: list[str]) -> list[str]:
    return [f"'{v}" if v.startswith(_FORMULA) else v for v in texts]


def json_bytes(runs: Sequence[Run]) -> bytes:
    """``{"columns": [...], "data": [[...], ...]}``, what pandas reads as orient="split"."""
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    parts = [encode(rows)[1:-1].encode() for rows in _chunks(runs, list)]
    return b'{"columns":' + encode(COLUMNS).encode() + b',"data":[' + b",".join(parts) + b"]}"


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
