"""Resuming inside a run: what was interrupted ends bit for bit where it would have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.train.checkpoint import Checkpoint
from suite.train.loop import Trainer

# One run of each family; the methods under test are ones that keep state of their own.
RUNS = [
    RunSpec("digits-cnn", "ema", "smoke"),
    RunSpec("digits-cnn", "adamw", "smoke", 1),
    RunSpec("markov-gpt", "muon", "smoke"),
    RunSpec("kovasznay", "r3", "smoke"),
    RunSpec("add2-rlvr", "ngrpo", "smoke"),
    RunSpec("add2-offline", "dpo", "smoke"),
]


class Interrupted(Exception):
    pass


def trainer(spec: RunSpec) -> Trainer:
    workload = make_workload(spec)
    return Trainer(workload, workload.context.recipe, spec.given)


def finish(made: Trainer, evals: int, checkpoint: Checkpoint | None = None) -> tuple[list[tuple], dict]:
    history = made.run(evals, checkpoint)
    with made.evaluating(), torch.no_grad():
        predictions = made.workload.predict()
    return [(p.spent, p.steps, p.train_loss, tuple(p.metrics.items())) for p in history.curve], predictions


@pytest.mark.parametrize("spec", RUNS, ids=lambda s: f"{s.task}-{s.method}")
def test_a_resumed_run_equals_an_uninterrupted_one(spec: RunSpec, tmp_path: Path, monkeypatch) -> None:
    evals = spec.info.tiers[spec.tier].evals
    whole_curve, whole = finish(trainer(spec), evals)

    checkpoint = Checkpoint(tmp_path / "run.pt", seconds=0)
    first = trainer(spec)
    step, half = first.step, first.budget / 2

    def stop_halfway() -> torch.Tensor:
        if first.workload.spent > half and (tmp_path / "run.pt").exists():
            raise Interrupted
        return step()

    monkeypatch.setattr(first, "step", stop_halfway)
    with pytest.raises(Interrupted):
        first.run(evals, checkpoint)
    curve, predictions = finish(trainer(spec), evals, Checkpoint(tmp_path / "run.pt", seconds=0))
    assert repr(curve) == repr(whole_curve)  # repr: the first point's loss is nan
    assert {k: v.tobytes() for k, v in predictions.items()} == {k: v.tobytes() for k, v in whole.items()}


def test_a_damaged_checkpoint_starts_the_run_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(b"not a checkpoint")
    assert Checkpoint(path, 0).load() is None
    curve, _ = finish(trainer(RUNS[1]), 3, Checkpoint(path, 0))
    assert np.isfinite(curve[-1][2])


def test_a_checkpoint_with_objects_in_it_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    torch.save({"model": Interrupted()}, path)
    assert Checkpoint(path, 0).load() is None
