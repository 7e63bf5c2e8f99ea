"""The training loop: exactly a loop written by hand, within its budget, undisturbed by evaluation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import suite
from suite.recipe import Choice, Recipe
from suite.runner.execute import curve_digest, make_workload
from suite.runner.spec import RunSpec
from suite.seeds import seed_for
from suite.train.average import Averager
from suite.train.loop import Trainer
from suite.train.step import hessian_vector
from suite.train.workload import Workload


def trainer_of(task: str, method: str = "reference", seed: int = 0, budget: float | None = None) -> Trainer:
    spec = RunSpec(task, method, "smoke", seed, budget=budget)
    workload = make_workload(spec)
    return Trainer(workload, spec.recipe, spec.given)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def hashed(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {k: hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for k, t in tensors.items()}


# ---------------------------------------------------------------- a loop written by hand


def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    return torch.tensor(bunch.images[order], dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(bunch.target[order])


def bare_loop(steps: int, seed: int) -> tuple[list[float], dict[str, Tensor]]:
    """Training losses and weights of digits-cnn's reference, written without the suite's engine."""
    x, y = digits()
    x, y = x[:500].contiguous(memory_format=torch.channels_last), y[:500]
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    model.load_state_dict(trainer_of("digits-cnn", seed=seed).workload.model.state_dict())
    model = model.to(memory_format=torch.channels_last)
    plain = [p for m in model if isinstance(m, nn.BatchNorm2d) for p in m.parameters()] + [model[-1].bias]
    decayed = [p for p in model.parameters() if all(p is not q for q in plain)]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    stream = torch.Generator().manual_seed(seed_for("digits-cnn", "order", seed))
    order, losses = torch.empty(0, dtype=torch.long), []
    for step in range(steps):
        if len(order) < 64:
            order = torch.randperm(500, generator=stream)
        rows, order = order[:64], order[64:]
        ramp = 0.1 * steps  # up from 1% of the peak over a tenth of the steps, then a straight line to 0
        warm = 1.0 if step >= ramp else step / ramp + 0.01 * (1.0 - step / ramp)
        rest = 0.0 if step <= ramp else (step - ramp) / (steps - ramp)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (warm * (1.0 - rest))
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, state(model)


@pytest.mark.parametrize("seed", [0, 3])
def test_training_equals_a_loop_written_by_hand_to_the_last_bit(seed: int) -> None:
    steps = 30
    losses, weights = bare_loop(steps, seed)
    trainer = trainer_of("digits-cnn", seed=seed)
    assert [float(trainer.step()) for _ in range(steps)] == losses
    assert same(state(trainer.workload.model), weights)


# ---------------------------------------------------------------- pairing and repetition


@pytest.mark.parametrize("other", ["gelu", "prelu", "adamw", "ema", "layernorm", "label-smoothing"])
def test_methods_start_from_the_same_weights_and_batches(other: str) -> None:
    workloads = [make_workload(RunSpec("digits-cnn", method, "smoke", 1)) for method in ("relu", other)]
    first, second = (hashed({n: p.detach() for n, p in w.model.named_parameters()}) for w in workloads)
    shared = first.keys() & second.keys()
    assert len(shared) >= 4
    assert {n: first[n] for n in shared} == {n: second[n] for n in shared}
    for workload in workloads:
        workload.next()
    assert hashed({"x": workloads[0].x, "y": workloads[0].y}) == hashed({"x": workloads[1].x, "y": workloads[1].y})


def test_seeds_differ_in_weights_and_order() -> None:
    one, two = (make_workload(RunSpec("digits-cnn", "reference", "smoke", seed)) for seed in (0, 1))
    for workload in (one, two):
        workload.next()
    assert not torch.equal(one.model[0].weight, two.model[0].weight)
    assert not torch.equal(one.x, two.x)


@pytest.mark.parametrize("task", ["digits-cnn", "dyck-gpt", "convection", "add2-rlvr"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(task: str) -> None:
    budget = suite.registry().task(task).tiers["smoke"].budget / 4
    rows = [suite.run(task, tier="smoke", seed=seed, budget=budget).row for seed in (2, 2, 5)]
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert rows[0]["digest"] == rows[1]["digest"] != rows[2]["digest"]
    assert rows[0]["run_id"] == rows[1]["run_id"] != rows[2]["run_id"]


def test_the_method_that_the_reference_uses_gives_the_references_bits() -> None:
    reference, relu = (suite.run("digits-cnn", method, tier="smoke", seed=4).row for method in ("reference", "relu"))
    assert reference["digest"] == relu["digest"]
    assert reference["run_id"] != relu["run_id"]


def test_random_draws_of_a_module_follow_the_seed(entry: Callable[..., Path]) -> None:
    entry(
        "import torch\nfrom torch import nn\nfrom suite import activation\n"
        "@activation('noisy', stochastic=True)\nclass Noisy(nn.Module):\n    '''x + noise.'''\n"
        "    def forward(self, x): return x + torch.randn_like(x) if self.training else x\n"
    )

    def draws(seed: int) -> Tensor:
        trainer = trainer_of("digits-cnn", "noisy", seed)
        return trainer.workload.model[2](torch.zeros(1000))

    assert torch.equal(draws(0), draws(0))
    assert not torch.equal(draws(0), draws(1))


# ---------------------------------------------------------------- a workload of the test's own


class Steps(Workload):
    """A scalar; every step uses `price` of the budget; notes what the loop asks for."""

    def __init__(self, price: float = 1.0, poison: int = -1) -> None:
        self.model = nn.Linear(1, 1)
        nn.init.ones_(self.model.weight)
        nn.init.zeros_(self.model.bias)
        self.price, self.poison = price, poison
        self.seen: list[tuple[str, float]] = []

    @property
    def spent(self) -> float:
        return self.steps * self.price

    def next(self) -> None:
        self.seen.append(("next", self.spent))
        self.examples += 2

    def loss(self) -> Tensor:
        self.seen.append(("loss", self.spent))
        factor = math.nan if self.steps == self.poison else 1.0
        return factor * self.model(torch.ones(1, 1)).square().sum()

    def validate(self) -> dict[str, float]:
        self.seen.append(("validate", self.spent))
        assert not self.model.training
        return {"loss": float(self.model.weight.detach().square())}

    def predict(self) -> dict[str, np.ndarray]:
        return {}


PLAIN = Recipe({"optimizer": Choice("sgd", {"lr": 0.01}), "schedule": Choice("constant", {})})


class Charging(nn.Module):
    """Charges `price` for its scalar, which starts at 1."""

    def __init__(self, price: float) -> None:
        super().__init__()
        self.price, self.value = price, nn.Parameter(torch.ones(()))

    def auxiliary_loss(self) -> Tensor:
        return self.price * self.value


def test_auxiliary_losses_of_modules_are_averaged_into_the_loss() -> None:
    workload = Steps()
    bare = float(Trainer(workload, PLAIN, 10).closure())
    workload.model.charges = nn.ModuleList([Charging(1.0), Charging(5.0)])
    assert float(Trainer(workload, PLAIN, 10).closure()) == bare + 3.0
    assert [float(part.value.grad) for part in workload.model.charges] == [0.5, 2.5]


@pytest.mark.parametrize(
    ("price", "budget", "steps"),
    [(1.0, 10, 10), (3.0, 10, 4), (1.0, 10.5, 11), (7.0, 3, 1), (0.5, 3, 6), (1.0, 0.1, 1)],
)
def test_a_budget_is_used_and_passed_by_at_most_one_step(price: float, budget: float, steps: int) -> None:
    workload = Steps(price)
    Trainer(workload, PLAIN, budget).run(evals=3)
    assert workload.steps == workload.passes == steps
    assert budget <= workload.spent < budget + price
    assert workload.examples == 2 * steps


@pytest.mark.parametrize(("budget", "evals"), [(12, 4), (12, 12), (12, 5), (5, 20), (1, 1), (7.3, 3)])
def test_evaluations_are_evenly_spaced_from_before_the_first_step_to_after_the_last(budget: float, evals: int) -> None:
    workload = Steps()
    history = Trainer(workload, PLAIN, budget).run(evals)
    spent = [point.spent for point in history.curve]
    wanted = [0.0] + [math.ceil(budget * (i + 1) / evals) for i in range(evals)]
    assert spent == sorted(set(wanted))
    assert [s for kind, s in workload.seen if kind == "validate"] == spent
    assert spent[-1] == workload.spent
    assert [point.steps for point in history.curve] == spent
    assert math.isnan(history.curve[0].train_loss)


def test_a_point_holds_the_mean_training_loss_since_the_one_before() -> None:
    losses = []
    trainer = Trainer(Steps(), PLAIN, 6)
    step = trainer.step
    trainer.step = lambda: losses.append(step()) or losses[-1]  # type: ignore[method-assign, func-returns-value]
    history = trainer.run(evals=2)
    assert [p.train_loss for p in history.curve[1:]] == [
        pytest.approx(float(sum(losses[:3]) / 3)), pytest.approx(float(sum(losses[3:]) / 3)),
    ]  # fmt: skip


def test_what_a_module_does_after_a_step_comes_before_averaging_and_evaluation() -> None:
    class Clamped(nn.Linear):
        def after_step(self) -> None:
            with torch.no_grad():
                self.weight.fill_(0.25)

    class Seen(Averager):
        def update(self, step: float, total: float) -> None:
            seen.append(self.model.weight.item())

    seen: list[float] = []
    workload = Steps()
    workload.model = Clamped(1, 1)
    trainer = Trainer(workload, PLAIN, 3)
    trainer.averager = Seen(workload.model)
    history = trainer.run(evals=3)
    assert seen == [0.25] * 3
    assert [p.metrics["loss"] for p in history.curve[1:]] == [0.0625] * 3


@pytest.mark.parametrize("poison", [0, 7, 49])
def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(poison: int) -> None:
    workload = Steps(poison=poison)
    history = Trainer(workload, PLAIN, 50).run(evals=1)
    assert "training loss is not finite at step" in history.diverged
    assert len(history.curve) == 1
    assert workload.steps <= poison + 33


def test_the_rate_of_a_group_is_its_own_times_the_schedule() -> None:
    seen: list[list[float]] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            seen.append([group["lr"] for group in self.param_groups])

    trainer = Trainer(Steps(), PLAIN, 4)
    parameters = [[p] for p in trainer.workload.model.parameters()]
    trainer.optimizer = Watched([{"params": parameters[0]}, {"params": parameters[1], "lr": 0.5}], lr=0.1)
    for group in trainer.optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    trainer.stepper.optimizer = trainer.optimizer
    trainer.schedule = lambda step, total: 1.0 - step / total
    trainer.run(evals=1)
    assert seen == [[pytest.approx(r * m) for r in (0.1, 0.5)] for m in (1.0, 0.75, 0.5, 0.25)]


def test_a_part_that_wants_to_know_is_told_the_horizon_and_the_progress() -> None:
    told: list[object] = []

    class Curious(nn.Linear):
        def set_progress(self, fraction: float) -> None:
            told.append(fraction)

    workload = Steps()
    workload.model = Curious(1, 1)
    Trainer(workload, PLAIN, 4).run(evals=1)
    assert told == [0.0, 0.25, 0.5, 0.75]


def test_an_optimizer_that_asks_is_told_how_many_predictions_the_run_trains_on() -> None:
    for task, per_step in (("digits-cnn", 64), ("hmm-gpt", None)):
        trainer = trainer_of(task, "reference", budget=10)
        trainer.workload.next()
        assert trainer.workload.targets == trainer.workload.y.numel() == (per_step or trainer.workload.y.numel())
    decay = trainer_of("hmm-gpt", "powerlines-wd", budget=1000)
    ratio = 1000 * decay.workload.targets / sum(p.numel() for p in decay.workload.model.parameters())
    wanted = 1 / (decay.optimizer.param_groups[0]["initial_lr"] * 1000 * 1.084 * ratio**-0.527)
    assert decay.optimizer.param_groups[0]["weight_decay"] == pytest.approx(wanted)


# ---------------------------------------------------------------- Hessian-vector products


def test_a_hessian_vector_product_agrees_with_the_whole_hessian() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.randint(3, (20,))
    first, second = (torch.randn(s, dtype=torch.float64).requires_grad_() for s in ((4, 5), (5, 3)))

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return functional.cross_entropy((x @ a).tanh() @ b, y)

    vectors = [torch.randn_like(first), torch.randn_like(second)]
    whole = torch.autograd.functional.hessian(loss, (first.detach(), second.detach()))
    products = hessian_vector(lambda: loss(first, second), [first, second], vectors)
    for row, product in zip(whole, products, strict=True):
        wanted = sum(torch.tensordot(block, v, 2) for block, v in zip(row, vectors, strict=True))
        torch.testing.assert_close(product, wanted)


def test_what_the_loss_depends_on_linearly_or_not_at_all_has_no_curvature() -> None:
    line, idle = (torch.ones(3, requires_grad=True) for _ in range(2))
    for found in (
        hessian_vector(lambda: 2 * line.sum(), [line, idle], [torch.ones(3)] * 2),
        hessian_vector(lambda: line.prod(), [line, idle], [torch.zeros(3)] * 2),
    ):
        assert [t.tolist() for t in found] == [[0.0] * 3] * 2


def test_the_extra_passes_of_a_hessian_vector_product_are_counted_and_gradients_stay() -> None:
    asked: list[tuple[list[Tensor], list[Tensor]]] = []

    class Curious(torch.optim.SGD):
        def set_hessian_vector(self, product: Callable[..., list[Tensor]]) -> None:
            self.product = product

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            parameters = [p for group in self.param_groups for p in group["params"]]
            before = [p.grad.clone() for p in parameters]
            found = self.product(parameters, [torch.ones_like(p) for p in parameters])
            assert all(torch.equal(p.grad, g) for p, g in zip(parameters, before, strict=True))
            asked.append((parameters, found))

    workload = Steps()
    trainer = Trainer(workload, PLAIN, 3)
    trainer.optimizer = Curious(list(workload.model.parameters()), lr=0.1)
    trainer.stepper.optimizer = trainer.optimizer
    trainer.optimizer.set_hessian_vector(trainer.hessian_vector)
    trainer.schedule = lambda step, total: 1.0
    for group in trainer.optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    trainer.step()
    assert workload.passes == 3
    assert [float(t) for t in asked[0][1]] == [4.0, 4.0]  # the loss is (weight + bias)²


@pytest.mark.parametrize("task", ["digits-cnn", "dyck-gpt", "convection", "add2-rlvr"])
def test_sophia_is_given_products_in_every_family(task: str) -> None:
    trainer = trainer_of(task, "sophia-h")
    for _ in range(2):
        assert math.isfinite(float(trainer.step()))
    assert trainer.workload.passes == 4
    curvature = [s["hessian"] for s in trainer.optimizer.state.values()]
    assert any(bool(h.any()) for h in curvature)
    assert all(bool(h.isfinite().all()) for h in curvature)


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("method", ["reference", "ema", "schedule-free-adamw", "stocha", "sam", "swa", "spectral-norm"])
def test_evaluations_leave_training_untouched(method: str) -> None:
    finals = []
    for evals in (1, 10):
        trainer = trainer_of("digits-cnn", method, budget=10)
        trainer.run(evals)
        finals.append(state(trainer.workload.model))
    assert same(*finals)


@pytest.mark.parametrize("method", [m.name for m in suite.methods("averaging")])
def test_averaged_weights_are_swapped_back_to_the_last_bit(method: str) -> None:
    trainer = trainer_of("digits-cnn", method)
    for _ in range(8):
        trainer.step()
    before = state(trainer.workload.model)
    with trainer.evaluating():
        assert not trainer.workload.model.training
        inside = state(trainer.workload.model)
    assert same(state(trainer.workload.model), before)
    assert trainer.workload.model.training
    average = trainer.averager.weights()
    assert same(inside, {**before, **(average or {})})


def test_an_average_is_what_evaluation_sees_and_an_error_inside_gives_the_weights_back() -> None:
    class Zeros(Averager):
        def weights(self) -> dict[str, Tensor]:
            return {"weight": torch.zeros(1, 1)}

    workload = Steps()
    trainer = Trainer(workload, PLAIN, 4)
    trainer.averager = Zeros(workload.model)
    assert trainer.evaluate() == {"loss": 0.0}
    before = state(workload.model)

    def failing() -> dict[str, float]:
        raise RuntimeError("no metric today")

    workload.validate = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no metric today"):
        trainer.evaluate()
    assert same(state(workload.model), before)
    assert workload.model.training


# ---------------------------------------------------------------- what goes wrong is a status


@pytest.mark.usefixtures("toy")
def test_a_nan_is_a_diverged_run() -> None:
    result = suite.run("toy-long", "toy-nan", tier="smoke")
    assert (result.status, result.score, result.metrics) == ("diverged", None, {})
    assert "not finite at step" in result.message


@pytest.mark.usefixtures("toy")
def test_an_exception_is_an_error_with_its_file_and_line(toy_file: Path) -> None:
    result = suite.run("toy", "toy-raises", tier="smoke")
    line = 1 + toy_file.read_text().splitlines().index(
        '        raise ValueError("no line today <b>&amp;</b> \\u2192 \\U0001f600")'
    )
    assert result.status == "error"
    assert result.message == f"ValueError: no line today <b>&amp;</b> → \U0001f600 (at toy.py:{line})"
    assert result.score is None


@pytest.mark.usefixtures("toy")
def test_a_missing_package_is_a_skipped_run_that_names_it() -> None:
    result = suite.run("toy", "toy-missing", tier="smoke")
    assert result.status == "skipped"
    assert "pip install a_package_that_is_not_there" in result.message


def test_a_file_that_cannot_be_imported_is_an_error_of_its_own_run(entry: Callable[..., Path]) -> None:
    entry("from suite import activation\n@activation('unborn')\nclass A: pass\nimport not_a_package_at_all\n")
    result = suite.run("digits-cnn", "unborn", tier="smoke")
    assert result.status == "error"
    assert "ModuleNotFoundError" in result.message
    assert "(at mine.py:4)" in result.message


def test_a_curve_digest_knows_every_bit_of_losses_and_score() -> None:
    curve = [{"train_loss": math.nan, "score": 2.0}, {"train_loss": 1.5, "score": 1.0}]
    base = curve_digest(curve, 0.5)
    assert curve_digest([dict(p) for p in curve], 0.5) == base
    above = float(np.nextafter(np.float32(1.0), np.float32(2.0)))
    assert curve_digest([curve[0], {"train_loss": 1.5, "score": above}], 0.5) != base
    assert curve_digest(curve, None) != base
    assert curve_digest(curve[:1], 0.5) != base
