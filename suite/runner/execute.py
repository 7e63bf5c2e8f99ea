"""A run in two halves: `execute` trains and predicts, `settle` scores and makes the row.

They may be two processes: the one that trains never sees the test answers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from suite.fingerprint import commit, digest, engine_hash, environment, task_hash
from suite.recipe import REFERENCE
from suite.runner.spec import RunSpec
from suite.seeds import seed_for
from suite.store.files import write_bytes
from suite.store.schema import FIRST_HAND, SCHEMA_VERSION, SELF_REPORTED, SMOKE
from suite.trust import traps
from suite.trust.scoring import (
    MESSAGE_LIMIT,
    Clock,
    Refused,
    contradiction,
    read_outcome,
    read_predictions,
    without_value,
)

OUTCOME, PREDICTIONS = "outcome.json", "predictions.npz"
REFUSED = "refused: "  # what the message of a run begins with that is no run by the rules


@dataclass
class Outcome:
    """What the training half leaves behind, JSON-ready."""

    status: str = "ok"
    message: str = ""
    curve: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    exhibits: dict[str, Any] = field(default_factory=dict)
    started: float = 0.0
    finished: float = 0.0


class Skipped(Exception):
    """The run cannot be made here: a package or a data set is missing. The message says which."""


def execute(spec: RunSpec, folder: Path, checkpoint: tuple[Path, float] | None = None, masked: bool = False) -> None:
    """Train and predict; leave an outcome (always) and predictions (when ok) in `folder`.

    Parameters
    ----------
    checkpoint : file and seconds between writes; a run that finds the file goes on from it.
    masked : give the task another name in this process, from now on; the run is the same.
    """
    if masked:
        spec = traps.masked(spec)
    outcome, predictions = train(spec, checkpoint, guarded=True)
    if predictions:
        with open(folder / PREDICTIONS, "wb") as file:
            np.savez(file, **predictions)  # type: ignore[arg-type]
    write_bytes(folder / OUTCOME, json.dumps(asdict(outcome)).encode(), durable=False)  # read once, at once


def train(
    spec: RunSpec, checkpoint: tuple[Path, float] | None = None, guarded: bool = False
) -> tuple[Outcome, dict[str, np.ndarray]]:
    """The training half; every failure becomes a status with a message.

    Parameters
    ----------
    guarded : keep the task's answers from its methods, and refuse a run that changed what is not
        its own; for a process that makes this one run.
    """
    outcome = Outcome(started=time.time())
    predictions: dict[str, np.ndarray] = {}
    try:
        deterministic()  # before the seals: its first call has torch replace some of its own functions
        task = spec.info.factory(spec.info)
        with traps.guard(spec, task) if guarded else nullcontext():
            predictions = _train(spec, task, outcome, checkpoint)
    except Skipped as error:
        outcome.status, outcome.message = "skipped", str(error)
    except traps.Tampered as error:
        outcome = Outcome("error", f"{REFUSED}{error}", started=outcome.started)
    except (Exception, SystemExit) as error:  # whatever a method does wrong is a result
        outcome.status, outcome.message = _failure(error)
    if outcome.status != "ok":
        predictions = {}
    outcome.message = outcome.message[:MESSAGE_LIMIT]
    outcome.finished = time.time()
    return outcome, predictions


def _train(spec: RunSpec, task: Any, outcome: Outcome, checkpoint: tuple[Path, float] | None) -> dict[str, np.ndarray]:
    import torch

    from suite.data import DataUnavailable
    from suite.train.checkpoint import Checkpoint
    from suite.train.loop import Trainer
    from suite.train.workload import DoesNotApply

    started = time.perf_counter()
    base_memory = _peak_memory(spec.device)
    require(spec)
    try:
        workload = make_workload(spec, task)
        trainer = Trainer(workload, workload.context.recipe, spec.given)
    except (DataUnavailable, DoesNotApply) as error:
        raise Skipped(str(error)) from None
    workload.forget()
    outcome.counts["setup_seconds"] = time.perf_counter() - started
    keep = Checkpoint(*checkpoint) if checkpoint else None
    tier = spec.info.tiers[spec.tier]
    history = trainer.run(tier.evals, keep)
    outcome.curve = [asdict(point) for point in history.curve]
    outcome.counts |= {
        "train_seconds": history.train_seconds,
        "eval_seconds": history.eval_seconds,
        "steps": workload.steps,
        "passes": workload.passes,
        "examples": workload.examples,
        "spent": workload.spent,
        "parameters": sum(p.numel() for p in workload.model.parameters() if p.requires_grad),
        "state_bytes": _state_bytes(trainer.optimizer.state),
    }
    if history.diverged:
        outcome.status, outcome.message = "diverged", history.diverged
        return {}
    started = time.perf_counter()
    with trainer.evaluating(), torch.no_grad():
        predictions = workload.predict()
        if spec.seed == 0:
            shown = workload.exhibits()
            outcome.exhibits = {shown["kind"]: shown} if shown else {}
    if spec.seed == 0:
        outcome.exhibits |= _portraits(spec)
    if spec.seed == 0 and spec.method == REFERENCE and (samples := spec.info.factory(spec.info).samples(tier)):
        outcome.exhibits["samples"] = samples
    outcome.counts["peak_bytes"] = _peak_memory(spec.device) - base_memory
    outcome.counts["predict_seconds"] = time.perf_counter() - started
    return predictions


def deterministic() -> None:
    """Take the deterministic form of every operation that has one."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", message=".*deterministic.*")


