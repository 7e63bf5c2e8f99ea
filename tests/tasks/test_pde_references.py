"""The references solve their equations: checked from outside, by finite differences and independent solvers."""

from __future__ import annotations

import functools
import math

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

import suite
from suite.registry import registry
from suite.train.derivatives import Field
from suite.train.pinn import Condition, PdeTask
from tasks.pde import allen_cahn, burgers, kdv, kuramoto_sivashinsky, navier_stokes
from tasks.pde.spectral import Periodic, etdrk4, grid, solve

TASKS = [task.name for task in suite.tasks(family="pde")]
FULL = [name for name in TASKS if name != "cavity"]  # whose reference gives every unknown function
REACH = 4  # nodes of a difference formula on each side of its centre


def make(name: str) -> PdeTask:
    info = registry().task(name)
    return info.factory(info)


@functools.cache
def difference_weights(shift: int, order: int) -> np.ndarray:
    """Weights of the derivative at 0 from nodes -4 + shift .. 4 + shift of unit spacing."""
    nodes = np.arange(-REACH, REACH + 1) + shift
    powers = np.vander(nodes.astype(float), increasing=True).T
    goal = np.zeros(len(nodes))
    goal[order] = float(np.prod(np.arange(1, order + 1)))
    return np.linalg.solve(powers, goal)


class ReferenceField(Field):
    """One unknown function of a task's reference, with derivatives by 9-point differences inside the domain."""

    def __init__(self, task: PdeTask, points: np.ndarray, component: int, relative_step: float) -> None:
        self.task, self.points, self.component, self.step = task, points, component, relative_step

    def evaluate(self, points: np.ndarray) -> np.ndarray:
        values = self.task.solution(points)
        return values if values.ndim == 1 else values[:, self.component]

    @property
    def value(self) -> Tensor:
        return torch.tensor(self.evaluate(self.points))

    def d(self, *axes: int) -> Tensor:
        assert len(set(axes)) == 1, "pure derivatives only"
        axis, order = axes[0], len(axes)
        low, high = self.task.domain.lows[axis], self.task.domain.highs[axis]
        h = self.step * (high - low)
        place = self.points[:, axis]
        shift = np.ceil(np.maximum(low - (place - REACH * h), 0) / h - 1e-9)
        shift -= np.ceil(np.maximum(place + REACH * h - high, 0) / h - 1e-9)
        total = np.zeros(len(place))
        weights = np.stack([difference_weights(int(s), order) for s in shift])
        for k in range(2 * REACH + 1):
            moved = self.points.copy()
            moved[:, axis] = np.clip(place + (k - REACH + shift) * h, low, high)
            total += weights[:, k] * self.evaluate(moved)
        return torch.tensor(total / h**order)

    def laplacian(self, axes=None) -> Tensor:
        return torch.stack([self.d(a, a) for a in (range(self.points.shape[1]) if axes is None else axes)]).sum(0)


# relative step of the differences, and the largest residual allowed relative to the derivatives in it
STEPS = {
    "allen-cahn": (3e-4, 1e-3),
    "burgers": (2e-4, 1e-4),
    "sine-gordon-100": (5e-3, 1e-6),
    "kdv": (2e-3, 1e-4),
    "kuramoto-sivashinsky": (2e-3, 1e-2),
    "highfreq-poisson": (1e-3, 1e-6),
}


def reference_fields(task: PdeTask, points: np.ndarray) -> tuple[ReferenceField, ...]:
    step = STEPS.get(task.name, (3e-3, 0.0))[0]
    return tuple(ReferenceField(task, points, k, step) for k in range(task.outputs))


def interior(task: PdeTask, count: int) -> np.ndarray:
    """Uniform points well inside the domain, after the first hundredth of the time."""
    points = task.domain.uniform(count, torch.Generator().manual_seed(5)).double().numpy()
    low, high = np.array(task.domain.lows), np.array(task.domain.highs)
    return (low + high) / 2 + 0.9 * (points - (low + high) / 2)


@pytest.mark.parametrize("name", FULL)
def test_reference_satisfies_the_equation(name):
    task = make(name)
    points = interior(task, 8 if task.domain.dims > 10 else 200)
    x, fields = torch.tensor(points), reference_fields(task, points)
    residual = task.residual(x, *fields)
    scale = max(float(f.laplacian().abs().mean()) if task.laplacian else float(f.d(0).abs().mean()) for f in fields)
    assert float(residual.abs().max()) < STEPS.get(name, (0, 1e-6))[1] * scale


