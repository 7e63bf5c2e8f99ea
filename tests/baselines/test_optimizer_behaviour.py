"""What the papers say of single optimizers, on problems small enough to know the answer."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import suite
from suite.train.step import hessian_vector

DOUBLE = torch.float64


def make(name: str, *tensors: Tensor, roles: tuple[str, ...] = (), **hp: Any) -> torch.optim.Optimizer:
    """The registered optimizer on tensors, each in a group of the given role."""
    groups = [{"params": [p], "role": r} for p, r in zip(tensors, roles, strict=True)] if roles else list(tensors)
    return suite.method(name).make(groups, **hp)


def parameter(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=DOUBLE).clone().requires_grad_()


def train(optimizer: torch.optim.Optimizer, loss: Any, steps: int) -> None:
    if hasattr(optimizer, "set_hessian_vector"):
        optimizer.set_hessian_vector(functools.partial(hessian_vector, loss))

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value.detach()

    for _ in range(steps):
        if getattr(optimizer, "needs_closure", False):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()


def step_with(optimizer: torch.optim.Optimizer, *pairs: tuple[Tensor, Tensor]) -> list[Tensor]:
    """One step with given gradients; returns how far each tensor moved."""
    before = [p.detach().clone() for p, _ in pairs]
    for p, g in pairs:
        p.grad = g.clone()
    optimizer.step()
    return [p.detach() - old for (p, _), old in zip(pairs, before, strict=True)]


def rosenbrock(w: Tensor) -> Tensor:
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


@pytest.mark.parametrize(
    ("name", "hp", "steps", "reached"),
    [
        ("lbfgs", {}, 4, 1e-10),
        ("adam", {"lr": 0.05}, 1500, 1e-3),
        ("nadam", {"lr": 0.02}, 1500, 0.05),
        ("amsgrad", {"lr": 0.05}, 1500, 0.1),
        ("nesterov", {"lr": 1e-3}, 1500, 1e-2),
        ("shampoo", {"lr": 0.3, "interval": 1}, 1500, 1.0),
        ("schedule-free-adamw", {"lr": 0.05}, 1500, 0.1),
        ("sophia-h", {"lr": 0.05, "weight_decay": 0.0}, 1500, 1e-9),
    ],
)
def test_rosenbrock_is_solved(name, hp, steps, reached):
    w = parameter([-1.2, 1.0])
    optimizer = make(name, w, **hp)
    train(optimizer, lambda: rosenbrock(w), steps)
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    assert rosenbrock(w).item() < reached


@pytest.mark.parametrize("name", [m.name for m in suite.methods("optimizer")])
@pytest.mark.parametrize("problem", ["rosenbrock", "quadratic"])
def test_every_optimizer_descends_at_a_rate_of_its_space(name, problem):
    """At the space's least rate, its middle or near its largest, a few dozen steps from the usual starts."""
    steps = {"prodigy": 80, "prodigy-noema": 200, "spider": 80}.get(name, 30)  # those find their pace first
    method, curvature = suite.method(name), torch.logspace(0, 2, 10, dtype=DOUBLE)
    start, loss, share = {
        "rosenbrock": ([-1.2, 1.0], rosenbrock, 0.75),
        "quadratic": ([1.0] * 10, lambda w: 0.5 * (curvature * w**2).sum(), 0.98),
    }[problem]
    hp = (
        {"factor": 0.0}
        if name == "powerlines-wd"
        else {"weight_decay": 0.0}
        if "weight_decay" in method.defaults
        else {}
    )
    reached = []
    for place in (0.0, 0.5, 0.85):
        w = parameter(start)
        optimizer = make(name, w, lr=method.space["lr"].at(place), **hp)
        train(optimizer, lambda w=w: loss(w), steps)
        if hasattr(optimizer, "eval"):
            optimizer.eval()
        reached.append(loss(w).item())
    assert min(reached) < share * loss(parameter(start)).item()


