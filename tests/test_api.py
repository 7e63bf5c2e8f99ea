"""The public Python API: small, documented, and honest about what is not there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import suite
from suite.registry import UnknownName
from suite.store.files import write_rows


def test_everything_public_exists_and_is_documented() -> None:
    for name in suite.__all__:
        thing = getattr(suite, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert inspect.getdoc(thing), name
    with pytest.raises(AttributeError, match="module 'suite' has no attribute 'trian'"):
        suite.trian  # noqa: B018


def test_methods_and_tasks_are_metadata() -> None:
    golu = suite.method("golu")
    assert (golu.slot, golu.name) == ("activation", "golu")
    assert golu in suite.methods(slot="activation")
    assert golu.paper is not None
    assert golu.paper.link == "https://arxiv.org/abs/2502.03654"
    assert {t.family for t in suite.tasks("vision")} == {"vision"}
    assert golu.fits(suite.registry().task("digits-cnn"))
    assert not suite.method("grpo").fits(suite.registry().task("digits-cnn"))


def test_making_a_method_gives_what_its_slot_says() -> None:
    import torch
    from torch import nn

    assert isinstance(suite.method("golu").make(), nn.Module)
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = suite.method("lion").make([{"params": [weight]}], lr=0.5)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert suite.method("linear").make()(0.0, 10.0) <= 1.0
    assert suite.method("cross-entropy").make()(torch.zeros(3, 4), torch.tensor([0, 1, 2])).ndim == 0
    with pytest.raises(TypeError, match=r"lion has no hyper-parameter \['learning_rate'\]; it has: .*lr"):
        suite.method("lion").make([weight], learning_rate=0.5)


def test_a_task_knows_its_recipe_and_its_facts() -> None:
    task = suite.task("digits-cnn")
    assert task.recipe["activation"].method == "relu"
    assert task.info.metric.name == "ce"
    assert len(task.answers(task.info.tiers["smoke"])) == 500


def test_a_run_gives_metrics_curve_and_row() -> None:
    result = suite.run("digits-cnn", "gelu", tier="smoke", seed=0)
    assert (result.status, result.message) == ("ok", "")
    assert set(result.metrics) == {"ce", "accuracy"}
    assert result.score == result.metrics["ce"] == result.row["score"]
    assert list(result.curve.columns) == ["spent", "steps", "examples", "seconds", "train_loss", "score"]
    assert list(result.curve["steps"]) == [0, 10, 20, 30]
    assert result.curve["seconds"].is_monotonic_increasing
    assert (result.row["steps"], result.row["examples"], result.row["trust"]) == (30, 1920, "smoke")
    assert "activation gelu" in result.row["exhibits"]


def test_a_run_takes_budget_and_hyper_parameters() -> None:
    result = suite.run("digits-cnn", "nesterov", tier="smoke", budget=3, hp={"lr": 0.01})
    assert (result.row["steps"], result.row["budget"]) == (3, 3.0)
    assert '"lr": 0.01' in result.row["hp"]
    assert result.row["set_hp"] == '{"lr": 0.01}'


def test_a_hyper_parameter_that_training_cannot_take_is_an_error_of_the_run() -> None:
    result = suite.run("digits-cnn", "nesterov", tier="smoke", hp={"lr": -1.0})
    assert result.status == "error"
    assert "learning rate" in result.message.lower()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: suite.task("digits"), UnknownName, "no task named 'digits'; did you mean digits-cnn"),
        (lambda: suite.method("golo"), UnknownName, "did you mean .*golu"),
        (lambda: suite.run("digits-cnn", "golo"), UnknownName, "no method named 'golo'"),
        (lambda: suite.run("digits", "golu"), UnknownName, "no task named 'digits'"),
        (lambda: suite.run("digits-cnn", tier="huge"), UnknownName, "has no tier 'huge'; it has: smoke, quick"),
        (lambda: suite.run("digits-cnn", "grpo"), ValueError, "does not declare slot 'objective'"),
        (lambda: suite.run("digits-cnn", "golu", hp={"lr": 1}), ValueError, "no hyper-parameter"),
        (lambda: suite.load_results("no-such-folder"), OSError, "no such results folder"),
    ],
)
def test_what_is_not_there_is_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_runs_row_is_a_result_that_loads(tmp_path: Path) -> None:
    result = suite.run("digits-cnn", "golu", tier="smoke", budget=2)
    write_rows(tmp_path / "runs" / "a.parquet", [result.row])
    frame = suite.load_results(tmp_path)
    assert isinstance(frame, pd.DataFrame)
    assert frame["score"][0] == result.score
    assert frame["metrics"][0] == result.metrics
    assert frame.attrs["problems"] == []
    assert list(suite.load_curves([tmp_path])["steps"]) == list(result.curve["steps"])
