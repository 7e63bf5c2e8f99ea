"""Collocation samplers follow their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import suite
from suite.train.pinn import DoesNotApply, Domain, Sampler

SAMPLERS = [method.name for method in suite.methods("sampler")]
BOX = Domain(("x", "t"), (-1.0, 0.0), (1.0, 2.0), time=1)
COUNT = 400


def make(name: str, domain: Domain = BOX, count: int = COUNT, seed: int = 0, **hp) -> Sampler:
    made = suite.method(name).make(domain, count, torch.Generator().manual_seed(seed), **hp)
    made.magnitude = lambda points: points[:, 0].abs()
    return made


def step(sampler: Sampler, magnitude=None) -> Tensor:
    """One step of training as the workload runs it; returns the points used."""
    points = sampler.points()
    sampler.weights(points)
    sampler.update(points, points[:, 0].abs() if magnitude is None else magnitude(points))
    return points


def rows(points: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in points.tolist()}


@pytest.mark.parametrize("name", SAMPLERS)
def test_points_lie_in_the_domain_and_never_exceed_their_number(name):
    sampler = make(name)
    for _ in range(250):
        points = step(sampler)
        assert points.dtype == torch.float32
        assert points.shape[1] == 2
        assert 0 < len(points) <= COUNT
        assert BOX.contains(points.double().numpy()).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_stream_gives_the_same_points(name):
    first, second = make(name), make(name)
    other = make(name, seed=1)
    for _ in range(110):
        ours, theirs, apart = step(first), step(second), step(other)
        assert torch.equal(ours, theirs)
    assert not torch.equal(ours, apart)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_a_residual_that_is_zero_or_no_number_is_survived(name, bad):
    sampler = make(name)
    sampler.magnitude = lambda points: torch.full((len(points),), bad)
    for _ in range(210):
        points = step(sampler, lambda p: torch.full((len(p),), bad))
    assert torch.isfinite(points).all()


def test_fixed_points_never_move():
    sampler = make("fixed-points")
    first = step(sampler).clone()
    for _ in range(3):
        assert torch.equal(step(sampler), first)


def test_uniform_draws_anew_at_every_step():
    sampler = make("uniform")
    assert not rows(step(sampler)) & rows(step(sampler))


def test_r3_retains_exactly_the_points_above_the_mean_residual():
    sampler = make("r3")
    before = step(sampler)
    magnitude = before[:, 0].abs()
    retained = magnitude > magnitude.mean()
    after = sampler.points()
    assert rows(before) & rows(after) == rows(before[retained])
    assert torch.equal(after[retained], before[retained])


def test_r3_draws_the_others_uniformly():
    sampler = make("r3", count=20_000)
    before = step(sampler)
    released = before[:, 0].abs() <= before[:, 0].abs().mean()
    fresh = sampler.points()[released]
    for column, (low, high) in enumerate(zip(BOX.lows, BOX.highs, strict=True)):
        place = ((fresh[:, column] - low) / (high - low)).sort().values
        expected = (torch.arange(len(place)) + 0.5) / len(place)
        assert float((place - expected).abs().max()) < 1.63 / math.sqrt(len(place))  # Kolmogorov-Smirnov, 1%


def test_r3_gathers_points_where_the_residual_stays_high():
    sampler = make("r3")
    for _ in range(100):
        points = step(sampler, lambda p: torch.where(p[:, 0] > 0.9, p[:, 0], 0.0))
    assert float((points[:, 0] > 0.9).float().mean()) > 0.3  # a twentieth of the domain


class TestCausalR3:
    def test_gate_is_half_at_beta_and_falls_with_time(self):
        sampler = make("r3-causal", start=0.25, alpha=5.0)
        points = torch.tensor([[0.0, 0.0], [0.0, 0.5], [0.0, 2.0]])
        gate = sampler.weights(points)
        expected = [0.5 * (1 - math.tanh(5 * (t - 0.25))) for t in (0.0, 0.25, 1.0)]
        torch.testing.assert_close(gate, torch.tensor(expected))

    def test_gate_moves_by_the_stated_rule(self):
        sampler = make("r3-causal", start=0.0, rate=0.1)
        points = sampler.points()
        residual = torch.full((COUNT,), 0.3)
        gated = residual * sampler.weights(points)
        moved = 0.1 * min(math.exp(-20 * float(gated.square().mean())), 0.1)
        sampler.update(points, residual)
        assert float(sampler.beta) == pytest.approx(moved, rel=1e-5)

    def test_gate_opens_as_the_residual_vanishes(self):
        sampler = make("r3-causal")
        for _ in range(2000):
            points = step(sampler, lambda p: torch.zeros(len(p)))
        assert float(sampler.weights(points).min()) > 0.99

    def test_points_are_judged_behind_the_gate(self):
        sampler = make("r3-causal", start=0.2, alpha=20.0)
        points = sampler.points()
        sampler.update(points, torch.ones(COUNT))
        kept = (sampler.points() == points).all(1)
        before_gate = points[:, 1] < 2 * 0.2
        assert float(kept[before_gate].float().mean()) == 1.0
        assert float(points[kept, 1].max()) < 2 * 0.35

    def test_a_steady_equation_is_refused(self):
        with pytest.raises(DoesNotApply, match="time axis"):
            make("r3-causal", domain=Domain(("x", "y"), (0.0, 0.0), (1.0, 1.0)))


class TestAdaptive:
    @pytest.mark.parametrize("name", ["rar-g", "rar-d"])
    def test_growing_samplers_keep_their_points_and_reach_their_number(self, name):
        sampler = make(name, start=0.5, add=0.2, period=10)
        first = step(sampler)
        assert len(first) == COUNT // 2
        sizes = []
        for _ in range(60):
            points = step(sampler)
            sizes.append(len(points))
            assert rows(first) <= rows(points)
        assert sizes[-1] == COUNT
        assert sorted(set(sizes)) == [200, 280, 360, 400]

    def test_rar_g_appends_the_largest_residuals(self):
        sampler = make("rar-g", start=0.5, add=0.1, period=1, dense=3)
        seen = []

        def magnitude(points: Tensor) -> Tensor:
            seen.append(points)
            return points[:, 0]

        sampler.magnitude = magnitude
        before = step(sampler)
        after = step(sampler)
        added = rows(after) - rows(before)
        assert added == rows(seen[0][seen[0][:, 0].topk(40).indices])

    @pytest.mark.parametrize("name", ["rad", "rar-d"])
    def test_draws_are_proportional_to_the_residual(self, name):
        growth = {"start": 0.001, "add": 1.0} if name == "rar-d" else {}
        sampler = make(name, count=4000, period=1, dense=20, power=1.0, offset=0.0, **growth)
        sampler.magnitude = lambda points: (points[:, 0] > 0).float() * 3 + 1
        step(sampler)
        points = step(sampler)
        share = float((points[:, 0] > 0).float().mean())
        assert share == pytest.approx(0.8, abs=0.03)

    def test_offset_mixes_in_uniform_points(self):
        sampler = make("rad", count=4000, period=1, dense=20, power=1.0, offset=1.0)
        sampler.magnitude = lambda points: (points[:, 0] > 0).float()
        step(sampler)
        share = float((step(sampler)[:, 0] > 0).float().mean())
        assert share == pytest.approx(0.75, abs=0.03)  # density 2 + 1 against 0 + 1

    def test_points_change_only_at_the_period(self):
        sampler = make("rad", period=5)
        seen = [step(sampler) for _ in range(11)]
        assert all(torch.equal(seen[0], points) for points in seen[:5])
        assert not rows(seen[4]) & rows(seen[5])
        assert torch.equal(seen[5], seen[9])
        assert not torch.equal(seen[9], seen[10])


class TestOptimalSampling:
    def basis(self, dims: int = 2, degree: int = 3, most: int = 128):
        from baselines.sampler.christoffel import LegendreBasis

        return LegendreBasis(dims, degree, most)

    def test_the_basis_holds_every_product_up_to_the_total_degree_and_is_orthonormal(self):
        basis = self.basis()
        wanted = {(i, j) for i in range(4) for j in range(4 - i)}
        assert sorted(map(tuple, basis.degrees.tolist())) == sorted(wanted)
        nodes, weights = np.polynomial.legendre.leggauss(8)
        grid = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
        values = basis(grid)
        gram = values.T @ (values * np.outer(weights, weights).reshape(-1, 1) / 4)
        np.testing.assert_allclose(gram, np.eye(len(basis)), atol=1e-12)
        x, y = grid.T
        (place,) = [k for k, d in enumerate(basis.degrees.tolist()) if d == [2, 1]]
        np.testing.assert_allclose(values[:, place], math.sqrt(5) * (3 * x**2 - 1) / 2 * math.sqrt(3) * y, atol=1e-12)

    def test_the_degree_falls_until_there_are_few_enough_functions(self):
        assert len(self.basis(2, 8)) == 45
        assert self.basis(5, 8).degrees.sum(axis=1).max() == 4
        assert len(self.basis(100, 8)) == 101
        assert len(self.basis(100, 8, most=30)) == 30

    def test_independent_points_have_the_christoffel_density(self):
        """Their distribution function in one dimension, against the integral of Σφ²/m by quadrature."""
        basis = self.basis(1, 5)
        x = np.sort(basis.draw(40_000, np.random.default_rng(0))[:, 0])
        fine = np.linspace(-1, 1, 20_001)
        density = np.square(basis(fine[:, None])).mean(axis=1) / 2
        cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2) * (fine[1] - fine[0])])
        assert cumulative[-1] == pytest.approx(1, abs=1e-6)
        gap = np.abs(np.interp(x, fine, cumulative) - (np.arange(len(x)) + 0.5) / len(x)).max()
        assert gap < 1.63 / math.sqrt(len(x))  # Kolmogorov-Smirnov, 1%

    @pytest.mark.parametrize("name", ["christoffel-iid", "dpp-volume"])
    def test_weights_make_means_those_of_uniform_points(self, name):
        sampler = make(name, period=1)
        found = []
        for _ in range(60):
            points = sampler.points()
            weights = sampler.weights(points) ** 2
            x, t = points.double().unbind(1)
            found.append([float((weights * f).mean()) for f in (torch.ones(COUNT), x**2, x * t, torch.exp(t))])
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0) / math.sqrt(len(found))
        assert (np.abs(mean - [1, 1 / 3, 0, (math.exp(2) - 1) / 2]) < 4 * spread + 1e-6).all()

    def test_a_projection_dpp_of_two_functions_has_its_exact_joint_law(self):
        """With 1 and √3 x, the joint density is 3(x - y)²/8 on the square: E xy = -1/3, E (x - y)² = 8/5."""
        from baselines.sampler.christoffel import projection_dpp

        basis, stream = self.basis(1, 1), np.random.default_rng(0)
        pairs = np.array([projection_dpp(basis, stream)[:, 0] for _ in range(3000)])
        products, gaps = pairs.prod(axis=1), np.square(pairs[:, 0] - pairs[:, 1])
        assert products.mean() == pytest.approx(-1 / 3, abs=4 * products.std() / math.sqrt(3000))
        assert gaps.mean() == pytest.approx(8 / 5, abs=4 * gaps.std() / math.sqrt(3000))
        assert pairs[:, 0].mean() == pytest.approx(pairs[:, 1].mean(), abs=0.1)

    def test_a_projection_dpp_has_a_point_for_each_function_and_repels(self):
        from baselines.sampler.christoffel import projection_dpp

        basis, stream = self.basis(2, 4), np.random.default_rng(0)

        def volume(points: np.ndarray) -> float:
            return float(np.linalg.slogdet(basis(points))[1])

        dpp = [volume(projection_dpp(basis, stream)) for _ in range(5)]
        independent = [volume(basis.draw(len(basis), stream)) for _ in range(5)]
        assert np.mean(dpp) > np.mean(independent) + 3

    def test_points_change_at_the_period_and_dpp_points_come_first(self):
        sampler = make("dpp-volume", period=4)
        seen = [step(sampler) for _ in range(5)]
        assert all(torch.equal(seen[0], points) for points in seen[:4])
        assert not torch.equal(seen[0], seen[4])
        assert len(sampler.basis) == 45

    def test_domains_that_are_no_boxes_are_refused(self):
        class Disc(Domain):
            pass

        disc = Disc(("x", "y"), (-1.0, -1.0), (1.0, 1.0))
        with pytest.raises(DoesNotApply, match="box"):
            make("christoffel-iid", domain=disc)