@pytest.mark.parametrize("name", FULL)
def test_a_wrong_solution_leaves_a_residual(name):
    task = make(name)
    points = interior(task, 8 if task.domain.dims > 10 else 200)

    class Perturbed(ReferenceField):
        def evaluate(self, points):
            return super().evaluate(points) + 0.1 * (points**3).sum(axis=1)

    x, step = torch.tensor(points), STEPS.get(name, (3e-3, 0.0))[0]
    wrong = task.residual(x, *(Perturbed(task, points, k, step) for k in range(task.outputs)))
    right = task.residual(x, *reference_fields(task, points))
    assert float(wrong.abs().mean()) > 30 * float(right.abs().mean())


@pytest.mark.parametrize("name", [name for name in FULL if name != "sine-gordon-100"])
def test_conditions_hold_on_the_reference(name):
    task = make(name)
    for stated in task.conditions(task.info.tiers["smoke"]):
        points = stated.points.double().numpy()
        low, high = np.array(task.domain.lows), np.array(task.domain.highs)
        points = np.clip(points, low, high)
        if name == "allen-cahn" and stated.name == "periodic":
            points[:, 1] = np.maximum(points[:, 1], 0.1)  # the initial values have a kink at the seam, soon smoothed
        quantity = stated.quantity(torch.tensor(points), *reference_fields(task, points))
        gap = (quantity if stated.values is None else quantity - stated.values.double()).abs()
        if stated.name == "periodic":
            assert bool((gap.amax(0) < 0.05 * unrelated_jumps(task, stated, points) + 1e-3).all())
        else:
            assert float(gap.max()) < 1e-5


