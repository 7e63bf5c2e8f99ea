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
from suite.train.workload import DoesNotApply

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
    assert set(task.slots) <= {method.slot for method in METHODS}


# ---------------------------------------------------------------- one step of every method


def _cheapest(method: Method) -> list[TaskInfo]:
    """The smallest embedded task of each family that the method fits."""
    chosen: dict[str, TaskInfo] = {}
    for task in sorted(SMOKE, key=lambda t: (t.tiers["smoke"].budget, t.name)):
        if method.fits(task):
            chosen.setdefault(task.family, task)
    return list(chosen.values())


# After two steps the running variances of six layers of squares are far off, and evaluation overflows.
# Weights multiplied by exp(rate * momentum) overflow at a rate of .9 and gradients of norm 100: a result, not a fault.
OVERFLOWS = {("square", "shapes-cnn"), ("sgd-eg", "poisson-100")}
STEPS = [pytest.param(m, t, id=f"{m.name}-{t.name}") for m in METHODS for t in _cheapest(m)]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "task"), STEPS)
def test_a_method_takes_training_steps_in_every_family_it_fits(method: Method, task: TaskInfo) -> None:
    spec = RunSpec(task.name, method.name, "smoke")
    try:
        workload = make_workload(spec)
        trainer = Trainer(workload, spec.recipe, spec.given)
    except DoesNotApply as reason:
        pytest.skip(str(reason))
    before = trainer.evaluate()
    losses = [float(trainer.step()) for _ in range(2)]
    assert all(math.isfinite(v) for v in losses)
    assert workload.spent > 0
    assert set(trainer.evaluate()) == set(before) >= {task.metric.name}
    overflows = (method.name, task.name) in OVERFLOWS
    assert overflows or all(bool(p.isfinite().all()) for p in workload.model.parameters())
    with trainer.evaluating(), torch.no_grad():
        predictions = workload.predict()
    made = task.factory(task)
    scores = made.score(predictions, made.answers(task.tiers["smoke"]))
    assert overflows or math.isfinite(scores[task.metric.name])


# ---------------------------------------------------------------- references learn

# By how much the reference's validation score improves on the untrained model's, in units of the metric
# (nats, decades of error, share), and over which budget where the smoke tier's is too short to tell.
GAINS = {
    "digits-cnn": 1.5, "shapes-cnn": 0.3, "shapes-vit": 0.3,
    "deep-gpt": 0.2, "dyck-gpt": 0.5, "hmm-gpt": 0.3, "markov-gpt": 0.25, "normfree-gpt": 0.7,
    "burgers": 0.3, "cavity": 0.3, "convection": 0.08, "convection-30": 0.06, "highfreq-poisson": 0.3, "kdv": 0.1,
    "kovasznay": 0.4, "poisson-5": 1.0, "poisson-10": 1.0, "poisson-100": 0.7, "reaction-3": 0.8,
    "sine-gordon-100": 1.0, "wave": 0.08,
    "add2-offline": 0.2, "add2-rlvr": 0.05, "countdown3-rlvr": 0.1, "parity12-rlvr": 0.4, "sort6-rlvr": 0.15,
}  # fmt: skip
BUDGETS = {
    "shapes-cnn": 60, "shapes-vit": 300, "add2-offline": 120, "add2-rlvr": 80_000, "countdown3-rlvr": 250_000,
    "parity12-rlvr": 80_000, "sort6-rlvr": 80_000,
}  # fmt: skip
# Where the score moves late (memorising first, stiff equations): the factor by which the training loss falls.
FALLS = {
    "allen-cahn": 1.3, "helmholtz": 50.0, "kuramoto-sivashinsky": 1.4, "reaction-5": 1.5, "modadd-grok": 2.0,
    "modadd-nodecay": 3.0,
}  # fmt: skip
FAST = ("digits-cnn", "dyck-gpt", "poisson-5")


@pytest.mark.parametrize(
    "task", [pytest.param(t, id=t.name, marks=() if t.name in FAST else pytest.mark.slow) for t in SMOKE]
)
def test_a_reference_learns(task: TaskInfo) -> None:
    """A task that is in neither table has to lower its training loss by a fifth."""
    result = suite.run(task.name, tier="smoke", seed=0, budget=BUDGETS.get(task.name))
    assert result.status == "ok", result.message
    first, last = result.curve["score"].iloc[0], result.curve["score"].iloc[-1]
    if task.name in GAINS:
        assert task.metric.sign * (first - last) >= GAINS[task.name], (first, last)
    else:
        losses = result.curve["train_loss"]
        assert losses.iloc[1] >= FALLS.get(task.name, 1.25) * losses.iloc[-1], list(losses)