def make_workload(spec: RunSpec, task: Any = None) -> Any:
    """The run's workload, on its device, in one deterministic thread; `task` is the run's, when it is made already."""
    import torch

    from suite.train.workload import Context

    info = spec.info
    deterministic()
    torch.manual_seed(seed_for(spec.task, "noise", spec.seed))  # for modules that draw from torch's own stream
    context = Context(info, info.tiers[spec.tier], spec.tier, spec.recipe, spec.seed, torch.device(spec.device))
    workload = (task or info.factory(info)).workload(context)
    workload.context = context
    return workload


def require(spec: RunSpec) -> None:
    """Raise `Skipped` where a package that a method of the run needs is not there."""
    import importlib.util

    for choice in spec.recipe.choices.values():
        package = choice.entry.requires
        if package and importlib.util.find_spec(package) is None:
            raise Skipped(f"{choice.method} needs the package {package}: pip install {package}")


def _failure(error: BaseException) -> tuple[str, str]:
    import torch

    text = f"{type(error).__name__}: {error}"
    out_of_memory = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
    if out_of_memory or "can't allocate memory" in text or "not enough memory" in text:
        return "oom", text
    if isinstance(error, FloatingPointError) or "not finite" in text:
        return "diverged", text
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return "error", text + where


def _portraits(spec: RunSpec) -> dict[str, Any]:
    from suite.portrait import activation_portrait

    drawn = {e.name: activation_portrait(e, spec.recipe[e.slot].hp) for e in spec.entries if e.slot == "activation"}
    return {f"activation {name}": portrait for name, portrait in drawn.items() if portrait}


