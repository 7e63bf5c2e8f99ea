"""Writing and reading result tables: whole files or none, damaged ones named and set aside."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from suite.store.schema import RUNS, SELF_REPORTED, SMOKE, SchemaError, conform

STALE_SECONDS = 24 * 3600.0  # a file of another machine's process that is older is taken for left behind


ROWS_LIMIT, SIZE_LIMIT = 1_000_000, 2 * 2**30  # of one file, decoded


class StoreError(OSError):
    """A results folder that cannot be read or written; the message says what to do."""


def owner() -> str:
    """This process among all that may share a folder: its number and its machine."""
    return f"{os.getpid()}@{socket.gethostname()}"


def is_left_behind(name: str, path: Path) -> bool:
    """Whether the process that `owner` named in `name` has ended, as far as one can tell from here.

    Parameters
    ----------
    name : the part of a file's name that `owner` gave.
    path : the file; of another machine's it is the age that tells.
    """
    pid, _, host = name.partition("@")
    if host != socket.gethostname():
        with contextlib.suppress(OSError):
            return time.time() - path.stat().st_mtime > STALE_SECONDS
        return False
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return True
    except PermissionError:
        return False
    return False


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename.

    Parameters
    ----------
    durable : False leaves the fsync out, for a file that need not outlive a loss of power.

    Raises
    ------
    StoreError : the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".tmp={owner()}={path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written ({error.strerror}); free space or choose another --out") from None


def remove_tree(folder: Path) -> None:
    """Remove a folder that somebody may have filled to be in the way: of any depth, links not followed.

    What cannot be removed stays.
    """
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        _flatten(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _flatten(folder: Path) -> None:
    """Move the folders within folders up, so that no path is long, and remove what they lay in."""
    pending = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    while pending:
        above = pending.pop()
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(above)):
                if entry.is_dir(follow_symlinks=False):
                    moved = folder / uuid.uuid4().hex
                    os.rename(entry.path, moved)
                    pending.append(moved)
        shutil.rmtree(above, ignore_errors=True)


@functools.cache
def _layout() -> dict[str, Any]:
    """Codecs by column: setting zstd up costs more than a short column, three times all the rest where each has it."""
    sink = pa.BufferOutputStream()
    pq.write_table(RUNS.empty_table(), sink)
    with pq.ParquetFile(pa.BufferReader(sink.getvalue())) as parquet:
        names = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
    long = [name for name in names if name.partition(".")[0] in ("curve", "exhibits")]
    return {
        "compression": {name: "zstd" if name in long else "snappy" for name in names},
        "compression_level": dict.fromkeys(long, 9),
        "use_dictionary": [name for name in names if name not in long],
    }


def table_bytes(rows: Sequence[Mapping[str, Any]] | pa.Table) -> bytes:
    """Result rows as the bytes of a Parquet file; the same rows give the same bytes."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(r) for r in rows], schema=RUNS)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(None),
        sink,
        **_layout(),
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    )
    return sink.getvalue().to_pybytes()


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
    """Write a result table atomically."""
    write_bytes(path, table_bytes(rows))


@dataclass
class Read:
    """Result rows and what could not be read.

    Attributes
    ----------
    table : all readable rows, in the current schema, one per run id.
    problems : one sentence per file set aside.
    files : number of files read.
    """

    table: pa.Table = field(default_factory=RUNS.empty_table)
    problems: list[str] = field(default_factory=list)
    files: int = 0


def parquet_files(folder: Path) -> list[Path]:
    """All result files below a folder, sorted; temporary and hidden ones left out."""
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such results folder; `levelfield run --out {folder}` makes one")
    found = folder.rglob("*.parquet")
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def read_file(path: Path) -> pa.Table:
    """One result file in the current schema.

    Raises
    ------
    SchemaError : not a result file this release reads, damaged included.
    """
    return _decoded(path, str(path))


def decode(data: bytes, source: str = "table") -> pa.Table:
    """`read_file` of a file's content."""
    return _decoded(pa.BufferReader(data), source)


def _decoded(file: Path | pa.NativeFile, source: str) -> pa.Table:
    try:
        with pq.ParquetFile(file, memory_map=False, page_checksum_verification=True) as parquet:
            facts = parquet.metadata
            size = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
            if not (0 <= facts.num_rows <= ROWS_LIMIT and 0 <= size <= SIZE_LIMIT):
                raise SchemaError(f"{source}: {facts.num_rows} rows in {size} bytes: too much for one file of results")
            table = parquet.read()
    except SchemaError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise SchemaError(f"{source}: damaged or not Parquet ({told[:120]})") from None
    return conform(table, source)