class TestIllConditionedQuadratic:
    """½ Σ h_i w_i² with h from 1 to 1000, from w = 1."""

    curvature = torch.logspace(0, 3, 10, dtype=DOUBLE)

    def after(self, name: str, steps: int, **hp: Any) -> float:
        w = parameter(torch.ones(10))
        train(make(name, w, **hp), lambda: 0.5 * (self.curvature * w**2).sum(), steps)
        return 0.5 * (self.curvature * w.detach() ** 2).sum().item()

    def test_plain_gradient_descent_decays_at_the_rate_of_its_flattest_direction(self):
        lr, steps = 1 / 1000, 200
        wanted = 0.5 * (self.curvature * (1 - lr * self.curvature) ** (2 * steps)).sum().item()
        assert self.after("sgd", steps, lr=lr, momentum=0.0) == pytest.approx(wanted, rel=1e-9)

    def test_heavy_ball_at_polyaks_constants_beats_gradient_descent_at_its_best_rate(self):
        root = math.sqrt(1000)
        lr, momentum = (2 / (root + 1)) ** 2, ((root - 1) / (root + 1)) ** 2
        heavy = self.after("sgd", 300, lr=lr, momentum=momentum)
        plain = self.after("sgd", 300, lr=2 / 1001, momentum=0.0)
        assert heavy < 1e-6 < 0.01 < plain

    def test_adaptive_methods_do_not_see_a_rescaling_of_the_coordinates(self):
        """Adam's path in w/√h is the same for every curvature h of a separable quadratic in sign and size of g."""
        for name in ("adam", "adagrad", "amsgrad-paper", "adamnc", "sign-descent"):
            w, scaled = parameter(torch.ones(3)), parameter(torch.ones(3))
            scale = torch.tensor([1.0, 1e2, 1e4], dtype=DOUBLE)
            hp = {"eps": 1e-300} if "eps" in suite.method(name).defaults else {}
            train(make(name, w, lr=0.01, **hp), lambda w=w: (w**2).sum(), 50)
            train(make(name, scaled, lr=0.01, **hp), lambda w=scaled, scale=scale: (scale * w**2).sum(), 50)
            torch.testing.assert_close(w, scaled, rtol=1e-9, atol=1e-12)

    def test_lbfgs_solves_it_in_a_hundred_iterations(self):
        assert self.after("lbfgs", 5) < 1e-12


class TestAMSGradCounterexample:
    """f_t(x) = Cx every third step and −x otherwise, on [−1, 1]: the sum falls with x, the optimum is −1."""

    def after(self, name: str, steps: int = 6000) -> float:
        c = 3.0
        x = parameter(0.0)
        optimizer = make(name, x, lr=1.0, betas=(0.0, 1 / (1 + c * c)))
        for t in range(1, steps + 1):
            optimizer.param_groups[0]["lr"] = 0.5 / math.sqrt(t)
            step_with(optimizer, (x, torch.tensor(c if t % 3 == 1 else -1.0, dtype=DOUBLE)))
            with torch.no_grad():
                x.clamp_(-1, 1)
        return x.item()

    def test_adam_ends_at_the_worst_point(self):
        assert self.after("adam") > 0.9

    @pytest.mark.parametrize("name", ["amsgrad", "amsgrad-paper"])
    def test_amsgrad_ends_at_the_optimum(self, name):
        assert self.after(name) < -0.9


class TestPowerLines:
    @pytest.mark.parametrize(("ratio", "timescale"), [(1, 1.084), (5, 0.464), (20, 0.224), (80, 0.108), (200, 0.066)])
    def test_timescales_are_the_printed_ones(self, ratio, timescale):
        w, b = parameter(torch.ones(4, 5)), parameter(torch.ones(5))
        optimizer = make("powerlines-wd", w, b, roles=("matrix", "bias"), lr=0.01)
        optimizer.set_horizon(500)
        optimizer.set_targets(ratio * 25)
        assert 1 / (0.01 * 500 * optimizer.param_groups[0]["weight_decay"]) == pytest.approx(timescale, abs=5e-4)

    def test_the_best_decay_grows_with_the_batch(self):
        """λ ∝ B at fixed parameters and tokens: half the steps, twice the decay."""
        decays = []
        for steps in (400, 200):
            optimizer = make("powerlines-wd", parameter(torch.ones(4, 5)), roles=("matrix",), lr=0.01)
            optimizer.set_horizon(steps)
            optimizer.set_targets(10_000)
            decays.append(optimizer.param_groups[0]["weight_decay"])
        assert decays[1] == pytest.approx(2 * decays[0])


