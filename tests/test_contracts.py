"""What every registered method and task must do: a new file is tested because it exists."""

from __future__ import annotations

import math

import pytest
import torch

import suite
from suite.contract import Contract, contracts
from suite.registry import Method, TaskInfo
from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.train.loop import Trainer

METHODS = suite.methods()
PAIRS = [pytest.param(m, c, id=f"{m.name}-{c.__name__}") for m in METHODS for c in contracts(m)]
SMOKE = [t for t in suite.tasks() if "smoke" in t.tiers and not t.data]


@pytest.mark.parametrize(("method", "contract"), PAIRS)
def test_a_method_keeps_the_contracts_of_its_slot(method: Method, contract: Contract) -> None:
    contract(method)


def test_every_file_of_the_packages_is_read() -> None:
    assert [str(problem) for problem in suite.registry().problems] == []


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_method_fits_a_task_has_its_defaults_in_its_space_and_says_what_it_is(method: Method) -> None:
    assert any(method.fits(task) for task in suite.tasks())
    assert {name for name, domain in method.space.items() if method.defaults[name] not in domain} == set()
    for domain in method.space.values():
        assert all(domain.at(u) in domain for u in (0.0, 0.3, 0.999))
    assert method.paper is None or (method.paper.title and (method.paper.link or method.paper.year))
    assert method.confidence in ("verified", "known", "partly")
    assert method.passes > 0


@pytest.mark.parametrize("task", suite.tasks(), ids=lambda t: t.name)
def test_a_task_states_a_metric_tiers_and_a_recipe_within_its_slots(task: TaskInfo) -> None:
    assert task.summary
    assert task.title
    assert set(task.recipe) <= set(task.slots)
    assert {"optimizer", "schedule"} <= set(task.recipe)
    assert "smoke" in task.tiers
    assert all(tier.budget > 0 and tier.evals > 0 and tier.limit > 0 for tier in task.tiers.values())
    assert set(task.noise) <= set(task.tiers)
    for slot in task.slots:
        assert any(m.slot == slot and task.family in m.families for m in METHODS), f"no method fills {slot}"


# ---------------------------------------------------------------- one step of every method


def _cheapest(method: Method) -> list[TaskInfo]:
    """The smallest embedded task of each family that the method fits."""
    chosen: dict[str, TaskInfo] = {}
    for task in sorted(SMOKE, key=lambda t: (t.tiers["smoke"].budget, t.name)):
        if method.fits(task):
            chosen.setdefault(task.family, task)
    return list(chosen.values())


STEPS = [pytest.param(m, t, id=f"{m.name}-{t.name}") for m in METHODS for t in _cheapest(m)]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "task"), STEPS)
def test_a_method_takes_training_steps_in_every_family_it_fits(method: Method, task: TaskInfo) -> None:
    spec = RunSpec(task.name, method.name, "smoke")
    workload = make_workload(spec)
    trainer = Trainer(workload, spec.recipe, spec.given)
    before = trainer.evaluate()
    losses = [float(trainer.step()) for _ in range(2)]
    assert all(math.isfinite(v) for v in losses)
    assert workload.spent > 0
    assert set(trainer.evaluate()) == set(before) >= {task.metric.name}
    assert all(bool(p.isfinite().all()) for p in workload.model.parameters())
    with trainer.evaluating(), torch.no_grad():
        predictions = workload.predict()
    made = task.factory(task)
    scores = made.score(predictions, made.answers(task.tiers["smoke"]))
    assert math.isfinite(scores[task.metric.name])


# ---------------------------------------------------------------- references learn
