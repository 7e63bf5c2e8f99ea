"""Physics-informed tasks train, count, score and repeat as their tables say."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import suite
from suite.recipe import Choice, recipe_for
from suite.registry import registry
from suite.train.loop import Trainer
from suite.train.pinn import Domain, PinnWorkload, error_metrics
from suite.train.workload import Context

TASKS = [task.name for task in suite.tasks(family="pde")]
SMALL = {"points": 20, "width": 8}


def context(name: str, method: str = "reference", *, seed: int = 0, choices=None, tier: str = "smoke", **sizes):
    info = registry().task(name)
    recipe = recipe_for(info, method)
    for slot, choice in (choices or {}).items():
        recipe = recipe.with_choice(slot, choice)
    small = dataclasses.replace(info.tiers[tier], sizes={**info.tiers[tier].sizes, **SMALL, **sizes})
    return Context(info, small, tier, recipe, seed, torch.device("cpu"))


def workload(*args, **kwargs) -> PinnWorkload:
    made = context(*args, **kwargs)
    return made.task.factory(made.task).workload(made)


def train(work: PinnWorkload, budget: float) -> tuple[Trainer, list[float]]:
    trainer = Trainer(work, work.context.recipe, budget)
    losses = []
    while work.spent < budget:
        losses.append(float(trainer.step()))
    return trainer, losses


@pytest.mark.parametrize("name", TASKS)
def test_task_trains_scores_and_exhibits(name):
    work = workload(name)
    before = work.validate()["log10_l2re"]
    _, losses = train(work, 5)
    assert all(map(math.isfinite, losses))
    metrics = work.task.score(work.predict(), work.task.answers(work.context.tier))
    assert math.isfinite(before)
    assert math.isfinite(metrics["log10_l2re"])
    assert {"log10_l2re", "l2re", "linf", "success", "reference_error"} <= set(metrics)
    assert metrics["reference_error"] < 1e-3
    shown = json.loads(json.dumps(work.exhibits()))
    assert shown["kind"] == "pde-map"
    for which in ("solution", "prediction", "error"):
        rows = shown[which]
        assert len(rows) <= 48
        assert len(rows[0]) <= 48
        assert all(v == float(f"{v:.4g}") for row in rows for v in row)


@pytest.mark.parametrize("name", TASKS)
def test_every_tier_has_the_sizes_that_the_task_reads(name):
    info = registry().task(name)
    task = info.factory(info)
    assert {"smoke", "standard"} <= set(info.tiers)
    for tier in info.tiers.values():
        assert {"points", "width", "blocks"} <= set(tier.sizes)
        assert all(torch.isfinite(c.points).all() for c in task.conditions(tier))


@pytest.mark.parametrize("name", TASKS)
def test_the_network_uses_every_slot_that_the_task_declares(name):
    work = workload(name, choices={"reparam": Choice("weightnorm")})
    blocks = work.context.tier.sizes["blocks"]
    assert work.sites["activation"] == 1 + 2 * blocks
    assert work.sites["block"] == blocks
    assert work.sites["init"] == 2 * (2 + 2 * blocks)
    assert {"reparam", "sampler", "pde-method"} <= set(work.sites)
    used = {"optimizer", "gradient", "schedule", "averaging", "regularizer"}  # by the loop
    assert set(work.context.task.slots) <= set(work.sites) | used


def test_every_forward_backward_pass_of_a_line_search_is_counted():
    work = workload("convection-30")
    trainer = Trainer(work, work.context.recipe, 200)
    calls = 0
    loss = work.loss

    def counted() -> torch.Tensor:
        nonlocal calls
        calls += 1
        return loss()

    work.loss = counted  # type: ignore[method-assign]
    while work.spent < 200:
        trainer.step()
    assert work.spent == calls
    assert work.steps < calls
    assert calls < 200 + 25  # the last step of L-BFGS may pass the budget


def test_points_stay_fixed_within_a_step():
    work = workload("convection-30", choices={"sampler": Choice("uniform")})
    seen = []
    loss = work.loss

    def spy() -> torch.Tensor:
        seen.append(work.points)
        return loss()

    work.loss = spy  # type: ignore[method-assign]
    trainer = Trainer(work, work.context.recipe, 100)
    trainer.optimizer.set_progress(1.0)
    trainer.listeners.clear()
    trainer.step()
    assert len(seen) > 2
    assert all(points is seen[0] for points in seen)


@pytest.mark.parametrize("method", ["reference", "r3", "rad", "lra", "causal-weights"])
def test_the_same_seed_repeats_the_run_bit_for_bit(method):
    first, second = (train(workload("convection", method), 12)[1] for _ in range(2))
    other = train(workload("convection", method, seed=1), 12)[1]
    assert first == second
    assert first != other


def test_methods_start_from_the_same_weights_and_points():
    reference, other = workload("convection"), workload("convection", "r3")
    for ours, theirs in zip(reference.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    reference.next()
    other.next()
    assert torch.equal(reference.points, other.points)


def test_evaluation_does_not_change_the_training():
    def losses(evaluate: bool) -> list[float]:
        work = workload("burgers")
        trainer = Trainer(work, work.context.recipe, 50)
        found = []
        for _ in range(4):
            found.append(float(trainer.step()))
            if evaluate:
                trainer.evaluate()
                work.exhibits()
        return found

    assert losses(True) == losses(False)


@pytest.mark.parametrize("name", ["burgers", "wave", "helmholtz", "poisson-5"])
def test_a_network_without_second_derivatives_trains_and_fails_honestly(name):
    work = workload(name, "relu")
    _, losses = train(work, 30)
    assert all(map(math.isfinite, losses))
    metrics = work.validate()
    assert metrics["log10_l2re"] > -0.7
    assert metrics["success"] == 0.0


@pytest.mark.parametrize("name", TASKS)
def test_a_run_with_a_piecewise_linear_activation_ends_as_a_result(name):
    """Whatever the equation's order: a status and a score, no exception."""
    result = suite.run(name, "relu", tier="smoke", seed=0, budget=4)
    assert result.status == "ok", result.message
    assert math.isfinite(result.metrics["log10_l2re"])