def unrelated_jumps(task: PdeTask, stated: Condition, points: np.ndarray) -> Tensor:
    """Largest jumps of a periodic condition's quantities between its points and points inside the domain."""
    moved = points.copy()
    moved[len(points) // 2 :, 0] -= 0.37 * (task.domain.highs[0] - task.domain.lows[0])
    return stated.quantity(torch.tensor(moved), *reference_fields(task, moved)).abs().amax(0)


def test_sine_gordon_vanishes_on_the_sphere():
    task = make("sine-gordon-100")
    points = task.domain.uniform(20, torch.Generator().manual_seed(0)).double().numpy()
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert np.abs(task.solution(points)).max() < 1e-12


@pytest.mark.parametrize("name", TASKS)
def test_solution_gives_float64_for_each_point(name):
    task = make(name)
    points = interior(task, 7)
    values = task.solution(points)
    assert values.dtype == np.float64
    assert values.shape == ((7,) if task.outputs == 1 else (7, len(task.functions)))
    np.testing.assert_array_equal(task.solution(points[3:4])[0], values[3])


@pytest.mark.parametrize("name", TASKS)
def test_solution_refuses_points_outside_the_domain(name):
    task = make(name)
    outside = np.array(task.domain.highs)[None] + 0.5
    with pytest.raises(ValueError, match="outside the domain"):
        task.solution(outside)
    with pytest.raises(ValueError, match="points must be"):
        task.solution(np.zeros((3, task.domain.dims + 1)))


@pytest.mark.parametrize(("x", "t"), [(0.0, 0.5), (0.02, 1.0), (-0.3, 0.3), (0.7, 0.05), (0.999, 0.9)])
def test_cole_hopf_agrees_with_adaptive_quadrature(x, t):
    nu = mpmath.mpf(0.01) / mpmath.pi
    width = mpmath.sqrt(4 * nu * t)

    def mass(z):
        return mpmath.exp(-mpmath.cos(mpmath.pi * (x - width * z)) / (2 * mpmath.pi * nu) - z**2)

    panels = mpmath.linspace(-14, 14, 57)
    above = mpmath.quad(lambda z: mpmath.sin(mpmath.pi * (x - width * z)) * mass(z), panels)
    truth = -above / mpmath.quad(mass, panels)
    assert burgers.cole_hopf(np.array([[x, t]]))[0] == pytest.approx(float(truth), abs=1e-12)


def test_cole_hopf_starts_from_the_initial_values():
    x = np.linspace(-1, 1, 21)
    values = burgers.cole_hopf(np.stack([x, np.zeros(21)], axis=1))
    np.testing.assert_allclose(values, -np.sin(np.pi * x), atol=1e-12)


def test_exponential_time_differencing_solves_burgers_like_cole_hopf():
    equation = Periodic(
        low=-1.0,
        high=1.0,
        linear=lambda k: -burgers.VISCOSITY * k**2,
        nonlinear=lambda u, d: -0.5 * d(u * u),
        initial=lambda x: -np.sin(np.pi * x),
        time=0.5,
    )
    values = etdrk4(equation, modes=1024, steps=500, frames=2)[-1]
    points = np.stack([grid(equation, 1024), np.full(1024, 0.5)], axis=1)
    np.testing.assert_allclose(values, burgers.cole_hopf(points), atol=1e-7)


def test_exponential_time_differencing_is_exact_for_linear_equations():
    equation = Periodic(
        low=0.0,
        high=2 * np.pi,
        linear=lambda k: -0.1 * k**2 + 2j * k,
        nonlinear=lambda u, d: 0 * u,
        initial=lambda x: np.sin(3 * x),
    )
    final = etdrk4(equation, modes=32, steps=7, frames=2)[-1]
    np.testing.assert_allclose(final, np.exp(-0.9) * np.sin(3 * (grid(equation, 32) + 2)), atol=1e-13)


def test_exponential_time_differencing_converges_at_fourth_order():
    smooth = Periodic(
        low=-1.0,
        high=1.0,
        linear=allen_cahn.EQUATION.linear,
        nonlinear=allen_cahn.EQUATION.nonlinear,
        initial=lambda x: np.cos(np.pi * x) / 2,
    )
    final = {n: etdrk4(smooth, modes=64, steps=n, frames=2)[-1] for n in (16, 32, 64, 512)}
    errors = [np.abs(final[n] - final[512]).max() for n in (16, 32, 64)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (rates > 3.7).all()


def test_allen_cahn_reference_error_covers_its_refinement():
    task = make("allen-cahn")
    finer = solve(allen_cahn.EQUATION, modes=8192, steps=500, frames=101, keep=2048)
    points = task.domain.uniform(4000, torch.Generator().manual_seed(3)).double().numpy()
    fine, stated = finer(points), task.solution(points)
    assert np.linalg.norm(stated - fine) / np.linalg.norm(fine) < task.reference_error


@pytest.mark.parametrize(
    ("name", "equation", "sizes"),
    [
        ("kdv", kdv.EQUATION, {"modes": 768, "steps": 2400, "frames": 401, "keep": 768}),
        (
            "kuramoto-sivashinsky",
            kuramoto_sivashinsky.EQUATION,
            {"modes": 768, "steps": 12000, "frames": 601, "keep": 768},
        ),
    ],
    ids=["kdv", "kuramoto-sivashinsky"],
)
def test_reference_error_is_what_refinement_in_space_and_time_changes_to_its_one_digit(name, equation, sizes):
    task, finer = make(name), solve(equation, **sizes)
    points = task.domain.uniform(4000, torch.Generator().manual_seed(3)).double().numpy()
    fine = finer(points)
    error = np.linalg.norm(task.solution(points) - fine) / np.linalg.norm(fine)
    assert float(f"{error:.0e}") <= task.reference_error


def difference(u: np.ndarray, spacing: float, order: int, reach: int) -> np.ndarray:
    """Derivative of a periodic grid function by central differences over `reach` points on each side."""
    powers = np.vander(np.arange(-reach, reach + 1).astype(float), increasing=True).T
    goal = np.zeros(2 * reach + 1)
    goal[order] = math.factorial(order)
    weights = np.linalg.solve(powers, goal)
    around = np.concatenate([u[-reach:], u, u[:reach]])
    return np.convolve(around, weights[::-1], "valid") / spacing**order


def by_differences(slope, start: np.ndarray, steps: int) -> np.ndarray:
    """Solution of u' = slope(u) at t = 0, 1/4, ..., 1 by the classical Runge-Kutta method, (5, places)."""
    u, h, found = start, 1 / steps, [start]
    for step in range(1, steps + 1):
        a = slope(u)
        b = slope(u + h / 2 * a)
        c = slope(u + h / 2 * b)
        u = u + h / 6 * (a + 2 * b + 2 * c + slope(u + h * c))
        if step % (steps // 4) == 0:
            found.append(u)
    return np.stack(found)


def distance_from_reference(name: str, x: np.ndarray, found: np.ndarray) -> float:
    """Relative L2 distance of values (5, places) from the task's reference."""
    points = np.stack([np.tile(x, 5), np.repeat(np.linspace(0, 1, 5), len(x))], axis=1)
    truth = make(name).solution(points).reshape(found.shape)
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def test_allen_cahn_reference_is_the_solution_by_finite_differences():
    x, h = np.linspace(-1, 1, 1025)[:-1], 2 / 1024
    found = by_differences(
        lambda u: 1e-4 * difference(u, h, 2, 2) + 5 * u - 5 * u**3, x**2 * np.cos(np.pi * x), steps=500
    )
    assert distance_from_reference("allen-cahn", x, found) < 1e-5


def test_kdv_reference_is_the_solution_by_finite_differences():
    x, h = np.linspace(-1, 1, 161)[:-1], 2 / 160
    found = by_differences(
        lambda u: -0.5 * difference(u * u, h, 1, 5) - 0.0025 * difference(u, h, 3, 5), np.cos(np.pi * x), steps=5200
    )
    assert distance_from_reference("kdv", x, found) < 1e-5


def test_burgers_reference_is_the_solution_by_finite_differences():
    """In conservation form, with 5 points across the shock's width of 0.01."""
    x, h = np.linspace(-1, 1, 1025)[:-1], 2 / 1024
    found = by_differences(
        lambda u: -0.5 * difference(u * u, h, 1, 4) + 0.01 / np.pi * difference(u, h, 2, 4), -np.sin(np.pi * x), 3200
    )
    assert distance_from_reference("burgers", x, found) < 1e-5


@pytest.mark.parametrize("name", TASKS)
def test_solution_is_finite_on_the_whole_closed_domain(name):
    domain = make(name).domain
    if domain.dims > 2:
        points = np.stack([np.array(domain.lows), np.array(domain.highs)])
        points = points[domain.contains(points)]  # the corners of a ball's box are outside
        points = np.concatenate([points, np.zeros((1, domain.dims))])
    else:
        points = domain.grid(*[7] * domain.dims)
    values = make(name).solution(points)
    assert len(values) == len(points)
    assert np.isfinite(values).all()


class TestCavity:
    """The reference has no pressure: the vorticity's equation stands in for the momentum's."""

    def fields(self, points: np.ndarray) -> tuple[ReferenceField, ...]:
        return tuple(ReferenceField(make("cavity"), points, k, 4e-3) for k in range(2))

    def test_velocity_has_no_divergence(self):
        u, v = self.fields(interior(make("cavity"), 100))
        assert float((u.d(0) + v.d(1)).abs().max()) < 1e-8 * float(u.d(0).abs().max())

    def test_vorticity_is_carried_and_diffused(self):
        task = make("cavity")
        points = 0.1 + 0.8 * np.random.default_rng(0).random((60, 2))

        class Vorticity(ReferenceField):
            def evaluate(self, at: np.ndarray) -> np.ndarray:
                u, v = (ReferenceField(task, at, k, 4e-3) for k in range(2))
                return (v.d(0) - u.d(1)).numpy()

        w, (u, v) = Vorticity(task, points, 0, 4e-3), self.fields(points)
        carried = u.value * w.d(0) + v.value * w.d(1)
        diffused = w.laplacian() / task.reynolds
        assert float((carried - diffused).abs().mean()) < 0.02 * float(carried.abs().mean())

    def test_walls_hold_the_fluid_and_the_lid_moves_it(self):
        task = make("cavity")
        stated = task.conditions(task.info.tiers["smoke"])[0]
        points = stated.points.double().numpy()
        away = np.abs(points[:, 0] - 0.5) < 0.45  # the reference is least exact at the lid's corners
        np.testing.assert_allclose(task.solution(points)[away], stated.values.numpy()[away], atol=2e-4)

    def test_reference_error_covers_its_refinement(self):
        stream = navier_stokes.solve_cavity(32, 100.0)
        points = 2 * np.random.default_rng(1).random((3000, 2)) - 1
        coarse, fine = navier_stokes.cavity_stream(), stream
        values = [
            np.stack(
                [
                    np.polynomial.chebyshev.chebval2d(*points.T, np.polynomial.chebyshev.chebder(c, axis=a))
                    for a in (0, 1)
                ]
            )
            for c in (fine, coarse)
        ]
        error = np.linalg.norm(values[0] - values[1]) / np.linalg.norm(values[0])
        assert error < make("cavity").reference_error

    def test_the_stokes_limit_is_symmetric(self):
        """At vanishing Reynolds number the stream function is symmetric in x."""
        stream = navier_stokes.solve_cavity(16, 1e-3)
        odd = np.abs(stream[1::2]).max()
        assert odd < 1e-4 * np.abs(stream).max()


def test_reference_grid_is_read_back_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEVELFIELD_CACHE", str(tmp_path))
    sizes = {"modes": 64, "steps": 50, "frames": 11, "keep": 32}
    first = solve(allen_cahn.EQUATION, **sizes, source=allen_cahn.__file__)
    (file,) = (tmp_path / "arrays").iterdir()
    stamp = file.stat().st_mtime_ns
    second = solve(allen_cahn.EQUATION, **sizes, source=allen_cahn.__file__)
    points = np.array([[0.1, 0.2], [-0.7, 0.9]])
    np.testing.assert_array_equal(first(points), second(points))
    assert file.stat().st_mtime_ns == stamp
    file.write_bytes(b"damaged")
    np.testing.assert_array_equal(
        solve(allen_cahn.EQUATION, **sizes, source=allen_cahn.__file__)(points), first(points)
    )