class TestSophia:
    def test_an_entry_without_positive_curvature_moves_by_the_learning_rate(self):
        w = parameter([1.0, 1.0, 1.0])
        curvature = torch.tensor([-2.0, 0.0, 1e-3], dtype=DOUBLE)
        optimizer = make("sophia-h", w, lr=0.03, weight_decay=0.0)
        train(optimizer, lambda: (0.5 * curvature * w**2 + w).sum(), 1)
        torch.testing.assert_close(1 - w.detach(), torch.tensor([-0.03, 0.03, 0.03], dtype=DOUBLE))

    def test_steep_entries_take_newtons_step(self):
        """With every refresh averaged out and γ = 1, m/h is the way to the minimum."""
        h = torch.logspace(1, 4, 8, dtype=DOUBLE)
        w = parameter(torch.full((8,), 0.5))
        hp = {"lr": 1.0, "betas": (0.0, 0.99), "gamma": 1.0, "weight_decay": 0.0, "interval": 1}
        optimizer = make("sophia-h", w, **hp)
        optimizer.param_groups[0]["lr"] = 0.0
        train(optimizer, lambda: (0.5 * h * w**2).sum(), 2000)
        optimizer.param_groups[0]["lr"] = 1.0
        train(optimizer, lambda: (0.5 * h * w**2).sum(), 1)
        assert w.detach().abs().max() < 0.25

    def test_it_says_what_it_lacks(self):
        w = parameter([1.0])
        with pytest.raises(RuntimeError, match="set_hessian_vector"):
            step_with(make("sophia-h", w), (w, torch.ones(1, dtype=DOUBLE)))