@pytest.mark.parametrize("name", ["wave", "helmholtz", "kovasznay", "poisson-10"])
def test_taylor_mode_is_used_where_the_network_allows_it(name):
    assert workload(name).problem.taylor
    assert workload(name, "gelu").problem.taylor


def test_taylor_mode_is_left_where_an_activation_mixes_columns():
    assert not workload("kovasznay", "groupsort").problem.taylor


@pytest.mark.parametrize("name", ["wave", "helmholtz", "kovasznay", "poisson-10"])
def test_training_loss_is_the_same_in_taylor_mode_and_by_nested_differentiation(name):
    losses = []
    for nested in (False, True):
        work = workload(name)
        work.next()
        if nested:
            from suite.train.derivatives import autograd_fields

            work.problem.engine = autograd_fields
        loss = work.loss()
        loss.backward()
        losses.append((loss.item(), torch.cat([p.grad.flatten() for p in work.model.parameters()])))
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4)
    torch.testing.assert_close(losses[0][1], losses[1][1], rtol=1e-3, atol=1e-4 * float(losses[1][1].abs().max()))


def test_plain_mlp_has_one_plus_two_hidden_layers_a_block():
    work = workload("convection", width=50)
    weights = [tuple(p.shape) for p in work.model.parameters() if p.ndim == 2]
    assert weights == [(50, 2), (50, 50), (50, 50), (1, 50)]
    assert not any(getattr(m, "levelfield_residual", False) for m in work.model.modules())


def test_an_activation_that_changes_the_width_reaches_the_network():
    work = workload("convection", "crelu")
    _, losses = train(work, 3)
    assert all(map(math.isfinite, losses))


def test_network_sees_coordinates_scaled_to_the_unit_box():
    work = workload("convection")
    corners = torch.tensor([[0.0, 0.0], [2 * math.pi, 1.0]])
    torch.testing.assert_close(work.method.embed(corners), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))


def test_several_equations_count_in_one_norm():
    work = workload("kovasznay")
    work.next()
    work.loss()
    assert work.method.pointwise.shape == (20,)
    residual = work.method.residual(work.model, work.points)
    assert residual.shape == (20, 3)
    torch.testing.assert_close(work.method.pointwise, residual.detach().square().sum(1).sqrt())