def read(folders: Path | str | Iterable[Path | str]) -> Read:
    """Every result below the folders: unified, one row per run id, problems named.

    Rows of one run id agree by construction; of several, one that is more than
    self-reported wins, then an ``ok`` row, then one whose step cost was measured,
    then the earliest to finish, then the first by content, so that the order of
    folders does not matter.
    """
    paths = [folders] if isinstance(folders, Path | str) else list(folders)
    result = Read()
    tables = []
    for path in [file for folder in paths for file in parquet_files(Path(folder))]:
        try:
            tables.append(read_file(path))
            result.files += 1
        except SchemaError as error:
            result.problems.append(str(error))
    if tables:
        result.table = _unique(_joined(tables))
    return result


def _joined(tables: list[pa.Table]) -> pa.Table:
    """All the rows in one table, which alone holds them: the list is emptied."""
    table = pa.concat_tables(tables)
    tables.clear()
    return table


def _unique(table: pa.Table) -> pa.Table:
    """One row per run id, sorted by what a reader sorts by.

    A column is given up as soon as its sorted copy stands: where nobody else
    holds the table, memory takes its largest column twice and not all of it.
    """
    if pc.count_distinct(table["run_id"], mode="all").as_py() < table.num_rows:
        same: dict[str, list[int]] = {}
        for i, run_id in enumerate(table["run_id"].to_pylist()):
            same.setdefault(run_id, []).append(i)
        several = [i for rows in same.values() if len(rows) > 1 for i in rows]
        preference = dict(zip(several, _preferences(table.take(several)), strict=True))
        best = [rows[0] if len(rows) == 1 else min(rows, key=preference.__getitem__) for rows in same.values()]
        table = table.take(best)
    order = [(c, "ascending") for c in ("tier", "task", "method", "trial", "seed", "run_id")]
    schema, rows = table.schema, pc.sort_indices(table, sort_keys=order)
    columns = {}
    for name in table.column_names:
        columns[name] = table[name].take(rows)
        table = table.drop_columns([name])
        pa.default_memory_pool().release_unused()  # else what is freed, by decoding too, stays ours: half of the peak
    return pa.table(columns, schema=schema)


def texts(column: pa.ChunkedArray) -> list[Any]:
    """A text column as a list in which equal texts are one object; None where one is missing."""
    encoded = column.combine_chunks().dictionary_encode()
    words = [*encoded.dictionary.to_pylist(), None]
    return [words[i] for i in encoded.indices.fill_null(-1).to_pylist()]


def _preferences(table: pa.Table) -> Iterator[tuple[bool, bool, bool, str, str]]:
    """What each row is chosen by; the smallest wins."""
    for batch in table.combine_chunks().to_batches(max_chunksize=1000):  # slices of many chunks cost milliseconds each
        for row in batch.to_pylist():
            untimed = row["cost_ratio"] is None
            yield row["trust"] == SELF_REPORTED, row["status"] != "ok", untimed, str(row["finished_at"]), repr(row)


def with_trust(table: pa.Table, level: str) -> pa.Table:
    """The rows at another trust level; those of tier smoke stay what they are."""
    levels = pc.if_else(pc.equal(table["tier"], SMOKE), SMOKE, level).cast(pa.string())
    return table.set_column(table.column_names.index("trust"), RUNS.field("trust"), levels)


def compact_path(folder: Path, tier: str, task: str, method: str, code: str) -> Path:
    """Where `compact` puts a method's rows; `code` is the hash of its source, "reference" for the reference."""
    return folder / tier / task / f"{method}@{code}.parquet"


def compact(source: Path, target: Path, trust: str = "") -> list[Path]:
    """Write one immutable file per (tier, task, method@hash); existing files are merged into, never lost.

    Parameters
    ----------
    trust : level that the source's rows have from now on; "" leaves each as it is.

    Returns
    -------
    Paths of the files written.

    Raises
    ------
    StoreError : there is no source folder.
    SchemaError : a file that would be written is there already, damaged.
    """
    table = read(source).table
    if trust:
        table = with_trust(table, trust)
    if target.exists():
        table = _unique(pa.concat_tables([table, read(target).table]))
    keys = table.select(["tier", "task", "method", "method_hash"]).to_pylist()
    groups: dict[tuple[str, str, str, str], list[int]] = {}
    for i, row in enumerate(keys):
        groups.setdefault((row["tier"], row["task"], row["method"], row["method_hash"]), []).append(i)
    written = []
    for key, rows in sorted(groups.items()):
        path = compact_path(target, *key)
        data = table_bytes(table.take(rows))
        if path.exists():
            read_file(path)  # raises where writing would lose what a damaged file may still hold
        if not path.exists() or path.read_bytes() != data:
            write_bytes(path, data)
        written.append(path)
    return written