class TestLionBox:
    """With decay λ Lion minimises inside |w| ≤ 1/λ."""

    @pytest.mark.parametrize("name", ["lion", "lion-k-threshold", "lion-k-topk", "lion-k-huber", "cautious-lion"])
    @pytest.mark.parametrize("limit", [0.5, 2.0])
    def test_weights_never_leave_the_box(self, name, limit):
        w = parameter(torch.linspace(-1, 1, 20) * limit)
        slope = torch.randn(20, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
        optimizer = make(name, w, lr=0.01, weight_decay=1 / limit)
        for _ in range(300):
            step_with(optimizer, (w, slope))
            assert w.abs().max() <= limit * (1 + 1e-12)

    def test_a_constant_slope_ends_on_the_boundary_whatever_its_size(self):
        w = parameter(torch.zeros(2))
        optimizer = make("lion", w, lr=0.01, weight_decay=2.0)
        for _ in range(1000):
            step_with(optimizer, (w, torch.tensor([1e-6, -1e3], dtype=DOUBLE)))
        torch.testing.assert_close(w.detach(), torch.tensor([-0.5, 0.5], dtype=DOUBLE), rtol=1e-6, atol=0)

    def test_weights_outside_come_in(self):
        w = parameter([100.0, -50.0])
        optimizer = make("lion", w, lr=0.1, weight_decay=1.0)
        for _ in range(200):
            step_with(optimizer, (w, torch.tensor([-1.0, 1.0], dtype=DOUBLE)))
        assert w.abs().max() <= 1 + 1e-6

    def test_an_inner_minimum_is_not_moved_to_the_boundary(self):
        w = parameter([1.5, -1.5])
        train(make("lion", w, lr=1e-3, weight_decay=1.0), lambda: ((w - 0.3) ** 2).sum(), 5000)
        assert (w - 0.3).abs().max() < 0.02


class TestStepSize:
    """The length of one step in the norm the method is named for."""

    gradient = torch.randn(6, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))

    def moved(self, name: str, role: str = "matrix", **hp: Any) -> Tensor:
        w = parameter(torch.zeros(6, 4))
        return step_with(make(name, w, roles=(role,), **hp), (w, self.gradient))[0]

    @pytest.mark.parametrize("name", ["sign-descent", "signsgdm", "lion"])
    def test_sign_steps_move_every_coordinate_by_the_learning_rate(self, name):
        hp = {"weight_decay": 0.0} if "weight_decay" in suite.method(name).defaults else {}
        torch.testing.assert_close(self.moved(name, lr=0.03, **hp), -0.03 * self.gradient.sign())

    def test_sign_descent_is_adam_without_averages(self):
        adam = self.moved("adam", lr=0.03, betas=(0.0, 0.0), eps=0.0)
        torch.testing.assert_close(adam, self.moved("sign-descent", lr=0.03))

    @pytest.mark.parametrize("name", ["spectral-descent", "muon-lmo", "osgdm"])
    def test_spectral_steps_have_all_singular_values_at_the_learning_rate(self, name):
        singular = torch.linalg.svdvals(self.moved(name, lr=0.03))
        torch.testing.assert_close(singular, torch.full((4,), 0.03, dtype=DOUBLE))

    def test_muon_steps_have_singular_values_near_the_scaled_learning_rate(self):
        singular = torch.linalg.svdvals(self.moved("muon", lr=0.03)) / (0.03 * math.sqrt(6 / 4))
        assert singular.min() > 0.6
        assert singular.max() < 1.25

    def test_shampoo_without_history_is_spectral_descent(self):
        shampoo = self.moved("shampoo", lr=0.03, eps=1e-14)
        torch.testing.assert_close(shampoo, self.moved("spectral-descent", lr=0.03), rtol=1e-4, atol=1e-6)

    def test_modular_steps_have_unit_rms_to_rms_norm(self):
        singular = torch.linalg.svdvals(self.moved("modular-descent", lr=0.03))
        torch.testing.assert_close(singular, torch.full((4,), 0.03 * math.sqrt(6 / 4), dtype=DOUBLE))

    def test_modular_embedding_rows_move_by_the_root_of_the_width_and_unseen_rows_stay(self):
        w = parameter(torch.zeros(6, 4))
        gradient = self.gradient.clone()
        gradient[2] = 0
        moved = step_with(make("modular-descent", w, roles=("embedding",), lr=0.03), (w, gradient))[0]
        wanted = torch.full((6,), 0.03 * 2, dtype=DOUBLE)
        wanted[2] = 0
        torch.testing.assert_close(moved.norm(dim=1), wanted)

    def test_normalised_momentum_moves_all_parameters_together_by_the_learning_rate(self):
        w, b = parameter(torch.zeros(6, 4)), parameter(torch.zeros(5))
        moved = step_with(make("nsgdm", w, b, lr=0.03), (w, self.gradient), (b, torch.ones(5, dtype=DOUBLE)))
        assert sum(m.square().sum() for m in moved).sqrt().item() == pytest.approx(0.03)

    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
    def test_beta_ngd_lies_between_gradient_descent_and_its_normalised_form(self, beta):
        wanted = -0.03 * self.gradient / self.gradient.norm() ** beta
        torch.testing.assert_close(self.moved("beta-ngd", lr=0.03, beta=beta), wanted)

    def test_lamb_moves_each_weight_in_proportion_to_its_norm(self):
        for size in (1.0, 10.0):
            w = parameter(torch.full((6, 4), size))
            moved = step_with(make("lamb", w, lr=0.01), (w, self.gradient))[0]
            assert (moved.norm() / (size * math.sqrt(24))).item() == pytest.approx(0.01)

    def test_lion_k_at_p_one_is_lion_and_at_two_normalised(self):
        torch.testing.assert_close(self.moved("lion-k-lp", lr=0.03, p=1.0), self.moved("lion", lr=0.03))
        wanted = -0.03 * self.gradient / self.gradient.norm()
        torch.testing.assert_close(self.moved("lion-k-lp", lr=0.03, p=2.0), wanted)

    def test_lion_k_topk_moves_only_the_largest_share(self):
        moved = self.moved("lion-k-topk", lr=0.03, share=0.25)
        largest = self.gradient.abs().flatten().topk(6).indices
        assert set(moved.flatten().nonzero().flatten().tolist()) == set(largest.tolist())

    def test_cautious_steps_never_oppose_the_gradient_and_are_rescaled(self):
        w = parameter(torch.zeros(4))
        optimizer = make("cautious-lion", w, lr=0.1)
        step_with(optimizer, (w, torch.ones(4, dtype=DOUBLE)))
        for _ in range(20):
            step_with(optimizer, (w, torch.ones(4, dtype=DOUBLE)))
        against = torch.tensor([-1e-3, -1e-3, -1e-3, 1.0], dtype=DOUBLE)
        moved = step_with(optimizer, (w, against))[0]
        decay = -0.1 * 0.1 * (w.detach() - moved)
        torch.testing.assert_close(moved - decay, torch.tensor([0, 0, 0, -0.4], dtype=DOUBLE))