class TestErrorMetrics:
    truth = np.array([3.0, -4.0, 0.0])

    def test_errors_are_relative_to_the_reference(self):
        metrics = error_metrics(self.truth + np.array([0.3, 0.0, -0.4]), self.truth, success=0.2)
        assert metrics["l2re"] == pytest.approx(0.1)
        assert metrics["log10_l2re"] == pytest.approx(-1.0)
        assert metrics["linf"] == pytest.approx(0.1)
        assert metrics["success"] == 1.0

    def test_success_is_below_the_threshold(self):
        assert error_metrics(1.5 * self.truth, self.truth, success=0.5)["success"] == 0.0
        assert error_metrics(1.4 * self.truth, self.truth, success=0.5)["success"] == 1.0

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308])
    def test_predictions_that_are_no_numbers_score_nan_and_no_success(self, bad):
        metrics = error_metrics(np.full(3, bad), self.truth, success=0.1)
        assert math.isnan(metrics["log10_l2re"])
        assert metrics["success"] == 0.0

    def test_an_exact_prediction_has_a_finite_score(self):
        assert error_metrics(self.truth, self.truth, success=0.1)["log10_l2re"] == -16.0

    def test_wrong_shapes_are_refused(self):
        with pytest.raises(ValueError, match="do not fit"):
            error_metrics(self.truth[:2], self.truth, success=0.1)

    def test_single_precision_predictions_are_compared_in_double(self):
        values = self.truth.astype(np.float32) * np.float32(1 + 1e-6)
        assert error_metrics(values, self.truth, success=0.1)["l2re"] == pytest.approx(1e-6, rel=0.2)


def test_functions_without_a_reference_are_left_out_of_the_score():
    work = workload("cavity")
    assert work.task.outputs == 3
    assert work.predict()["u"].shape == (101 * 101, 2)
    assert work.task.answers(work.context.tier).shape == (101 * 101, 2)


def test_maps_hold_null_where_a_prediction_is_no_number():
    work = workload("convection")
    with torch.no_grad():
        work.model.core.head.bias.fill_(math.nan)
    shown = work.exhibits()
    assert shown["prediction"][0][0] is None
    assert shown["solution"][1][0] is not None
    json.dumps(shown, allow_nan=False)


class TestDomain:
    domain = Domain(("x", "t"), (-1.0, 0.0), (1.0, 2.0), time=1)

    def test_uniform_points_fill_the_box(self):
        points = self.domain.uniform(4000, torch.Generator().manual_seed(0))
        low, high = points.min(0).values, points.max(0).values
        torch.testing.assert_close(low, torch.tensor([-1.0, 0.0]), atol=0.01, rtol=0)
        torch.testing.assert_close(high, torch.tensor([1.0, 2.0]), atol=0.01, rtol=0)
        torch.testing.assert_close(points.mean(0), torch.tensor([0.0, 1.0]), atol=0.05, rtol=0)

    def test_grids_hold_both_ends(self):
        grid = self.domain.grid(3, 2)
        assert grid.tolist() == [[-1, 0], [-1, 2], [0, 0], [0, 2], [1, 0], [1, 2]]
        assert self.domain.grid(1, 2).tolist() == [[0, 0], [0, 2]]

    def test_faces_hold_one_coordinate(self):
        assert self.domain.face(1, 0.0, 3).tolist() == [[-1, 0], [0, 0], [1, 0]]
        assert self.domain.face(0, 1.0, [2]).tolist() == [[1, 0], [1, 2]]

    def test_contains_is_the_closed_box(self):
        inside = self.domain.contains(np.array([[1.0, 2.0], [1.1, 1.0], [0.0, -0.1]]))
        assert inside.tolist() == [True, False, False]


@pytest.mark.parametrize(("name", "best"), [("poisson-5", -0.2), ("poisson-10", -0.2)])
def test_high_dimensional_tasks_are_learnt_in_the_smoke_tier(name, best):
    info = registry().task(name)
    made = Context(info, info.tiers["smoke"], "smoke", recipe_for(info, "reference"), 0, torch.device("cpu"))
    work = info.factory(info).workload(made)
    train(work, info.tiers["smoke"].budget)
    assert work.validate()["log10_l2re"] < best


def test_parameters_of_the_head_have_their_own_role():
    from suite.train.roles import named_parameters

    work = workload("convection")
    roles = {info.name: info.role for _, info in named_parameters(work.model)}
    assert roles["core.head.weight"] == "head"
    assert sum(role == "matrix" for role in roles.values()) == 3
    assert isinstance(work.model.core.head, nn.Linear)
