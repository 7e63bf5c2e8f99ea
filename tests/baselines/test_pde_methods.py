"""PDE methods form the losses and estimates that their definitions state."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suite
from suite.recipe import Choice, recipe_for
from suite.registry import registry
from suite.train.derivatives import AutogradField, autograd_fields, gradient
from suite.train.loop import History, Trainer
from suite.train.pinn import DoesNotApply, PdeMethod, PinnWorkload
from suite.train.roles import named_parameters
from suite.train.workload import Context

METHODS = [method.name for method in suite.methods("pde-method")]
TASKS = ["convection", "burgers", "helmholtz", "kovasznay", "poisson-10", "highfreq-poisson"]
SOLVERS = ("gp-hm-stm", "gp-hm-gm")
GRID = {"components": 8, "nodes": 40, "side": 10}  # of the solvers here
ADAM = {"optimizer": Choice("adam", {"lr": 1e-3}), "sampler": Choice("uniform")}


def workload(task: str, method: str = "pinn", *, seed: int = 0, hp=None, choices=None, **sizes) -> PinnWorkload:
    info = registry().task(task)
    small = GRID if method in SOLVERS else {}
    chosen = Choice(method, {**registry().method(method).defaults, **small, **(hp or {})})
    recipe = recipe_for(info, "reference").with_choice("pde-method", chosen)
    for slot, choice in {**ADAM, **(choices or {})}.items():
        recipe = recipe.with_choice(slot, choice)
    small = {**info.tiers["smoke"].sizes, "points": 30, "width": 16, **sizes}
    tier = dataclasses.replace(info.tiers["smoke"], sizes=small)
    context = Context(info, tier, "smoke", recipe, seed, torch.device("cpu"))
    return info.factory(info).workload(context)


def train(work: PinnWorkload, steps: int) -> list[float]:
    trainer = Trainer(work, work.context.recipe, steps)
    return [float(trainer.step()) for _ in range(steps)]


def mean_square(work: PinnWorkload) -> list[float]:
    """Unweighted mean squares of the residual and of each condition, by nested differentiation."""
    x = work.points.clone().requires_grad_()
    residual = work.problem.residual(autograd_fields(work.model, x), x)
    conditions = work.problem.condition_residuals(work.model)
    return [float(r.detach().flatten(1).square().sum(1).mean()) for r in (residual, *(c[:, None] for c in conditions))]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", METHODS)
def test_method_trains_on_the_task_or_says_why_it_does_not_apply(name, task):
    try:
        work = workload(task, name)
    except DoesNotApply:
        with pytest.raises(DoesNotApply, match=task):
            workload(task, name)
        return
    losses = train(work, 6)
    assert all(map(math.isfinite, losses))
    assert math.isfinite(work.validate()["log10_l2re"])
    assert work.method.pointwise.shape == (30,)
    assert not work.method.pointwise.requires_grad


@pytest.mark.parametrize("name", METHODS)
def test_method_applies_to_at_least_one_task(name):
    made = 0
    for task in TASKS:
        try:
            workload(task, name)
            made += 1
        except DoesNotApply:
            continue
    assert made


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(SOLVERS)))
@pytest.mark.parametrize("task", ["burgers", "poisson-10"])
def test_the_full_equation_is_fitted_better_after_training(name, task):
    try:
        work = workload(task, name, points=50)
    except DoesNotApply:
        return
    work.points = work.task.domain.uniform(200, torch.Generator().manual_seed(0))
    work.method.pointwise = torch.zeros(200)
    start = sum(mean_square(work))
    train(work, 60)
    work.points = work.task.domain.uniform(200, torch.Generator().manual_seed(0))
    assert sum(mean_square(work)) < start


def test_pinn_is_the_sum_of_weighted_mean_squares():
    work = workload("helmholtz")
    work.next()
    residual, boundary = mean_square(work)
    assert work.problem.conditions[0].weight == 10.0
    assert float(work.loss().detach()) == pytest.approx(residual + 10 * boundary, rel=1e-4)


def test_sampler_weights_multiply_the_residual_before_it_is_squared():
    work = workload("convection")
    work.next()
    plain = [float(t.detach()) for t in work.method.terms(work.model, work.points)]
    doubled = [float(t.detach()) for t in work.method.terms(work.model, work.points, torch.full((30,), 2.0))]
    assert doubled[0] == pytest.approx(4 * plain[0], rel=1e-5)
    assert doubled[1:] == plain[1:]


class TestLaplacianEstimators:
    @pytest.mark.parametrize("name", ["stde-sparse", "stde-dense", "hte", "sdgd"])
    def test_estimate_is_unbiased(self, name):
        hp = {"dimensions": 3} if name == "sdgd" else {"directions": 3}
        work = workload("poisson-10", name, hp=hp)
        x = work.points = work.task.domain.uniform(4, torch.Generator().manual_seed(0))
        truth = autograd_fields(work.model, x)[0].laplacian().detach()
        draws = torch.stack([work.method.fields(work.model, x)[0].laplacian().detach() for _ in range(400)])
        error = (draws.mean(0) - truth).abs()
        spread = draws.std(0) / math.sqrt(len(draws))
        assert float(spread.max()) > 0
        assert bool((error < 5 * spread).all())

    @pytest.mark.parametrize("name", ["stde-sparse", "sdgd"])
    def test_all_coordinates_give_the_exact_laplacian(self, name):
        hp = {"dimensions": 64} if name == "sdgd" else {"directions": 64}
        work = workload("poisson-10", name, hp=hp)
        x = work.task.domain.uniform(6, torch.Generator().manual_seed(0))
        truth = autograd_fields(work.model, x)[0].laplacian()
        torch.testing.assert_close(work.method.fields(work.model, x)[0].laplacian(), truth, rtol=1e-4, atol=1e-5)

    def test_full_laplacian_is_exact(self):
        exact, taylor = workload("poisson-10", "full-laplacian"), workload("poisson-10", "pinn")
        for work in (exact, taylor):
            work.next()
        assert float(exact.loss()) == pytest.approx(float(taylor.loss()), rel=1e-4)

    @pytest.mark.parametrize("name", ["stde-sparse", "stde-dense", "hte"])
    def test_two_draws_make_the_squared_residual_unbiased(self, name):
        unbiased = workload("poisson-10", name, hp={"directions": 1, "unbiased": True})
        biased = workload("poisson-10", name, hp={"directions": 1})
        exact = workload("poisson-10")
        x = exact.task.domain.uniform(200, torch.Generator().manual_seed(0))
        truth = float(exact.method.terms(exact.model, x)[0])
        means = {}
        for kind, work in (("unbiased", unbiased), ("biased", biased)):
            draws = torch.stack([work.method.terms(work.model, x)[0].detach() for _ in range(100)])
            means[kind] = (float(draws.mean()), float(draws.std() / math.sqrt(len(draws))))
        assert abs(means["unbiased"][0] - truth) < 5 * means["unbiased"][1]
        assert means["biased"][0] - truth > 5 * means["biased"][1]

    def test_sparse_directions_are_distinct_coordinates(self):
        work = workload("poisson-10", "stde-sparse", hp={"directions": 4})
        directions, factor = work.method.draw(torch.zeros(7, 10))
        assert directions.shape == (4, 7, 10)
        assert factor == 2.5
        assert torch.equal(directions.sum(2), torch.ones(4, 7))
        assert float(directions.sum(0).max()) == 1.0

    def test_dense_directions_are_signs(self):
        work = workload("poisson-10", "stde-dense", hp={"directions": 4})
        directions, factor = work.method.draw(torch.zeros(7, 10))
        assert torch.equal(directions.abs(), torch.ones(4, 7, 10))
        assert factor == 0.25

    def test_networks_without_jets_are_estimated_by_products(self):
        work = workload("poisson-10", "stde-dense", choices={"activation": Choice("groupsort")})
        work.problem.taylor = False
        work.next()
        assert math.isfinite(float(work.loss()))

    def test_equations_without_a_laplacian_are_refused(self):
        with pytest.raises(DoesNotApply, match="Laplacian"):
            workload("convection", "stde-sparse")


class TestCausalWeights:
    def test_weights_fall_with_the_losses_of_strictly_earlier_slices(self):
        work = workload("convection", "causal-weights", hp={"slices": 4})
        points = torch.tensor([[0.0, t] for t in (0.1, 0.2, 0.3, 0.6, 0.8)])
        work.method.stage.fill_(2)  # eps = 1
        residual = torch.tensor([1.0, 3.0, 1.0, 2.0, 0.5])[:, None]
        work.method.residual = lambda network, x: residual
        slices = [5.0, 1.0, 4.0, 0.25]
        earlier = [0.0, 5.0, 6.0, 10.0]
        expected = sum(math.exp(-e) * s for e, s in zip(earlier, slices, strict=True)) / 4
        assert float(work.method.terms(work.model, points)[0]) == pytest.approx(expected, rel=1e-5)

    def test_epsilon_moves_on_once_every_weight_is_near_one(self):
        work = workload("convection", "causal-weights")
        method = work.method
        points = work.task.domain.uniform(50, torch.Generator().manual_seed(0))
        for level, expected in ((10.0, 0), (1e-4, 1), (1e-4, 2), (1e-4, 3), (1e-6, 4), (1e-6, 4)):
            method.residual = lambda network, x, level=level: torch.full((50, 1), level).sqrt()
            method.terms(work.model, points)
            method.set_progress(0.5)
            assert int(method.stage) == expected

    def test_without_earlier_losses_it_is_the_mean_over_slices(self):
        work = workload("convection", "causal-weights", hp={"slices": 8})
        points = torch.stack([torch.zeros(8), (torch.arange(8) + 0.5) / 8], dim=1)
        work.method.residual = lambda network, x: torch.full((8, 1), 1e-4)
        assert float(work.method.terms(work.model, points)[0]) == pytest.approx(1e-8, rel=1e-4)


class TestCurriculum:
    def test_coefficient_grows_linearly_and_stays_at_its_target(self):
        work = workload("convection", "curriculum-pde", hp={"ramp": 0.5})
        for fraction, beta in ((0.0, 0.0), (0.25, 5.0), (0.5, 10.0), (0.9, 10.0)):
            work.method.set_progress(fraction)
            assert work.problem.task.beta == pytest.approx(beta)
        assert work.task.beta == 10.0

    def test_the_error_is_scored_against_the_full_equation(self):
        work = workload("convection", "curriculum-pde")
        work.method.set_progress(0.1)
        points, truth = work.validation
        assert truth == pytest.approx(workload("convection").task.solution(points))

    def test_steady_equations_are_refused(self):
        with pytest.raises(DoesNotApply, match="coefficient"):
            workload("helmholtz", "curriculum-pde")


class TestBalance:
    def gradients(self, work: PinnWorkload) -> list[Tensor]:
        parameters = [p for p in work.model.parameters() if p.requires_grad]
        found = []
        for term in work.method.terms(work.model, work.points):
            parts = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            found.append(torch.cat([g.flatten() for g in parts if g is not None]))
        return found

    def first_loss(self, name: str, task: str = "helmholtz") -> tuple[PinnWorkload, float, list[Tensor], list[float]]:
        work = workload(task, name, hp={"decay": 0.0, "period": 3})
        work.next()
        gradients = self.gradients(work)
        terms = [float(t) for t in work.method.terms(work.model, work.points)]
        work.method.set_progress(0.0)
        return work, float(work.loss()), gradients, terms

    def test_learning_rate_annealing_compares_largest_and_mean_gradients(self):
        work, loss, (residual, boundary), terms = self.first_loss("lra")
        weight = float(residual.abs().max() / (boundary.abs().sum() / self.size(work)))
        assert work.method.balance.tolist() == pytest.approx([1.0, weight], rel=1e-4)
        assert loss == pytest.approx(terms[0] + weight * terms[1], rel=1e-4)

    def test_gradient_norm_weights_equalise_the_terms(self):
        work, _, gradients, _ = self.first_loss("grad-norm-weights", "burgers")
        norms = [float(g.norm()) for g in gradients]
        assert work.method.balance.tolist() == pytest.approx([sum(norms) / n for n in norms], rel=1e-4)

    def test_tangent_kernel_weights_follow_the_mean_diagonal(self):
        work = workload("burgers", "ntk-weights")
        work.next()
        parameters = [p for p in work.model.parameters() if p.requires_grad]
        residual = work.method.residual(work.model, work.points)
        exact = 0.0
        for row in residual[:, 0]:
            found = torch.autograd.grad(row, parameters, retain_graph=True, allow_unused=True)
            exact += sum(float(g.square().sum()) for g in found if g is not None) / len(residual)
        draws = torch.stack([work.method.mean_diagonal(residual, parameters) for _ in range(400)])
        spread = float(draws.std()) / math.sqrt(len(draws))
        assert abs(float(draws.mean()) - exact) < 5 * spread
        weights = work.method.from_diagonals(torch.tensor([1.0, 3.0]))
        assert weights.tolist() == pytest.approx([4.0, 4 / 3])

    def test_refreshes_happen_once_a_period_and_are_charged(self):
        work = workload("burgers", "lra", hp={"period": 4})
        train(work, 9)
        assert work.passes == 9 - work.problem.charged or work.spent == work.passes + work.problem.charged
        assert work.problem.charged % 3 == 0
        assert work.problem.charged > 0

    def test_weights_stay_within_a_step(self):
        work = workload("burgers", "lra", hp={"period": 1})
        work.next()
        work.method.set_progress(0.0)
        work.loss()
        before = work.method.balance.clone()
        work.loss()
        assert torch.equal(work.method.balance, before)

    @staticmethod
    def size(work: PinnWorkload) -> int:
        return sum(p.numel() for p in work.model.parameters() if p.requires_grad)


def test_gpinn_adds_the_mean_squared_gradient_of_the_residual():
    work = workload("burgers", "gpinn", hp={"weight": 0.3})
    work.next()
    x = work.points.clone().requires_grad_()
    residual = work.problem.residual(autograd_fields(work.model, x), x)
    slope = gradient(residual[:, 0], x)
    terms = work.method.terms(work.model, work.points)
    assert float(terms[0]) == pytest.approx(float(residual.square().mean()), rel=1e-5)
    assert float(terms[1]) == pytest.approx(0.3 * float(slope.square().sum(1).mean()), rel=1e-5)


def test_gpinn_differentiates_the_source_term_too():
    work = workload("helmholtz", "gpinn", hp={"weight": 1.0})
    for p in work.model.parameters():
        p.data.zero_()
    x = torch.tensor([[0.3, 0.1]])
    expected = (
        gradient(work.task.residual(y := x.clone().requires_grad_(), *autograd_fields(work.model, y)), y).square().sum()
    )
    assert float(expected) > 1.0
    assert float(work.method.terms(work.model, x)[1]) == pytest.approx(float(expected), rel=1e-5)


class TestPseudoHuber:
    def test_penalty_is_half_a_square_then_linear(self):
        method = workload("convection", "pseudo-huber", hp={"c": 0.1}).method
        r = torch.tensor([1e-3, 0.1, 50.0])
        expected = [0.1 * (math.sqrt(v * v + 0.01) - 0.1) for v in (1e-3, 0.1, 50.0)]
        torch.testing.assert_close(method.penalty(r), torch.tensor(expected), rtol=1e-2, atol=1e-9)
        assert float(method.penalty(torch.tensor(1e3))) == pytest.approx(100.0, rel=1e-3)

    def test_schedule_falls_exponentially_from_one(self):
        method = workload("convection", "pseudo-huber-sched", hp={"c": 0.01}).method
        widths = []
        for fraction in (0.0, 0.5, 1.0):
            method.set_progress(fraction)
            widths.append(method.c)
        assert widths == pytest.approx([1.0, 0.1, 0.01])


class TestHardConditions:
    @pytest.mark.parametrize("task", ["convection", "reaction-3", "wave", "burgers", "allen-cahn", "helmholtz"])
    def test_built_in_conditions_hold_for_any_network(self, task):
        soft, hard = workload(task), workload(task, "hard-bc")
        named = set(hard.task.hard_names)
        assert {c.name for c in hard.problem.conditions} == {c.name for c in soft.problem.conditions} - named
        hard.problem.require_conditions([c for c in soft.problem.conditions if c.name in named])
        for residual in hard.problem.condition_residuals(hard.model):
            assert float(residual.detach().abs().max()) < 1e-5

    def test_a_task_with_every_condition_built_in_has_one_term(self):
        work = workload("burgers", "hard-bc")
        work.next()
        assert len(work.method.terms(work.model, work.points)) == 1


class TestFourierFeatures:
    def test_network_sees_cosines_and_sines_of_frozen_frequencies(self):
        work = workload("convection", "fourier-features", hp={"sigma": 2.0, "frequencies": 16})
        x = work.task.domain.uniform(5, torch.Generator().manual_seed(0))
        phase = PdeMethod.embed(work.method, x) @ work.method.matrix.T
        torch.testing.assert_close(work.method.embed(x), torch.cat([phase.cos(), phase.sin()], 1))
        before = work.method.matrix.clone()
        train(work, 3)
        assert torch.equal(work.method.matrix, before)
        assert work.model.core.layers[0].in_features == 32

    def test_frequencies_have_the_stated_spread_and_follow_the_seed(self):
        matrices = [
            workload("convection", "fourier-features", hp={"sigma": 3.0, "frequencies": 128}, seed=s).method.matrix
            for s in (0, 0, 1)
        ]
        assert float(matrices[0].std() / (2 * math.pi)) == pytest.approx(3.0, rel=0.15)
        assert torch.equal(matrices[0], matrices[1])
        assert not torch.equal(matrices[0], matrices[2])

    def test_taylor_mode_passes_through_the_embedding(self):
        assert workload("helmholtz", "fourier-features").problem.taylor


def test_adaptive_samplers_are_charged_for_their_candidates():
    work = workload(
        "burgers", choices={"sampler": Choice("rad", {**registry().method("rad").defaults, "period": 2, "dense": 5})}
    )
    train(work, 10)
    assert work.problem.charged % 5 == 0
    assert work.problem.charged > 0
    assert work.spent == work.passes + work.problem.charged


def test_sampler_is_shown_the_last_evaluation_of_the_step():
    work = workload("burgers", choices={"sampler": Choice("r3")})
    seen = []
    work.sampler.update = lambda points, residual: seen.append((points, residual))
    work.next()
    work.loss()
    expected = (work.points, work.method.pointwise)
    work.next()
    assert seen[0][0] is expected[0]
    assert seen[0][1] is expected[1]


def test_method_parameters_and_buffers_follow_the_model():
    work = workload("convection", "lra")
    assert any(name.endswith("balance") for name, _ in work.model.named_buffers())
    assert isinstance(work.method, nn.Module)


class TestDeepRitz:
    @pytest.mark.parametrize("task", ["helmholtz", "poisson-5", "highfreq-poisson"])
    def test_the_energy_is_stationary_at_the_reference(self, task):
        """A step s along a function that vanishes on the boundary adds a positive multiple of s^2 to the energy."""
        domain = (work := workload(task)).task.domain
        points = torch.quasirandom.SobolEngine(domain.dims, scramble=True, seed=0).draw(8192).double()
        low, high = torch.tensor(domain.lows), torch.tensor(domain.highs)
        x = (low + points * (high - low)).requires_grad_()
        solution = {
            "helmholtz": lambda y: torch.sin(math.pi * y[:, 0]) * torch.sin(4 * math.pi * y[:, 1]),
            "poisson-5": lambda y: torch.sin(math.pi / 2 * y).mean(1),
            "highfreq-poisson": lambda y: torch.sin(100 * y[:, 0]),
        }[task]
        wave = 100.0 if task == "highfreq-poisson" else math.pi

        def energy(step: float) -> float:
            (u,) = autograd_fields(lambda y: (solution(y) + step * torch.sin(wave * y).prod(1))[:, None], x)
            return float(work.task.energy(x, u).detach().mean())

        first = (energy(0.1) - energy(-0.1)) / 0.2
        second = (energy(0.1) + energy(-0.1) - 2 * energy(0.0)) / 0.01
        assert second > 0.1
        assert abs(first) < 0.02 * second

    def test_loss_is_the_energy_plus_the_penalty(self):
        work = workload("helmholtz", "deep-ritz", hp={"penalty_weight": 3.0})
        work.next()
        (u,) = autograd_fields(work.model, work.points)
        density = work.task.energy(work.points, u)
        boundary = work.problem.condition_residuals(work.model)[0].square().mean()
        expected = 4 * float(density.detach().mean()) + 3 * 10 * float(boundary.detach())
        assert float(work.loss().detach()) == pytest.approx(expected, rel=1e-4)

    def test_equations_without_an_energy_are_refused(self):
        with pytest.raises(DoesNotApply, match="energy"):
            workload("burgers", "deep-ritz")


class TestRandomWeightFactorization:
    def test_the_start_is_unchanged_and_every_matrix_is_factorised(self):
        plain, factorised = workload("convection"), workload("convection", "rwf")
        x = plain.task.domain.uniform(9, torch.Generator().manual_seed(0))
        torch.testing.assert_close(factorised.model(x), plain.model(x), rtol=1e-4, atol=1e-6)
        scales = [p for name, p in factorised.model.named_parameters() if name.endswith("log_scale")]
        assert len(scales) == 4
        assert float(torch.cat(scales).mean()) == pytest.approx(1.0, abs=0.1)

    def test_directions_and_scales_are_both_trained(self):
        work = workload("convection", "rwf")
        before = {name: p.detach().clone() for name, p in work.model.named_parameters()}
        train(work, 5)
        assert all(not torch.equal(before[name], p) for name, p in work.model.named_parameters())

    def test_roles_stay_with_the_matrices(self):
        work = workload("convection", "rwf")
        roles = {info.name: info.role for _, info in named_parameters(work.model)}
        assert roles["core.head.parametrizations.weight.original"] == "head"
        assert roles["core.layers.0.parametrizations.weight.original"] == "matrix"
        assert {role for name, role in roles.items() if name.endswith("log_scale")} == {"other"}

    def test_taylor_mode_passes_through_the_factors(self):
        assert workload("helmholtz", "rwf").problem.taylor


class TestFourierPinn:
    def test_basis_is_orthonormal(self):
        method = workload("highfreq-poisson", "fourier-pinn", hp={"modes": 20}).method
        x = torch.linspace(0, 2 * math.pi, 2001)[:-1, None]
        basis = method.basis(x).double()
        gram = basis.T @ basis * (2 * math.pi / 2000)
        torch.testing.assert_close(gram, torch.eye(41, dtype=torch.float64), rtol=0, atol=1e-4)

    def test_preconditioner_falls_with_the_square_of_the_frequency(self):
        method = workload("highfreq-poisson", "fourier-pinn-precond", hp={"modes": 64, "gamma": 5.0}).method
        constant, cosines, sines = method.conditioner.split([1, 64, 64])
        expected = method.conditioner[1] / torch.arange(1, 65) ** 2
        torch.testing.assert_close(cosines, expected, rtol=1e-2, atol=0)
        torch.testing.assert_close(sines, expected, rtol=1e-2, atol=0)
        assert float(constant) == pytest.approx(5 * float(cosines[0]))

    @staticmethod
    def condition_number(name: str, **hp) -> float:
        """Of the normal matrix of equation and conditions, in the coefficients that are trained."""
        work = workload("highfreq-poisson", name, hp=hp)
        x = torch.linspace(0, 2 * math.pi, 4 * hp["modes"] + 1)[:-1, None].double().requires_grad_()
        method = work.method.double()
        columns = method.embed(x).unbind(1)
        source = torch.sin(100 * x[:, 0])
        applied = torch.stack([work.task.residual(x, AutogradField(x, c)) - source for c in columns], 1).detach()
        (stated,) = work.problem.conditions
        edge = method.embed(stated.points.double())
        weight = stated.weight
        if name == "fourier-pinn":
            weight /= 100.0**4  # undo the equation's scaling, which sets off the boundary by as much
        eigenvalues = torch.linalg.eigvalsh(applied.T @ applied / len(x) + weight * edge.T @ edge / len(edge))
        return float(eigenvalues[-1] / eigenvalues[0])

    @pytest.mark.parametrize(("gamma", "expected"), [(1.0, 15.3), (10.0, 1.34), (100.0, 1.03)])
    def test_preconditioning_makes_the_condition_number_independent_of_the_modes(self, gamma, expected):
        numbers = [self.condition_number("fourier-pinn-precond", modes=m, gamma=gamma) for m in (5, 20)]
        assert numbers == pytest.approx([expected] * 2, rel=0.03)

    def test_without_it_the_condition_number_grows_with_the_fourth_power_of_the_modes(self):
        few, many = (self.condition_number("fourier-pinn", modes=m) for m in (5, 20))
        assert many / few == pytest.approx(4**4, rel=0.2)

    def test_preconditioned_gradient_descent_solves_the_equation(self):
        descent = {"optimizer": Choice("sgd", {"lr": 0.3, "momentum": 0.0}), "schedule": Choice("constant")}
        work = workload("highfreq-poisson", "fourier-pinn-precond", hp={"modes": 104}, points=2000, choices=descent)
        train(work, 50)
        assert work.validate()["l2re"] < 1e-3

    def test_several_dimensions_are_refused(self):
        with pytest.raises(DoesNotApply, match="one dimension"):
            workload("burgers", "fourier-pinn")


class TestGaussianProcessSolver:
    """Against the joint density written out in numpy, dense over the whole grid."""

    HP: ClassVar[dict[str, float]] = {"components": 3, "frequency": 2.0, "nodes": 9, "side": 5, "penalty": 7.0}

    def made(self, task: str, name: str) -> PinnWorkload:
        work = workload(task, name, hp=self.HP)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in work.model.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        return work

    @staticmethod
    def kernel(name: str, axis: nn.Module, lag: np.ndarray) -> np.ndarray:
        weights, scales, waves = (
            p.detach().exp().numpy() if p is not axis.kernel.frequency else p.detach().numpy()
            for p in (axis.kernel.log_weight, axis.kernel.log_scale, axis.kernel.frequency)
        )
        total = np.zeros_like(lag)
        for a, s, f in zip(weights, scales, waves, strict=True):
            r = math.sqrt(5) * s * np.abs(lag)
            shape = (1 + r + r**2 / 3) * np.exp(-r) if name == "gp-hm-stm" else np.exp(-s * lag**2)
            total += a * shape * np.cos(2 * math.pi * f * lag)
        return total

    def dense(self, name: str, process: nn.Module, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Covariances (n, m) of the function's values at x (n, d) and y (m, d)."""
        parts = [self.kernel(name, a, x[:, None, i] - y[None, :, i]) for i, a in enumerate(process.axes)]
        return np.prod(parts, axis=0)

    def gram(self, name: str, process: nn.Module) -> np.ndarray:
        """Covariances of the grid's values, jitter on each axis' matrix as in the definition."""
        parts = [
            self.kernel(name, a, np.subtract.outer(a.nodes.numpy(), a.nodes.numpy())) + 1e-6 * np.eye(len(a.nodes))
            for a in process.axes
        ]
        return functools.reduce(np.kron, parts)

    @pytest.mark.parametrize("name", ["gp-hm-stm", "gp-hm-gm"])
    @pytest.mark.parametrize("task", ["highfreq-poisson", "helmholtz"])
    def test_loss_is_the_negative_log_joint_density(self, task, name):
        work = self.made(task, name)
        process, grid = work.model.core, work.method.grid.numpy()
        u, gram = process.values.detach().numpy().flatten(), self.gram(name, process)

        h = 1e-3
        second = np.zeros(len(grid))
        for axis, part in enumerate(process.axes):  # K''K⁻¹ along one axis, the kernel differentiated numerically
            nodes = part.nodes.numpy()
            lag = np.subtract.outer(nodes, nodes)
            far, near, here = ((k, self.kernel(name, part, lag + k * h)) for k in (2, 1, 0))
            back, behind = (self.kernel(name, part, lag - k * h) for k in (1, 2))
            bent = (-far[1] + 16 * near[1] - 30 * here[1] + 16 * back - behind) / (12 * h * h)
            along = bent @ np.linalg.inv(here[1] + 1e-6 * np.eye(len(nodes)))
            eye = [np.eye(len(a.nodes)) for a in process.axes]
            eye[axis] = along
            second += functools.reduce(np.kron, eye) @ u
        if task == "helmholtz":
            q = (1 - 17 * math.pi**2) * np.sin(math.pi * grid[:, 0]) * np.sin(4 * math.pi * grid[:, 1])
            residual, weight = second + u - q, 10.0
        else:
            residual, weight = second / 1e4 + np.sin(100 * grid[:, 0]), 1.0
        edge = work.problem.conditions[0].points.double().numpy()
        at = self.dense(name, process, edge, grid) @ np.linalg.solve(gram, u)
        log_tau, log_v = process.log_condition_precision.item(), process.log_equation_precision.item()
        prior = -0.5 * np.linalg.slogdet(gram)[1] - 0.5 * u @ np.linalg.solve(gram, u)
        conditions = 0.5 * len(edge) * log_tau - 0.5 * math.exp(log_tau) * weight * (at**2).sum()
        equation = 0.5 * len(grid) * log_v - 0.5 * math.exp(log_v) * (residual**2).sum()
        work.next()
        assert work.loss().item() == pytest.approx(-(prior + 7.0 * conditions + equation), rel=1e-4)

    @pytest.mark.parametrize("name", ["gp-hm-stm", "gp-hm-gm"])
    def test_values_off_the_grid_are_the_posterior_mean(self, name):
        work = self.made("burgers", name)
        process, grid = work.model.core, work.method.grid.numpy()
        x = work.task.domain.uniform(20, torch.Generator().manual_seed(1))
        weights = np.linalg.solve(self.gram(name, process), process.values.detach().numpy().flatten())
        wanted = self.dense(name, process, x.double().numpy(), grid) @ weights
        with torch.no_grad():
            np.testing.assert_allclose(work.model(x)[:, 0].numpy(), wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(work.model(x.requires_grad_())[:, 0].detach().numpy(), wanted, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", ["gp-hm-stm", "gp-hm-gm"])
    @pytest.mark.parametrize("order", [1, 2, 3, 4])
    def test_kernel_derivatives_agree_with_differences(self, name, order):
        kernel = self.made("burgers", name).model.core.axes[0].kernel
        lag, h = torch.tensor([-0.7, -0.2, 0.3, 0.9], dtype=torch.float64), 1e-4
        with torch.no_grad():
            slope = (kernel(lag + h, order - 1) - kernel(lag - h, order - 1)) / (2 * h)
            torch.testing.assert_close(kernel(lag, order), slope, rtol=1e-5, atol=1e-5)

    def test_gradients_are_derivatives_of_the_loss(self):
        work = self.made("burgers", "gp-hm-stm")
        work.next()
        work.loss().backward()
        for parameter in work.model.parameters():
            flat, place, values = parameter.data.view(-1), parameter.numel() // 2, []
            for step in (1e-6, -2e-6):
                flat[place] += step
                with torch.no_grad():
                    values.append(float(work.loss()))
            flat[place] += 1e-6
            assert float(parameter.grad.view(-1)[place]) == pytest.approx(
                (values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-4
            )

    def test_derivatives_on_the_grid_are_those_of_the_mean_at_its_nodes(self):
        from baselines.pde_method.gp_hm import ProcessField, Solved

        work = self.made("burgers", "gp-hm-stm")
        with torch.no_grad():
            solved = Solved(work.model.core)
            on_grid, at_nodes = ProcessField(solved), ProcessField(solved, work.method.grid)
            for axes in ((0,), (1,), (0, 0), (0, 1), (0, 0, 0)):
                torch.testing.assert_close(on_grid.d(*axes), at_nodes.d(*axes), rtol=1e-3, atol=1e-3)

    def test_the_sampler_is_shown_the_residual_of_the_nearest_node(self):
        work = self.made("burgers", "gp-hm-stm")
        points = torch.tensor([[-1.0, 0.0], [0.3, 0.9], [1.0, 1.0]])
        index = work.method.nearest(points)
        torch.testing.assert_close(work.method.grid[index].float(), torch.tensor([[-1.0, 0.0], [0.5, 1.0], [1.0, 1.0]]))

    @pytest.mark.slow
    def test_values_that_minimise_the_loss_at_high_precision_solve_the_equation(self):
        """A hundred waves from 400 nodes, with the kernel as it starts."""
        work = workload("highfreq-poisson", "gp-hm-stm", hp={"components": 30, "frequency": 20.0, "nodes": 400})
        process = work.model.core
        with torch.no_grad():
            process.log_condition_precision.fill_(8.0)
            process.log_equation_precision.fill_(8.0)
        work.next()
        descent = torch.optim.LBFGS(
            [process.values], max_iter=80, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-14
        )

        def closure() -> Tensor:
            descent.zero_grad()
            loss = work.loss()
            loss.backward()
            return loss.detach()

        descent.step(closure)
        assert work.validate()["l2re"] < 0.01

    @pytest.mark.parametrize("task", ["poisson-5", "kovasznay"])
    def test_problems_without_a_grid_are_refused(self, task):
        with pytest.raises(DoesNotApply, match="grid of one function"):
            workload(task, "gp-hm-stm")

    def test_a_kernel_matrix_that_is_not_positive_definite_gives_a_loss_that_is_no_number(self):
        work = self.made("burgers", "gp-hm-stm")
        with torch.no_grad():
            work.model.core.axes[0].kernel.log_weight.fill_(math.nan)
        work.next()
        assert math.isnan(float(work.loss().detach()))


RESUMED = [("pinn", name) for name in (m.name for m in suite.methods("sampler"))] + [
    (name, "uniform")
    for name in ("lra", "ntk-weights", "causal-weights", "curriculum-pde", "pseudo-huber-sched", "rwf", "gp-hm-stm")
]


@pytest.mark.parametrize(("method", "sampler"), RESUMED)
def test_a_run_resumed_from_its_checkpoint_goes_on_as_if_never_stopped(method, sampler, tmp_path):
    hp = {"period": 3} if method in ("lra", "ntk-weights") else None
    points = {**registry().method(sampler).defaults}
    if "period" in points:
        points["period"] = 3
    choices = {"sampler": Choice(sampler, points)}

    def steps(trainer: Trainer, count: int) -> list[float]:
        return [float(trainer.step()) for _ in range(count)]

    whole = workload("burgers", method, hp=hp, choices=choices)
    unbroken = Trainer(whole, whole.context.recipe, 40)
    expected = steps(unbroken, 12)[7:]

    first = workload("burgers", method, hp=hp, choices=choices)
    stopped = Trainer(first, first.context.recipe, 40)
    steps(stopped, 7)
    torch.save(stopped.state_dict(History()), tmp_path / "state")
    second = workload("burgers", method, hp=hp, choices=choices)
    resumed = Trainer(second, second.context.recipe, 40)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert steps(resumed, 5) == expected
    assert second.spent == whole.spent


class TestArctanMAE:
    def test_absolute_residuals_are_weighted_by_their_time_slice(self):
        work = workload("convection", "arctan-mae", hp={"slices": 4})
        points = torch.tensor([[0.0, t] for t in (0.0, 0.1, 0.3, 0.6, 1.0)])
        residual = torch.tensor([1.0, -3.0, 1.0, -2.0, 0.5])[:, None]
        work.method.residual = lambda network, x: residual
        rho = [1 + math.pi / 4 - math.atan(i) for i in (1, 1, 2, 3, 4)]
        expected = sum(r * abs(v) for r, v in zip(rho, (1.0, 3.0, 1.0, 2.0, 0.5), strict=True)) / 5
        assert float(work.method.terms(work.model, points)[0]) == pytest.approx(expected, rel=1e-5)
        doubled = work.method.terms(work.model, points, torch.full((5,), 2.0))[0]
        assert float(doubled) == pytest.approx(2 * expected, rel=1e-5)

    def test_weights_are_the_printed_ones(self):
        work = workload("convection", "arctan-mae", hp={"slices": 3})
        found = work.method.horizon_weights(torch.tensor([[0.0, t] for t in (0.1, 0.5, 0.9)]))
        assert [round(float(r), 3) for r in found] == [1.0, 0.678, 0.536]

    def test_conditions_are_mean_absolute_errors(self):
        work = workload("convection", "arctan-mae")
        work.next()
        found = work.method.terms(work.model, work.points)[1:]
        residuals = work.problem.condition_residuals(work.model)
        for term, stated, part in zip(found, work.problem.conditions, residuals, strict=True):
            wanted = stated.weight * part.detach().abs().reshape(len(part), -1).sum(1).mean()
            torch.testing.assert_close(term.detach(), wanted)


class TestNegativeSobolev:
    def test_a_single_mode_counts_by_its_symbol(self):
        work = workload("convection", "neg-sobolev", hp={"alpha": 0.3, "grid": 16}, points=50)
        grids = work.method.grids(work.task.domain.uniform(50, torch.Generator().manual_seed(0)))
        assert grids.shape == (3, 16, 2)
        length = work.task.domain.highs[0] - work.task.domain.lows[0]
        for mode in (0, 1, 5):
            wave = torch.cos(2 * math.pi * mode * grids[:, :, 0] / length + 0.4)[:, :, None]
            wanted = wave.square().mean() / (0.3 + (2 * math.pi * mode / length) ** 2)
            found = work.method.squared_norms(wave)
            torch.testing.assert_close(found, wanted.expand(3), rtol=1e-4, atol=1e-6)

    def test_with_one_factor_for_all_modes_it_is_the_mean_square(self):
        work = workload("convection", "neg-sobolev", hp={"alpha": 1e6})
        residual = torch.randn(4, 30, 2, generator=torch.Generator().manual_seed(0))
        found = 1e6 * work.method.squared_norms(residual)
        torch.testing.assert_close(found, residual.square().sum(2).mean(1), rtol=1e-3, atol=0)

    def test_grids_are_equidistant_through_the_samplers_points_and_move_with_every_step(self):
        work = workload("convection", "neg-sobolev", hp={"grid": 8})
        points = work.task.domain.uniform(30, torch.Generator().manual_seed(0))
        work.method.set_progress(0.1)
        first, again = work.method.grids(points), work.method.grids(points)
        assert torch.equal(first, again)  # a line search sees one loss
        work.method.set_progress(0.2)
        second = work.method.grids(points)
        assert not torch.equal(first, second)
        for grids in (first, second):
            assert set(grids[:, 0, 1].tolist()) <= set(points[:, 1].tolist())
            torch.testing.assert_close(grids[:, :, 1], grids[:, :1, 1].expand(3, 8))
            gaps = grids[:, 1:, 0] - grids[:, :-1, 0]
            torch.testing.assert_close(gaps, torch.full_like(gaps, 2 * math.pi / 8))
            assert bool(work.task.domain.contains(grids.flatten(0, 1).double().numpy()).all())

    def test_a_sampler_is_shown_the_size_at_the_nearest_grid(self):
        work = workload("convection", "neg-sobolev", hp={"grid": 10})
        work.method.residual = lambda network, x: x[:, 1:]
        points = torch.tensor([[0.0, 0.2], [1.0, 0.25]] + [[0.0, 0.7]] * 8 + [[0.0, 0.8]] * 10)
        work.method.terms(work.model, points)
        torch.testing.assert_close(work.method.pointwise, torch.tensor([0.2, 0.2] + [0.8] * 18))

    def test_equations_without_a_periodic_coordinate_are_refused(self):
        with pytest.raises(DoesNotApply, match="periodic"):
            workload("burgers", "neg-sobolev")