class TestMuonRoles:
    def test_hidden_weights_take_muon_and_all_others_the_companion(self):
        roles = ("matrix", "conv", "embedding", "head", "norm", "bias", "other")
        shapes = ((4, 3), (4, 2, 3, 3), (4, 3), (4, 3), (3,), (3,), ())
        tensors = [parameter(torch.ones(s)) for s in shapes]
        optimizer = make("muon", *tensors, roles=roles, lr=0.5, adam_lr=0.125)
        rates = {g["role"]: g["lr"] for g in optimizer.param_groups}
        assert rates == {r: 0.5 if r in ("matrix", "conv") else 0.125 for r in roles}
        moved = step_with(optimizer, *[(p, torch.ones_like(p)) for p in tensors])
        for m in moved[2:]:
            torch.testing.assert_close(m, torch.full_like(m, -0.125))
        assert all(torch.linalg.matrix_rank(m.flatten(1)) == 1 for m in moved[:2])

    def test_plain_tensors_are_told_apart_by_their_dimensions(self):
        tensors = [parameter(torch.ones(s)) for s in ((4, 3), (4, 2, 3, 3), (3,), ())]
        optimizer = make("muon", *tensors)
        assert [g["role"] for g in optimizer.param_groups] == ["matrix", "conv", "other"]

    def test_weights_of_one_shape_in_one_batch_move_as_they_do_alone(self):
        random = torch.Generator().manual_seed(0)
        gradients = [torch.randn(4, 3, dtype=DOUBLE, generator=random) for _ in range(3)]
        together = [parameter(torch.zeros(4, 3)) for _ in gradients]
        moved = step_with(make("muon", *together), *zip(together, gradients, strict=True))
        for m, g in zip(moved, gradients, strict=True):
            alone = parameter(torch.zeros(4, 3))
            torch.testing.assert_close(step_with(make("muon", alone), (alone, g))[0], m)

    def test_a_rank_one_gradient_stays_rank_one(self):
        for name in ("muon", "muon-lmo", "spectral-descent", "osgdm"):
            w = torch.zeros(16, 8, requires_grad=True)
            gradient = torch.outer(torch.arange(1.0, 17), torch.arange(1.0, 9))
            w.grad = gradient
            make(name, w, lr=1.0).step()
            singular = torch.linalg.svdvals(w.detach())
            assert singular[1] < 0.05 * singular[0], name


class TestDecoupledDecay:
    def test_sgdw_decay_follows_the_schedule_but_not_the_base_learning_rate(self):
        for lr in (0.05, 5.0):
            w = parameter([2.0])
            optimizer = make("sgdw", w, lr=lr, weight_decay=0.1)
            optimizer.param_groups[0]["lr"] = 0.5 * lr
            moved = step_with(optimizer, (w, torch.zeros(1, dtype=DOUBLE)))[0]
            assert moved.item() == pytest.approx(-0.5 * 0.1 * 2.0)

    def test_sgdw_forms_agree_at_constant_rate_and_part_when_it_changes(self):
        def path(rates: list[float]) -> list[float]:
            ends = []
            for printed in (False, True):
                w = parameter([1.0])
                optimizer = make("sgdw", w, lr=0.1, printed=printed)
                for rate in rates:
                    optimizer.param_groups[0]["lr"] = 0.1 * rate
                    step_with(optimizer, (w, torch.ones(1, dtype=DOUBLE)))
                ends.append(w.item())
            return ends

        constant, changing = path([1.0] * 5), path([1.0, 1.0, 0.1, 0.1, 0.1])
        assert constant[0] == pytest.approx(constant[1], rel=1e-12)
        assert abs(changing[0] - changing[1]) > 0.1

    def test_normalised_decay_is_that_of_the_horizon(self):
        w = parameter([2.0])
        optimizer = make("adamw-normdecay", w, weight_decay=0.3)
        optimizer.set_horizon(400)
        moved = step_with(optimizer, (w, torch.zeros(1, dtype=DOUBLE)))[0]
        assert moved.item() == pytest.approx(-0.3 / 20 * 2.0)

    @pytest.mark.parametrize("name", ["adamwr", "sgdwr"])
    def test_restarts_come_at_one_and_three_sevenths_of_the_run(self, name):
        w = parameter([1.0])
        momentum = {"betas": (0.0, 0.0)} if name == "adamwr" else {"momentum": 0.0}
        optimizer = make(name, w, lr=1e-3, weight_decay=0.0, **momentum)
        optimizer.set_horizon(70)
        sizes = [-step_with(optimizer, (w, torch.ones(1, dtype=DOUBLE)))[0].item() for _ in range(70)]
        peaks = [t for t, size in enumerate(sizes) if size == pytest.approx(1e-3, rel=1e-6)]
        assert peaks == [0, 10, 30]
        assert all(later < earlier for earlier, later in itertools.pairwise(sizes[30:]))


