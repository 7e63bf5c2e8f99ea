"""Result tables: whole or absent, damage named and set aside, merging in any order and any number of times."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import suite
from suite.store import schema as schema_module
from suite.store.files import (
    StoreError,
    compact,
    parquet_files,
    read,
    read_file,
    table_bytes,
    texts,
    write_bytes,
    write_rows,
)
from suite.store.schema import DOCS, REQUIRED, RUNS, SCHEMA_VERSION, STATUSES, SchemaError, conform

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ODD = "<script>alert(\"x\")</script> & 'quotes' \t\n\\ \u2192 \U0001f600 \u202eabc"


def row(run_id: str = "a", **changes: Any) -> dict[str, Any]:
    """A complete result row."""
    made: dict[str, Any] = {
        "run_id": run_id, "schema_version": SCHEMA_VERSION, "task": "digits-cnn", "task_version": 1,
        "task_hash": "t0", "family": "vision", "method": "gelu", "slot": "activation", "method_hash": "m0",
        "hp": "{}", "set_hp": "{}", "recipe": "{}", "tier": "quick", "budget_kind": "steps", "budget": 225.0,
        "budget_unit": "steps", "seed": 0, "trial": -1, "trials": 0, "status": "ok", "message": "", "attempts": 1,
        "metric": "ce", "unit": "nats", "direction": "min", "score": 0.25, "val_score": 0.5,
        "metrics": [("accuracy", 0.9), ("ce", 0.25)], "val_metrics": [("ce", 0.5)], "steps": 225, "passes": 225,
        "examples": 14400, "spent": 225.0, "flops": 1e9, "elementwise": 1e8, "saved_bytes": 1000, "state_bytes": 10,
        "parameters": 15000, "train_seconds": 1.5, "eval_seconds": 0.25, "setup_seconds": 0.125,
        "wall_seconds": 2.0, "cpu_seconds": 1.75, "peak_bytes": 10**8,
        "cost_ratio": 1.125, "cost_low": 1.0, "cost_high": 1.25, "cost_precise": False, "digest": "d0", "environment": "{}",
        "environment_hash": "e0", "engine_hash": "g0", "commit": "c0", "dirty": False, "trust": "self-reported",
        "started_at": NOON, "finished_at": NOON + timedelta(seconds=2),
        "curve": [{"spent": 0.0, "steps": 0, "examples": 0, "seconds": 0.0, "train_loss": math.nan, "score": 2.5},
                  {"spent": 225.0, "steps": 225, "examples": 14400, "seconds": 1.5, "train_loss": 0.5, "score": 0.5}],
        "exhibits": "",
    }  # fmt: skip
    assert set(made) == set(RUNS.names)
    assert set(changes) <= set(made)
    return made | changes


def told(table: pa.Table) -> list[str]:
    """The rows of a table as text (NaN equals NaN)."""
    return [repr(r) for r in table.to_pylist()]


# ---------------------------------------------------------------- one file


def test_a_row_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row(), row("b", status="error", score=None, message=ODD, curve=[])])
    first, second = read_file(tmp_path / "a.parquet").to_pylist()
    assert repr(first) == told(plain())[0]
    assert second["message"] == ODD
    assert second["score"] is None
    assert second["curve"] == []
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_every_column_is_documented_and_every_required_one_exists() -> None:
    assert all(DOCS[name] for name in RUNS.names)
    assert set(REQUIRED) <= set(RUNS.names)
    assert "timeout" in STATUSES


def test_equal_rows_give_equal_bytes() -> None:
    rows = [row(str(i), seed=i) for i in range(20)]
    assert table_bytes(rows) == table_bytes([dict(reversed(r.items())) for r in rows])
    table = pa.Table.from_pylist(rows, schema=RUNS)
    assert (
        table_bytes(table)
        == table_bytes(rows)
        == table_bytes(pa.concat_tables([table[:7], table[7:]]).combine_chunks())
    )


def put(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path)
    return path


def plain(*rows: Mapping[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows) or [row()], schema=RUNS)


def test_a_column_that_is_missing_is_empty(tmp_path: Path) -> None:
    table = plain().drop_columns(["cost_ratio", "exhibits"])
    (found,) = read_file(put(tmp_path / "a.parquet", table)).to_pylist()
    assert found["cost_ratio"] is None
    assert found["exhibits"] is None
    assert found["score"] == 0.25


def with_column(name: str, value: Any) -> pa.Table:
    table = plain()
    return table.set_column(table.column_names.index(name), name, [pa.array([value])])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lambda: plain().drop_columns(["run_id", "tier"]), "no column run_id, tier: not a levelfield result table"),
        (lambda: plain().append_column("mood", pa.array(["good"])), r"unknown columns \['mood'\] at schema version 1"),
        (lambda: plain(row(schema_version=SCHEMA_VERSION + 1)), "this release reads up to 1: upgrade"),
        (lambda: plain(row(schema_version=0)), "schema version 0 has no migration"),
        (lambda: plain(row(), row("b", schema_version=2)), "several schema versions"),
        (lambda: plain(row(task=None)), "column 'task' has empty values"),
        (lambda: plain(row(status="great")), r"unknown status \['great'\]; known: ok, diverged"),
        (lambda: with_column("score", "high"), "column 'score': "),
        (lambda: with_column("score", [1.0]), "column 'score': "),
        (lambda: with_column("seed", 2**40), "column 'seed': "),
        (lambda: with_column("seed", 1.5), "column 'seed': "),
        (lambda: with_column("curve", "flat"), "column 'curve': "),
        (lambda: with_column("metrics", {"ce": "x"}), "column 'metrics': "),
        (lambda: with_column("schema_version", "one"), "schema version"),
        (lambda: plain().append_column("task", pa.array(["twice"])), "task"),
        (lambda: pa.table({"x": [1]}), "not a levelfield result table"),
    ],
)
def test_a_table_of_another_kind_is_refused_by_name(
    table: Callable[[], pa.Table], message: str, tmp_path: Path
) -> None:
    file = put(tmp_path / "odd.parquet", table())
    with pytest.raises(SchemaError, match=message) as refused:
        read_file(file)
    assert str(file) in str(refused.value)


def test_text_that_is_no_unicode_is_refused() -> None:
    table = plain()
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    with pytest.raises(SchemaError, match=r"file: .*UTF8"):
        conform(table.set_column(table.column_names.index("message"), "message", [bad]), "file")


def test_narrower_and_wider_numbers_are_taken_where_the_value_fits() -> None:
    table = plain()
    for name, kind in (("seed", pa.int64()), ("score", pa.float32()), ("steps", pa.int32())):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    assert told(conform(table)) == told(plain())


def test_an_older_table_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = plain().rename_columns(["points" if n == "score" else n for n in RUNS.names])
    old = old.set_column(RUNS.names.index("schema_version"), "schema_version", [pa.array([0], pa.int32())])

    def migrate(table: pa.Table) -> pa.Table:
        return table.rename_columns(["score" if n == "points" else n for n in table.column_names])

    monkeypatch.setitem(schema_module.MIGRATIONS, 0, migrate)
    (found,) = read_file(put(tmp_path / "old.parquet", old)).to_pylist()
    assert found["score"] == 0.25


def test_an_empty_table_is_no_problem(tmp_path: Path) -> None:
    assert read_file(put(tmp_path / "a.parquet", plain()[:0])).num_rows == 0


# ---------------------------------------------------------------- damage


def test_a_damaged_file_is_named_and_set_aside_while_the_rest_is_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "runs" / "good.parquet", [row()])
    data = table_bytes([row("b")])
    damaged = {
        "empty": b"", "cut": data[: len(data) // 2], "text": b"no table at all", "tail": data[:-1],
        "flipped": data.replace(b"digits-cnn", b"digits-cno", 1),
    }  # fmt: skip
    for name, content in damaged.items():
        assert content != data
        (tmp_path / "runs" / f"{name}.parquet").write_bytes(content)
    (tmp_path / "runs" / "folder.parquet").mkdir()
    found = read(tmp_path)
    assert told(found.table) == told(plain())
    assert found.files == 1
    assert len(found.problems) == len(damaged) + 1
    for name in [*damaged, "folder"]:
        assert any(str(tmp_path / "runs" / f"{name}.parquet") in problem for problem in found.problems)
    frame = suite.load_results(tmp_path)
    assert len(frame) == 1
    assert frame.attrs["problems"] == found.problems


def test_no_damage_ends_the_reader_and_hardly_any_passes_for_data(tmp_path: Path) -> None:
    """One bit in 400 files: values are behind checksums, the few hundred bytes that name them are not."""
    data = table_bytes([row()])
    file, unseen = tmp_path / "a.parquet", 0
    draw = random.Random(0)
    for _ in range(400):
        place = draw.randrange(len(data))
        file.write_bytes(data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :])
        with contextlib.suppress(SchemaError):
            unseen += told(read_file(file)) != told(plain())
    assert unseen <= 8


@given(st.binary(max_size=300))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_that_are_no_table_are_refused_as_such(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(content)
    with pytest.raises(SchemaError, match="damaged or not Parquet"):
        read_file(file)


def test_a_folder_that_is_not_there_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such results folder; `levelfield run --out"):
        read(tmp_path / "none")


def test_temporary_and_hidden_files_are_passed_over_but_not_folders_above(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / ".hidden"
    write_rows(folder / "runs" / "a.parquet", [row()])
    for name in (".tmp=1@a=b.parquet", ".work/c.parquet", "runs/.d.parquet", "e.txt"):
        write_bytes(folder / name, b"x")
    assert [p.name for p in parquet_files(folder)] == ["a.parquet"]
    assert parquet_files(folder / "runs" / "a.parquet") == [folder / "runs" / "a.parquet"]


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "runs" / "a.parquet"
    write_rows(target, [row(score=1.0)])
    before = target.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("builtins.open" if step == "open" else f"suite.store.files.os.{step}", full)
    with pytest.raises(StoreError) as failed:
        write_rows(target, [row(score=2.0)])
    monkeypatch.undo()
    assert str(failed.value) == (
        f"{target}: cannot be written (No space left on device); free space or choose another --out"
    )
    assert [p.name for p in target.parent.iterdir()] == ["a.parquet"]
    assert target.read_bytes() == before


def test_a_place_that_cannot_hold_files_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written \((Not a directory|File exists)\); free space or choose"):
        write_bytes(tmp_path / "file" / "below" / "a.parquet", b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StoreError, match=r"cannot be written \(Permission denied\)"):
        write_bytes(tmp_path / "locked" / "a.parquet", b"x")


# ---------------------------------------------------------------- merging

# A run's id fixes its cell; what may differ between two rows of one id is how and when the run went.
CELLS = {
    "a": {"tier": "smoke", "method": "gelu", "method_hash": "m0"},
    "b": {"tier": "smoke", "method": "gelu", "method_hash": "m1"},
    "c": {"tier": "quick", "method": "a+b", "method_hash": "m0"},
    "d": {"tier": "quick", "method": "a+b", "method_hash": "m0", "seed": 1},
}
ROWS = st.builds(
    lambda run_id, **changes: row(run_id, **CELLS[run_id], **changes),
    run_id=st.sampled_from(sorted(CELLS)),
    status=st.sampled_from(["ok", "error", "skipped"]),
    score=st.sampled_from([None, 0.5, math.nan]),
    finished_at=st.sampled_from([NOON, NOON + timedelta(milliseconds=1), None]),
    attempts=st.integers(1, 2),
)


@given(st.lists(st.lists(ROWS, max_size=4), min_size=1, max_size=3))
@settings(max_examples=10)
def test_merging_is_commutative_associative_and_idempotent(files: list[list[dict[str, Any]]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folders = []
        for i, rows in enumerate(files):
            write_rows(root / f"in{i}" / "runs" / "x.parquet", rows)
            folders.append(root / f"in{i}")
        wanted = told(read(folders).table)
        assert len({r["run_id"] for rows in files for r in rows}) == len(wanted)
        contents = []
        for k, order in enumerate((folders, folders[::-1], folders[1:] + folders[:1])):
            assert told(read([*order, order[0]]).table) == wanted
            target = root / f"out{k}"
            for folder in (*order, *order):
                compact(folder, target)
            assert told(read(target).table if target.exists() else read(folders).table) == wanted
            contents.append({p.relative_to(target): p.read_bytes() for p in parquet_files(target)} if wanted else {})
        assert all(content == contents[0] for content in contents)


def test_of_several_rows_of_one_run_a_good_one_wins_then_a_timed_one_then_the_earliest(tmp_path: Path) -> None:
    late, early = NOON + timedelta(hours=1), NOON
    rows = [
        row(status="error", finished_at=early), row(score=1.0, finished_at=late), row(score=2.0, finished_at=early)
    ]  # fmt: skip
    for i, r in enumerate(rows):
        write_rows(tmp_path / f"{i}.parquet", [r | {"cost_ratio": None}])
    (kept,) = read(tmp_path).table.to_pylist()
    assert (kept["status"], kept["score"]) == ("ok", 2.0)
    write_rows(tmp_path / "timed.parquet", [row(score=3.0, cost_ratio=1.5, finished_at=late)])
    write_rows(tmp_path / "failed.parquet", [row(status="error", cost_ratio=1.5, finished_at=early)])
    (kept,) = read(tmp_path).table.to_pylist()
    assert (kept["score"], kept["cost_ratio"]) == (3.0, 1.5)  # what its step costs is known


def test_compacting_writes_one_file_a_tier_task_and_method_hash_and_is_byte_stable(tmp_path: Path) -> None:
    source, target = tmp_path / "runs", tmp_path / "results"
    methods = (("gelu", "m0"), ("gelu", "m1"), ("a+b", "m2"))
    cells = itertools.product(("quick", "smoke"), ("digits-cnn", "dyck-gpt"), methods)
    rows = [
        row(f"{tier}{task}{method}{code}{seed}", tier=tier, task=task, method=method, method_hash=code, seed=seed)
        for tier, task, (method, code) in cells
        for seed in range(3)
    ]
    for r in rows:
        write_rows(source / f"{r['run_id']}.parquet", [r])
    written = compact(source, target)
    names = sorted(str(p.relative_to(target)) for p in parquet_files(target))
    assert names == sorted(
        f"{tier}/{task}/{method}@{code}.parquet"
        for tier in ("quick", "smoke")
        for task in ("digits-cnn", "dyck-gpt")
        for method, code in methods
    )
    assert sorted(written) == parquet_files(target)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in parquet_files(target)}
    compact(source, target)
    compact(target, target)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in parquet_files(target)} == before
    assert told(read(source).table) == told(read(target).table)


def test_compacting_adds_to_what_is_there_and_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "results"
    for seed in range(3):
        write_rows(tmp_path / f"in{seed}" / "a.parquet", [row(str(seed), seed=seed)])
        compact(tmp_path / f"in{seed}", target)
    assert [r["seed"] for r in read(target).table.to_pylist()] == [0, 1, 2]


def test_compacting_refuses_a_missing_source_and_leaves_a_damaged_target_alone(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "a.parquet", [row()])
    (file,) = compact(tmp_path / "in", tmp_path / "results")
    with pytest.raises(StoreError, match="no such results folder"):
        compact(tmp_path / "none", tmp_path / "results")
    file.write_bytes(b"damaged, but perhaps not beyond repair")
    with pytest.raises(SchemaError, match=r"gelu@m0\.parquet: damaged"):
        compact(tmp_path / "in", tmp_path / "results")
    assert file.read_bytes().startswith(b"damaged")


# ---------------------------------------------------------------- frames


def test_rows_come_sorted_in_the_schema_they_are_stored_in(tmp_path: Path) -> None:
    keys = [("quick", "b", "x", 1), ("quick", "a", "y", 0), ("full", "b", "x", 0), ("quick", "a", "x", 10)]
    rows = [row(f"{i}", tier=r, task=t, method=m, seed=s) for i, (r, t, m, s) in enumerate(keys)]
    for i, found in enumerate((rows[:1], rows[1:])):
        write_rows(tmp_path / f"{i}.parquet", found)
    table = read(tmp_path).table
    assert table.schema == RUNS
    assert [tuple(r[k] for k in ("tier", "task", "method", "seed")) for r in table.to_pylist()] == sorted(keys)


def test_equal_texts_of_a_column_are_one_object() -> None:
    long, other = "a" * 50, "b" * 50
    column = pa.chunked_array([[long, None], [other, "", long]], pa.string())
    found = texts(column)
    assert found == column.to_pylist()
    assert found[0] is found[4]
    assert texts(pa.chunked_array([], pa.string())) == []


def test_results_load_as_one_row_a_run_and_curves_as_one_row_an_evaluation(tmp_path: Path) -> None:
    rows = [
        row("a"),
        row("b", seed=1, status="error", score=None, metrics=None, curve=[]),
        row("c", seed=2, message=ODD),
    ]
    write_rows(tmp_path / "x.parquet", rows)
    frame = suite.load_results(tmp_path)
    assert list(frame["seed"]) == [0, 1, 2]
    assert set(frame.columns) == set(RUNS.names) - {"curve"}
    assert frame["metrics"][0] == {"accuracy": 0.9, "ce": 0.25}
    assert frame["metrics"][1] == {}
    assert frame["message"][2] == ODD
    curves = suite.load_curves(tmp_path)
    assert list(curves["run_id"]) == ["a", "a", "c", "c"]
    assert list(curves["steps"]) == [0, 225] * 2
    assert curves["score"][0] == 2.5
    write_rows(tmp_path / "only" / "y.parquet", [row("b", curve=[])])
    assert len(suite.load_curves(tmp_path / "only")) == 0
