"""What a results folder holds of a plan: single files of runs, and rows compacted beside them.

``runs/<run id>.parquet`` exists exactly when a launcher has finished the run;
``<tier>/<task>/<method>@<code>.parquet`` holds rows of `suite.store.files.compact`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from suite.runner.spec import RunSpec

DAMAGED = "damaged"


def row_path(out: Path, run_id: str, status: str) -> Path:
    """Where a run's row lies; a skipped one has a name of its own, so that a later plan tries it again."""
    return out / "runs" / (f"{run_id}.skipped.parquet" if status == "skipped" else f"{run_id}.parquet")


def single_ids(out: Path) -> set[str]:
    """Run ids that have a file of their own, by its name alone; skipped runs are not finished."""
    try:
        with os.scandir(out / "runs") as found:
            names = (entry.name for entry in found)
            return {n[:-8] for n in names if n.endswith(".parquet") and n[0] != "." and n.count(".") == 1}
    except FileNotFoundError:
        return set()


def compact_files(out: Path, specs: Iterable[RunSpec]) -> list[Path]:
    """The compact files in which rows of a plan lie, or would."""
    from suite.store.files import compact_path

    keys = {(s.tier, s.task, s.method, s.code) for s in specs}
    return [path for path in sorted(compact_path(out, *key) for key in keys) if path.exists()]


def compacted(out: Path, specs: Iterable[RunSpec]) -> dict[str, tuple[str, Path]]:
    """Status and file of every run that is known first-hand from the compact files of a plan.

    Raises
    ------
    StoreError : such a file is damaged.
    """
    files = compact_files(out, specs)
    if not files:
        return {}
    from suite.store.files import StoreError, read_file
    from suite.store.schema import SELF_REPORTED, SchemaError

    known = {}
    for file in files:
        try:
            rows = read_file(file).select(["run_id", "status", "trust"]).to_pylist()
        except SchemaError as error:
            raise StoreError(f"{error}; restore it, or move it away to have its runs made again") from None
        known.update({r["run_id"]: (r["status"], file) for r in rows if r["trust"] != SELF_REPORTED})
    return known


def finished_ids(out: Path, specs: Iterable[RunSpec], retry: bool = False) -> set[str]:
    """Run ids of the folder that a plan need not make.

    Parameters
    ----------
    retry : whether compacted failures are to be made again.

    Raises
    ------
    StoreError : a compact file of the plan is damaged.
    """
    known = {run_id: status for run_id, (status, _) in compacted(out, specs).items()}
    return single_ids(out) | {i for i, s in known.items() if is_finished(s, retry)}


def is_finished(status: str, retry: bool = False) -> bool:
    """Whether a run that ended so need not be made; with `retry` a failed one is."""
    return status == "ok" or (status != "skipped" and not retry)


def read_status(out: Path, run_id: str) -> str:
    """Status of a run's own file: "skipped" where there is none, "damaged" where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = row_path(out, run_id, "ok")
    if not path.exists():
        return "skipped"
    try:
        return pq.ParquetFile(path).read(columns=["status"])["status"][0].as_py()
    except (pa.ArrowException, OSError, IndexError):
        return DAMAGED


def standing(out: Path, specs: Iterable[RunSpec]) -> dict[str, tuple[str, Path]]:
    """Status and file of every run of a plan: its own, or else the compact one; "skipped" where there is neither."""
    specs = list(specs)
    known = compacted(out, specs)
    found = {}
    for run_id in dict.fromkeys(spec.run_id for spec in specs):
        status = read_status(out, run_id)
        found[run_id] = (status, row_path(out, run_id, status))
        if status == "skipped" and run_id in known:
            found[run_id] = known[run_id]
    return found


def sources(out: Path, specs: Iterable[RunSpec]) -> list[Path]:
    """Where all rows of a plan lie, for `suite.store.files.read`: single files, and compact ones beside them."""
    return [out / "runs", *compact_files(out, specs)]


def load_plan(out: Path, specs: Collection[RunSpec]) -> pd.DataFrame:
    """The rows of a plan that a results folder has, as `suite.load_results` gives them."""
    from suite.api import load_results

    frame = load_results(sources(out, specs))
    return frame[frame["run_id"].isin({spec.run_id for spec in specs})]