class TestRandomScaling:
    def test_scales_are_exponential_with_mean_one_and_shared_by_all_parameters(self):
        w, b = parameter(torch.zeros(3)), parameter(torch.zeros(2))
        optimizer = make("sgdm-exp", w, b, roles=("bias", "norm"), lr=1.0, momentum=0.0)
        scales = []
        for _ in range(2000):
            moved = step_with(optimizer, (w, torch.ones(3, dtype=DOUBLE)), (b, torch.ones(2, dtype=DOUBLE)))
            everything = torch.cat(moved)
            torch.testing.assert_close(everything, everything[:1].expand(5), rtol=1e-6, atol=1e-9)
            scales.append(-everything[0].item())
        sample = torch.tensor(scales)
        assert sample.mean().item() == pytest.approx(1, abs=0.1)
        assert (sample < math.log(2)).double().mean().item() == pytest.approx(0.5, abs=0.05)

    def test_the_seed_chooses_the_stream(self):
        moves = []
        for seed in (0, 0, 1):
            w = parameter([0.0])
            moves.append(step_with(make("sgdm-exp", w, seed=seed), (w, torch.ones(1, dtype=DOUBLE)))[0].item())
        assert moves[0] == moves[1] != moves[2]


class TestExponentiatedGradient:
    @pytest.mark.parametrize("name", ["sgd-eg", "adamw-eg", "sign-constrained-gd"])
    def test_signs_never_change(self, name):
        w = parameter([0.5, -0.5, 1e-3, -1e-3])
        signs = w.detach().sign()
        train(make(name, w, lr=0.1), lambda: ((w + 2 * signs) ** 2).sum(), 30)
        assert torch.equal(w.detach().sign(), signs)
        assert w.detach().abs().max() < 0.4

    @pytest.mark.parametrize("name", ["sgd-eg", "adamw-eg"])
    def test_zeros_stay_zero(self, name):
        w = parameter([0.0, 1.0])
        train(make(name, w), lambda: ((w - 3) ** 2).sum(), 20)
        assert w[0].item() == 0
        assert w[1].item() != 1

    def test_a_zero_weight_moves_under_sign_constrained_descent(self):
        w = parameter([0.0])
        train(make("sign-constrained-gd", w), lambda: ((w - 3) ** 2).sum(), 20)
        assert w.item() > 0.5


