"""The schema of a result row, with its version; the one place that names columns.

Columns are only ever added. A rename or a change of meaning is a new
`SCHEMA_VERSION` with a migration in `MIGRATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1
STATUSES = ("ok", "diverged", "error", "oom", "timeout", "skipped")
# What a row is worth to whoever reads the folder it lies in. Only reproduced rows are ranked.
#   smoke          tier smoke: it shows that everything works and is no evidence
#   self-reported  taken on somebody's word: of a submission that nobody has run again, or of a
#                  process that trained and scored (`suite.run` in a notebook)
#   reproduced     made by the workers of whoever publishes the folder, which train in one process
#                  and score in another (`levelfield run`, `tune`, `reference`), or submitted and
#                  agreeing with a rerun of a random part (`levelfield verify --into`)
TRUST = ("smoke", "self-reported", "reproduced")
SMOKE, SELF_REPORTED, FIRST_HAND = TRUST
BUDGET_KINDS = ("steps", "seconds")

CURVE_POINT = pa.struct(
    [
        pa.field("spent", pa.float64()),
        pa.field("steps", pa.int64()),
        pa.field("examples", pa.int64()),
        pa.field("seconds", pa.float32()),
        pa.field("train_loss", pa.float32()),
        pa.field("score", pa.float32()),
    ]
)

_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("run_id", pa.string(), "hash of everything that fixes the run, code included"),
    ("schema_version", pa.int32(), "version of this schema"),
    ("task", pa.string(), "task name"),
    ("task_version", pa.int32(), "bumped by hand when the task changes"),
    ("task_hash", pa.string(), "content hash of the task at this tier"),
    ("family", pa.string(), "vision, language, pde or rlvr"),
    ("method", pa.string(), "method name, 'reference', or names joined by '+'"),
    ("slot", pa.string(), "slot the method fills; '' for the reference"),
    ("method_hash", pa.string(), "content hash of the method's source"),
    ("hp", pa.string(), "JSON: hyper-parameters of the method"),
    ("set_hp", pa.string(), "JSON: those of them that a trial or a person set; the rest are defaults"),
    ("recipe", pa.string(), "JSON: slot -> method and hyper-parameters, complete"),
    ("tier", pa.string(), "smoke, quick, standard or full"),
    ("budget_kind", pa.string(), "steps or seconds"),
    ("budget", pa.float64(), "what the run was given, in budget_unit"),
    ("budget_unit", pa.string(), "steps, gradient evaluations or generated tokens"),
    ("seed", pa.int32(), "seed index; the same index is paired across methods"),
    ("trial", pa.int32(), "tuning trial; -1 for the default hyper-parameters"),
    ("trials", pa.int32(), "trials behind a tuned row; 0 for the default"),
    ("status", pa.string(), "ok, diverged, error, oom, timeout or skipped"),
    ("message", pa.string(), "why, where the status is not ok"),
    ("attempts", pa.int32(), "1, or more when a worker was killed"),
    ("metric", pa.string(), "name of the primary metric"),
    ("unit", pa.string(), "its unit"),
    ("direction", pa.string(), "min or max"),
    ("score", pa.float64(), "primary metric on the test split; null when not ok"),
    ("val_score", pa.float64(), "primary metric on the validation split at the end"),
    ("metrics", pa.map_(pa.string(), pa.float64()), "all metrics on the test split"),
    ("val_metrics", pa.map_(pa.string(), pa.float64()), "all metrics on the validation split at the end"),
    ("steps", pa.int64(), "updates done"),
    ("passes", pa.int64(), "forward-backward passes done"),
    ("examples", pa.int64(), "training examples consumed"),
    ("spent", pa.float64(), "budget used, in budget_unit"),
    ("flops", pa.float64(), "floating-point operations: products, attention, linear algebra, transforms"),
    ("elementwise", pa.float64(), "elements written by all other operations of the training"),
    ("saved_bytes", pa.int64(), "bytes kept for one backward pass"),
    ("state_bytes", pa.int64(), "bytes of optimizer state"),
    ("parameters", pa.int64(), "trainable parameters"),
    ("train_seconds", pa.float64(), "training, evaluation and set-up left out"),
    ("eval_seconds", pa.float64(), "evaluation, not charged"),
    ("setup_seconds", pa.float64(), "data, model and warm-up, not charged"),
    ("wall_seconds", pa.float64(), "life of the training process by the parent's clock"),
    ("cpu_seconds", pa.float64(), "processor time of the training process, measured by the parent"),
    ("peak_bytes", pa.int64(), "peak memory beyond the process's start (device memory on CUDA)"),
    ("cost_ratio", pa.float64(), "step time over the reference's, interleaved on one machine"),
    ("cost_low", pa.float64(), "lower end of its 95% interval"),
    ("cost_high", pa.float64(), "upper end of its 95% interval"),
    ("cost_precise", pa.bool_(), "whether that interval got within 3% of the ratio in the time allowed"),
    ("digest", pa.string(), "hash of the float32 curve and final score"),
    ("environment", pa.string(), "JSON: versions, hardware, threads, dtype"),
    ("environment_hash", pa.string(), "hash of it"),
    ("engine_hash", pa.string(), "hash of the training engine's code"),
    ("commit", pa.string(), "commit of the project"),
    ("dirty", pa.bool_(), "whether the working tree differed from it"),
    ("trust", pa.string(), "smoke, self-reported or reproduced; only reproduced rows are ranked"),
    ("started_at", pa.timestamp("ms", tz="UTC"), "start of the run"),
    ("finished_at", pa.timestamp("ms", tz="UTC"), "end of the run"),
    ("curve", pa.list_(CURVE_POINT), "evaluations on the validation split during the run"),
    ("exhibits", pa.string(), "JSON: small things to show (maps, transcripts); '' when none"),
)

RUNS = pa.schema([pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in _COLUMNS])
DOCS = {name: doc for name, _, doc in _COLUMNS}
REQUIRED = ("run_id", "schema_version", "task", "task_hash", "method", "tier", "seed", "status", "budget")

# version -> function from a table of that version to one of the next
MIGRATIONS: dict[int, Callable[[pa.Table], pa.Table]] = {}


class SchemaError(ValueError):
    """A table that is not a result table of a version this release reads."""


def conform(table: pa.Table, source: str = "table") -> pa.Table:
    """`table` in the current schema: migrated, missing columns null, unknown columns refused.

    Raises
    ------
    SchemaError : a required column is missing, a value is null where it may
        not be, a type does not fit, or the version is newer than this release.
    """
    present = set(table.column_names)
    missing = [name for name in REQUIRED if name not in present]
    if missing:
        raise SchemaError(f"{source}: no column {', '.join(missing)}: not a levelfield result table")
    if table.num_rows == 0:
        return RUNS.empty_table()
    versions = set(table["schema_version"].to_pylist())
    if len(versions) != 1 or not isinstance(version := versions.pop(), int):
        raise SchemaError(f"{source}: rows of several schema versions in one file")
    if version > SCHEMA_VERSION:
        raise SchemaError(f"{source}: schema version {version}; this release reads up to {SCHEMA_VERSION}: upgrade")
    while version < SCHEMA_VERSION:
        if version not in MIGRATIONS:
            raise SchemaError(f"{source}: schema version {version} has no migration")
        table, version = MIGRATIONS[version](table), version + 1
    names = set(table.column_names)  # made anew at every call
    unknown = names - set(RUNS.names)
    if unknown:
        raise SchemaError(f"{source}: unknown columns {sorted(unknown)} at schema version {SCHEMA_VERSION}")
    columns: list[Any] = []
    for field in RUNS:
        if field.name not in names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            column = table[field.name]
            columns.append(column if column.type.equals(field.type) else column.cast(field.type))
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise SchemaError(f"{source}: column {field.name!r}: {error}") from None
    whole = pa.table(columns, schema=RUNS)
    try:
        whole.validate(full=True)
    except pa.ArrowException as error:
        raise SchemaError(f"{source}: {error}") from None
    for name in REQUIRED:
        if whole[name].null_count:
            raise SchemaError(f"{source}: column {name!r} has empty values")
    bad = set(whole["status"].to_pylist()) - set(STATUSES)
    if bad:
        raise SchemaError(f"{source}: unknown status {sorted(bad)}; known: {', '.join(STATUSES)}")
    return whole