def _peak_memory(device: str) -> int:
    """Peak bytes so far: of the device's allocator on CUDA, of the process on CPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _state_bytes(state: Any) -> int:
    import torch

    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(_state_bytes(v) for v in state.values())
    if isinstance(state, list | tuple):
        return sum(_state_bytes(v) for v in state)
    return 0


# ---------------------------------------------------------------- settling


def settle(
    spec: RunSpec,
    folder: Path,
    extra: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
    resumed: bool = False,
) -> dict[str, Any]:
    """Score what a run left in its folder and make its result row.

    Parameters
    ----------
    spec : the run.
    folder : holds the outcome and, when ok, predictions; both are read as data
        that somebody may have forged.
    extra : columns that the parent knows (attempts, cost ratio).
    clock : what the parent measured of the process.
    resumed : it may have gone on from a checkpoint.
    """
    predictions: dict[str, np.ndarray] = {}
    try:
        outcome = Outcome(**read_outcome(folder / OUTCOME, spec.info.tiers[spec.tier].evals + 1))
        if outcome.status == "ok":
            predictions = read_predictions(folder / PREDICTIONS)
            if clock and (problem := contradiction(outcome.counts, clock, resumed, spec.device != "cpu")):
                raise Refused(problem)
    except Refused as error:
        now = time.time()
        outcome = Outcome("error", f"{REFUSED}it {error}", started=now, finished=now)
    if problem := without_value(predictions):
        outcome.status, outcome.message = "diverged", problem
    measured = vars(clock) if clock else {}
    return make_row(spec, outcome, predictions, {**measured, **(extra or {})}, trust=FIRST_HAND)


def make_row(
    spec: RunSpec,
    outcome: Outcome,
    predictions: Mapping[str, np.ndarray],
    extra: Mapping[str, Any] | None = None,
    trust: str = SELF_REPORTED,
) -> dict[str, Any]:
    """The result row of an outcome: every column of the schema.

    Parameters
    ----------
    extra : columns that the parent knows.
    trust : level of a run beyond tier smoke (see `suite.store.schema.TRUST`): self-reported where
        one process trained and scored.
    """
    info = spec.info
    metric = info.metric.name
    tested: dict[str, float] = {}
    if outcome.status == "ok":
        tested = _score(spec, outcome, predictions)
    validated = outcome.curve[-1]["metrics"] if outcome.curve else {}
    counts = {k: v for k, v in outcome.counts.items() if k != "predict_seconds"}
    per_step = {k: v for k, v in (extra or {}).items() if k in ("flops", "elementwise")}
    now = environment(spec.device)
    revision, dirty = commit()
    score = tested.get(metric) if outcome.status == "ok" else None
    curve = [
        {
            **{k: p[k] for k in ("spent", "steps", "examples", "seconds", "train_loss")},
            "score": p["metrics"].get(metric),
        }
        for p in outcome.curve
    ]
    row = {
        **facts_of(spec),
        "status": outcome.status,
        "message": outcome.message,
        "attempts": 1,
        "score": score,
        "val_score": validated.get(metric),
        "metrics": sorted(tested.items()),
        "val_metrics": sorted(validated.items()),
        **{k: int(v) for k, v in counts.items() if not k.endswith("seconds") and k != "spent"},
        **{k: float(v) for k, v in counts.items() if k.endswith("seconds") or k == "spent"},
        "digest": curve_digest(curve, score),
        "environment": json.dumps(now, sort_keys=True),
        "environment_hash": digest(now, 12),
        "engine_hash": engine_hash(),
        "commit": revision,
        "dirty": dirty,
        "trust": SMOKE if spec.tier == "smoke" else trust,
        "started_at": _when(outcome.started),
        "finished_at": _when(outcome.finished),
        "curve": curve,
        "exhibits": json.dumps(outcome.exhibits) if outcome.exhibits else "",
    }
    row |= {k: v for k, v in (extra or {}).items() if k not in per_step}
    row |= {k: v * counts["steps"] for k, v in per_step.items() if v is not None and "steps" in counts}
    return row


def facts_of(spec: RunSpec) -> dict[str, Any]:
    """Columns of a row that follow from what the run is; the last of them is its id."""
    info = spec.info
    return {
        "schema_version": SCHEMA_VERSION,
        "task": spec.task,
        "task_version": info.version,
        "task_hash": task_hash(info, spec.tier),
        "family": info.family,
        "method": spec.method,
        "slot": spec.slot,
        "method_hash": spec.code,
        "hp": json.dumps(_method_hp(spec), sort_keys=True),
        "set_hp": json.dumps(dict(spec.hp), sort_keys=True),
        "recipe": json.dumps(spec.recipe.as_dict(), sort_keys=True),
        "tier": spec.tier,
        "budget_kind": spec.budget_kind,
        "budget": float(spec.given),
        "budget_unit": info.unit,
        "seed": spec.seed,
        "trial": spec.trial,
        "trials": spec.trials,
        "metric": info.metric.name,
        "unit": info.metric.unit,
        "direction": info.metric.direction,
        "run_id": spec.run_id,
    }


def _score(spec: RunSpec, outcome: Outcome, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Test metrics; a primary metric that is not finite makes the run a diverged one."""
    info = spec.info
    task = info.factory(info)
    try:
        tested = {k: float(v) for k, v in task.score(predictions, task.answers(info.tiers[spec.tier])).items()}
        primary = tested[info.metric.name]
    except Exception as error:  # predictions come from a submission: whatever is wrong with them is its result
        outcome.status = "error"
        outcome.message = f"scoring failed: {type(error).__name__}: {error}"[:MESSAGE_LIMIT]
        return {}
    if not math.isfinite(primary):
        outcome.status, outcome.message = "diverged", f"test {info.metric.name} is {primary}"
    return tested


def _method_hp(spec: RunSpec) -> dict[str, Any]:
    """Complete hyper-parameters of the methods under test."""
    recipe = spec.recipe
    return {k: v for entry in spec.entries for k, v in recipe[entry.slot].hp.items()}


def curve_digest(curve: list[dict[str, Any]], score: float | None) -> str:
    """Hash of the curve's float32 losses and scores and of the final score: equal means bit-identical."""
    values = [v for p in curve for v in (p["train_loss"], p["score"])] + [score]
    numbers = np.array([math.nan if v is None else v for v in values], dtype=np.float32)
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def failed_row(spec: RunSpec, status: str, message: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The row of a run that left no outcome: killed, out of time or memory."""
    now = time.time()
    outcome = Outcome(status=status, message=message[:MESSAGE_LIMIT], started=now, finished=now)
    return make_row(spec, outcome, {}, extra, trust=FIRST_HAND)


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def one_thread() -> None:
    """Hold this process to one compute thread (before or after torch is imported)."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