class TestScheduleFree:
    def test_evaluation_uses_the_average_of_z_and_training_resumes_bit_for_bit(self):
        w = torch.ones(3, requires_grad=True)
        optimizer = make("schedule-free-adamw", w, lr=0.1)
        points = []
        for t in range(20):
            train(optimizer, lambda: ((w - 2) ** 2).sum(), 1)
            points.append(optimizer.state[w]["z"].clone())
            if t % 5 == 0:
                before = w.detach().clone()
                optimizer.eval()
                optimizer.eval()
                torch.testing.assert_close(w.detach(), torch.stack(points).mean(0), rtol=1e-5, atol=1e-6)
                optimizer.train()
                optimizer.train()
                assert torch.equal(before, w.detach())

    def test_a_state_saved_during_evaluation_resumes(self):
        w, other = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
        optimizer, restored = (make("schedule-free-adamw", p, lr=0.1) for p in (w, other))
        train(optimizer, lambda: ((w - 2) ** 2).sum(), 5)
        optimizer.eval()
        restored.load_state_dict(optimizer.state_dict())
        with torch.no_grad():
            other.copy_(w)
        for part, p in ((optimizer, w), (restored, other)):
            part.train()
            train(part, lambda p=p: ((p - 2) ** 2).sum(), 5)
        assert torch.equal(w, other)

    def test_a_step_on_evaluation_weights_is_refused(self):
        w = torch.ones(3, requires_grad=True)
        optimizer = make("schedule-free-adamw", w)
        train(optimizer, lambda: (w**2).sum(), 1)
        optimizer.eval()
        with pytest.raises(RuntimeError, match="train"):
            train(optimizer, lambda: (w**2).sum(), 1)


class TestClosures:
    def calls(self, optimizer: torch.optim.Optimizer, w: Tensor) -> int:
        count = 0

        def closure() -> Tensor:
            nonlocal count
            count += 1
            optimizer.zero_grad()
            loss = rosenbrock(w)
            loss.backward()
            return loss.detach()

        optimizer.step(closure)
        return count

    def test_adam_lbfgs_takes_one_gradient_a_step_and_many_after_the_switch(self):
        w = parameter([-1.2, 1.0])
        optimizer = make("adam-lbfgs", w)
        counts = []
        for progress in (0.0, 0.2, 0.26):
            optimizer.set_progress(progress)
            counts.append(self.calls(optimizer, w))
        assert counts[:2] == [1, 1]
        assert counts[2] > 5
        assert optimizer.param_groups[0]["lr"] == 1e-3

    def test_spider_takes_two_gradients_a_step_once_its_large_batch_is_full(self):
        w = parameter([-1.2, 1.0])
        optimizer = make("spider", w, refresh=3, period=5)
        start = w.detach().clone()
        counts, moves = [], []
        for _ in range(7):
            counts.append(self.calls(optimizer, w))
            moves.append((w.detach() - start).norm().item())
            start = w.detach().clone()
        assert counts == [1, 1, 1, 2, 2, 1, 1]
        assert moves == pytest.approx([0, 0, 0.02, 0.02, 0.02, 0, 0])

    def test_spider_on_a_full_batch_is_normalised_gradient_descent(self):
        ends = []
        for name, hp in (("spider", {"refresh": 1, "period": 10}), ("beta-ngd", {"beta": 1.0})):
            w = parameter([-1.2, 1.0])
            train(make(name, w, lr=0.01, **hp), lambda w=w: rosenbrock(w), 30)
            ends.append(w.detach())
        torch.testing.assert_close(*ends)

    def test_spider_refuses_a_refresh_longer_than_its_period(self):
        with pytest.raises(ValueError, match="refresh"):
            make("spider", parameter([1.0]), refresh=5, period=4)

    def test_aprox_ftrl_takes_polyaks_step_under_its_cap(self):
        w = parameter([3.0, 4.0])
        train(make("aprox-ftrl", w, lr=10.0), lambda: w.square().sum().sqrt(), 1)
        assert w.detach().abs().max() < 1e-12

    def test_aprox_ftrl_does_not_move_below_its_target(self):
        w = parameter([3.0])
        train(make("aprox-ftrl", w, target=100.0), lambda: w.square().sum(), 3)
        assert w.item() == 3.0

    def test_aprox_ftrl_says_that_it_needs_the_loss(self):
        w = parameter([3.0])
        w.grad = torch.ones(1, dtype=DOUBLE)
        with pytest.raises(TypeError, match="closure"):
            make("aprox-ftrl", w).step()


class TestPreconditioners:
    def test_soap_without_rotation_is_adam_from_the_second_gradient_on(self):
        random = torch.Generator().manual_seed(0)
        gradients = [torch.randn(5, 3, dtype=DOUBLE, generator=random) for _ in range(6)]
        soap, adam = parameter(torch.zeros(5, 3)), parameter(torch.zeros(5, 3))
        first = make("soap", soap, lr=0.1, max_side=1, weight_decay=0.0)
        second = make("adam", adam, lr=0.1, betas=(0.95, 0.95))
        step_with(first, (soap, gradients[0]))
        for g in gradients[1:]:
            step_with(first, (soap, g))
            step_with(second, (adam, g))
        torch.testing.assert_close(soap, adam)

    def test_soap_turns_with_its_coordinates(self):
        """Rotating gradients and weights by orthogonal matrices rotates the path; Adam has no such symmetry."""
        random = torch.Generator().manual_seed(0)
        left, right = (torch.linalg.qr(torch.randn(n, n, dtype=DOUBLE, generator=random))[0] for n in (4, 3))
        gradients = [torch.randn(4, 3, dtype=DOUBLE, generator=random) for _ in range(25)]
        for name, symmetric in (("soap", True), ("shampoo", True), ("muon-lmo", True), ("adam", False)):
            w, turned = parameter(torch.zeros(4, 3)), parameter(torch.zeros(4, 3))
            one, two = (make(name, p, lr=0.1) for p in (w, turned))
            for g in gradients:
                step_with(one, (w, g))
                step_with(two, (turned, left @ g @ right))
            gap = (left @ w.detach() @ right - turned.detach()).norm() / w.detach().norm()
            assert (gap < 1e-5) == symmetric, (name, gap)

    def test_shampoo_takes_the_square_root_of_its_only_side(self):
        g = torch.randn(5, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
        w = parameter(torch.zeros(5, 3))
        moved = step_with(make("shampoo", w, lr=1.0, max_side=3, eps=1e-12), (w, g))[0]
        u, _, vt = torch.linalg.svd(g, full_matrices=False)
        torch.testing.assert_close(moved, -u @ vt, rtol=1e-5, atol=1e-6)

    def test_adafactor_keeps_rows_and_columns_only(self):
        w = parameter(torch.ones(40, 30))
        optimizer = make("adafactor", w)
        step_with(optimizer, (w, torch.ones(40, 30, dtype=DOUBLE)))
        held = sum(t.numel() for t in optimizer.state[w].values() if isinstance(t, Tensor))
        assert held == 40 + 30

    def test_adafactor_never_steps_further_than_its_relative_bound(self):
        w = parameter(torch.full((6, 4), 2.0))
        optimizer = make("adafactor", w)
        for scale in (1.0, 1e3, 1e-3):
            moved = step_with(optimizer, (w, TestStepSize.gradient * scale))[0]
            assert moved.square().mean().sqrt() <= 0.01 * 2.1


class TestStepSizeEstimates:
    @pytest.mark.parametrize("name", ["prodigy", "prodigy-noema"])
    def test_the_estimate_grows_from_tiny_to_the_scale_of_the_distance(self, name):
        w = parameter(torch.zeros(10))
        optimizer = make(name, w)
        train(optimizer, lambda: (w - 3).abs().sum(), 200)
        assert 0.1 < float(optimizer.param_groups[0]["d"]) <= 3.0

    def test_adopt_only_measures_the_first_gradient(self):
        w = parameter([1.0])
        optimizer = make("adopt", w)
        moves = [step_with(optimizer, (w, torch.ones(1, dtype=DOUBLE)))[0].item() for _ in range(2)]
        assert moves[0] == 0
        assert moves[1] < 0

    def test_ademamix_without_a_horizon_has_its_final_constants(self):
        w, other = parameter([1.0]), parameter([1.0])
        free, set_free = make("ademamix", w), make("ademamix", other)
        set_free.set_horizon(1)
        for t in range(5):
            for optimizer, p in ((free, w), (set_free, other)):
                step_with(optimizer, (p, torch.full((1,), float(t), dtype=DOUBLE)))
        assert torch.equal(w, other)

    def test_grams_does_not_move_coordinates_without_a_gradient(self):
        w = parameter([1.0, 1.0])
        optimizer = make("grams", w)
        step_with(optimizer, (w, torch.ones(2, dtype=DOUBLE)))
        moved = step_with(optimizer, (w, torch.tensor([0.0, 1.0], dtype=DOUBLE)))[0]
        assert moved[0].item() == 0
        assert moved[1].item() < 0
