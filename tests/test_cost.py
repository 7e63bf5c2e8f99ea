"""Step costs: ratios with honest intervals, and counters that are the same on every machine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from suite.recipe import Choice, Recipe
from suite.runner import flops
from suite.runner.cost import (
    MAX_PAIRS,
    MIN_PAIRS,
    ElementCounter,
    counters,
    measure,
    operations,
    paired_ratio,
    period,
    trimmed_interval,
)
from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.train.loop import Trainer

# ---------------------------------------------------------------- the interval


@pytest.mark.parametrize("n", [10, 20, 50, 200])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_a_trimmed_interval_is_that_of_scipy(n: int, level: float) -> None:
    values = np.random.default_rng(n).standard_t(2, size=n)
    centre, half = trimmed_interval(values, trim=0.1, level=level)
    assert centre == pytest.approx(stats.trim_mean(values, 0.1), rel=1e-12)
    low, high = stats.mstats.trimmed_mean_ci(values, (0.1, 0.1), alpha=1 - level)
    assert (centre - half, centre + half) == pytest.approx((float(low), float(high)), rel=1e-9)


def test_without_trimming_it_is_the_t_interval() -> None:
    values = np.random.default_rng(0).normal(size=12)
    centre, half = trimmed_interval(values, trim=0.0)
    low, high = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert (centre - half, centre + half) == pytest.approx((low, high))


@given(st.lists(st.floats(-1e3, 1e3), min_size=10, max_size=40), st.floats(-10, 10), st.floats(0.1, 10))
def test_an_interval_moves_and_stretches_with_the_values(values: list[float], shift: float, scale: float) -> None:
    centre, half = trimmed_interval(np.array(values))
    moved, stretched = trimmed_interval(scale * np.array(values) + shift)
    assert moved == pytest.approx(scale * centre + shift, rel=1e-6, abs=1e-6)
    assert stretched == pytest.approx(scale * half, rel=1e-6, abs=1e-6)


def test_one_wild_value_in_ten_does_not_move_it() -> None:
    values = np.linspace(-1.0, 1.0, 20)
    wild = np.concatenate([values[:-1], [1e6]])
    assert trimmed_interval(wild) == pytest.approx(trimmed_interval(values))


# ---------------------------------------------------------------- the ratio


def noisy(cost: float, spread: float, seed: int, drift: float = 0.0) -> tuple[object, object]:
    """Two functions that return the times of a step `cost` times another's, on a machine that slows down."""
    draw, calls = np.random.default_rng(seed), itertools.count()

    def timed(factor: float) -> float:
        slow = math.exp(drift * next(calls))
        preempted = 20.0 if draw.random() < 0.03 else 1.0
        return factor * 1e-3 * slow * preempted * math.exp(spread * draw.normal())

    return (lambda: timed(cost)), (lambda: timed(1.0))


@pytest.mark.parametrize("drift", [0.0, 0.01])
@pytest.mark.parametrize("cost", [0.5, 1.0, 2.0])
def test_the_interval_of_a_ratio_covers_the_truth_about_as_often_as_it_says(cost: float, drift: float) -> None:
    covered, precise = 0, 0
    for seed in range(60):
        found = paired_ratio(*noisy(cost, 0.1, seed, drift), seconds=60.0)  # type: ignore[arg-type]
        assert found["cost_low"] <= found["cost_ratio"] <= found["cost_high"]
        covered += found["cost_low"] <= cost <= found["cost_high"]
        precise += found["precise"]
        assert MIN_PAIRS <= found["pairs"] <= MAX_PAIRS
    assert covered >= 50  # 95% of 60 is 57; fewer than 50 has a probability of 2e-5
    assert precise == 60


def test_a_step_twice_as_slow_costs_two() -> None:
    found = paired_ratio(lambda: 2e-3, lambda: 1e-3, seconds=60.0)
    assert (found["cost_ratio"], found["cost_low"], found["cost_high"]) == pytest.approx((2.0, 2.0, 2.0))
    assert (found["pairs"], found["precise"], found["step_seconds"]) == (MIN_PAIRS, True, 2e-3)


def test_a_measurement_that_stays_wide_ends_and_says_so() -> None:
    found = paired_ratio(*noisy(1.5, 3.0, 0), seconds=60.0)  # type: ignore[arg-type]
    assert (found["pairs"], found["precise"]) == (MAX_PAIRS, False)
    short = paired_ratio(*noisy(1.5, 3.0, 0), seconds=0.0)  # type: ignore[arg-type]
    assert short["pairs"] == MIN_PAIRS


def test_the_two_are_called_in_the_order_a_b_b_a() -> None:
    calls: list[str] = []
    paired_ratio(lambda: calls.append("a") or 1.0, lambda: calls.append("b") or 1.0, seconds=60.0)  # type: ignore[func-returns-value]
    assert "".join(calls) == "abba" * MIN_PAIRS


# ---------------------------------------------------------------- counters


def counted(task: str, method: str) -> dict[str, float]:
    spec = RunSpec(task, method, "smoke")
    workload = make_workload(spec)
    return counters(Trainer(workload, spec.recipe, spec.given))


@pytest.mark.usefixtures("toy")
def test_counters_of_one_recipe_are_equal_and_one_more_operation_counts() -> None:
    first, again, more = (
        counted("toy-long", "reference"),
        counted("toy-long", "toy-plain"),
        counted("toy-long", "toy-more"),
    )
    assert first == again
    assert more["flops"] == first["flops"] > 0
    assert more["elementwise"] == first["elementwise"] + 4  # x + 0 on a batch of 4, its gradient passed on as it is


def test_counters_of_a_real_task_repeat_and_tell_activations_apart() -> None:
    reference, relu, golu = (counted("digits-cnn", m) for m in ("reference", "relu", "golu"))
    assert reference == relu
    assert golu["flops"] == relu["flops"] > 1e6
    assert golu["elementwise"] > relu["elementwise"] > 0
    assert golu["saved_bytes"] > relu["saved_bytes"] > 0


def test_a_backward_pass_that_differentiates_inside_is_counted() -> None:
    inner, outer = torch.nn.Linear(4, 4, bias=False), torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False))

    def double(gradient: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            at = gradient.detach().requires_grad_()
            return gradient + torch.autograd.grad(inner(at).sum(), at)[0]

    def step() -> None:
        x = outer(torch.ones(2, 4))
        x.register_hook(double)
        x.sum().backward()

    # forward, gradient of the weight; inner forward, gradient of its input (that of the first input is not needed)
    assert operations(step)["flops"] == 4 * 2 * 2 * 4 * 4


def test_matrix_products_and_views_are_no_elements() -> None:
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    with ElementCounter() as counter:
        _ = (a @ b).t().reshape(15).view(5, 3)[0].unsqueeze(0)
    assert counter.elements <= 15  # a reshape may have to copy
    with ElementCounter() as counter:
        _ = a.exp() + a
    assert counter.elements == 24


@pytest.mark.usefixtures("toy")
def test_a_measurement_states_ratio_interval_and_counts() -> None:
    found = measure(RunSpec("toy-long", "toy-more", "smoke"), seconds=0.2)
    assert found["cost_low"] <= found["cost_ratio"] <= found["cost_high"]
    assert found["pairs"] >= MIN_PAIRS
    assert {"flops", "elementwise", "saved_bytes", "precise", "step_seconds"} <= set(found)
    reference = measure(RunSpec("toy-long", "reference", "smoke"), seconds=0.2)
    assert (reference["cost_ratio"], reference["pairs"]) == (1.0, 0)
    itself = measure(RunSpec("toy-long", "toy-more", "smoke"), seconds=0.2, itself=True)
    assert itself["elementwise"] == reference["elementwise"] < found["elementwise"]
    assert itself["pairs"] >= MIN_PAIRS


# ---------------------------------------------------------------- formulas of linear algebra


def counted_flops(work: Callable[[], object]) -> int:
    with flops.counter() as counter:
        work()
    return counter.get_total_flops()


def elimination(n: int) -> int:
    """Operations of Gaussian elimination, one by one."""
    return sum(1 + 2 * (n - k - 1) for k in range(n) for _ in range(k + 1, n))


def cholesky(n: int) -> int:
    return sum(2 * j for i in range(n) for j in range(i + 1))


def reflections(m: int, n: int) -> int:
    """Householder's triangularization: each reflection's inner products and updates of the columns to its right."""
    return sum(4 * (m - k) for k in range(n) for _ in range(k, n))


def columns_of_q(m: int, n: int, columns: int) -> int:
    """The reflections applied backward to the first columns of the identity, each to the block that is not yet zero."""
    return sum(4 * (m - k) * (columns - k) for k in reversed(range(n)))


def substitution(n: int) -> int:
    return sum(2 * i + 1 for i in range(n))


TALL, SQUARE = torch.randn(96, 64, generator=torch.Generator().manual_seed(0)), torch.eye(64)


@pytest.mark.parametrize(
    ("work", "operations"),
    [
        (lambda: torch.linalg.lu_factor(SQUARE), elimination(64)),
        (lambda: torch.linalg.slogdet(SQUARE), elimination(64)),
        (lambda: torch.linalg.cholesky(SQUARE), cholesky(64)),
        (lambda: torch.linalg.qr(TALL, "r"), reflections(96, 64)),
        (lambda: torch.linalg.qr(TALL), reflections(96, 64) + columns_of_q(96, 64, 64)),
        (lambda: torch.linalg.qr(TALL, "complete"), reflections(96, 64) + columns_of_q(96, 64, 96)),
        (lambda: torch.linalg.qr(TALL.T), reflections(96, 64) + columns_of_q(64, 64, 64)),
        (lambda: torch.linalg.householder_product(TALL, torch.ones(64)), columns_of_q(96, 64, 64)),
        (lambda: torch.linalg.solve_triangular(SQUARE, TALL.T, upper=True), 96 * substitution(64)),
        (lambda: torch.linalg.solve(SQUARE, TALL.T), elimination(64) + 2 * 96 * substitution(64)),
        (lambda: torch.linalg.solve(SQUARE, torch.ones(64)), elimination(64) + 2 * substitution(64)),
        (lambda: torch.linalg.inv(SQUARE), elimination(64) + 64**3 * 4 / 3),
        (lambda: torch.cholesky_solve(TALL.T, SQUARE), 2 * 96 * substitution(64)),
        (lambda: torch.linalg.lstsq(TALL, torch.ones(96, 1)), reflections(96, 64)),
    ],
)
def test_a_factorization_counts_as_its_algorithm_written_out(work: Callable[[], object], operations: int) -> None:
    """To the leading order: the square and linear terms are 5% at these sizes."""
    assert counted_flops(work) == pytest.approx(operations, rel=0.06)


@pytest.mark.parametrize(
    ("work", "cubes"),
    [
        (lambda a: torch.linalg.eigh(a), 9),
        (lambda a: torch.linalg.eig(a), 25),
        (lambda a: torch.linalg.svd(a), 21),
        (lambda a: torch.linalg.matrix_exp(a), 12),
        (lambda a: torch.cholesky_inverse(a), 2 / 3),
        (lambda a: torch.linalg.pinv(a), 24),
    ],
)
def test_a_decomposition_of_a_square_matrix_counts_its_cubes_and_a_stack_counts_each(
    work: Callable[[torch.Tensor], object], cubes: float
) -> None:
    assert counted_flops(lambda: work(SQUARE)) == pytest.approx(cubes * 64**3, rel=1e-5)
    assert counted_flops(lambda: work(SQUARE.expand(5, 64, 64).clone())) == pytest.approx(5 * cubes * 64**3, rel=1e-5)


def test_values_alone_cost_less_where_a_program_asks_for_no_more() -> None:
    assert flops.eigh(SQUARE.shape, "L", False) == int(4 / 3 * 64**3)
    assert flops.svd(SQUARE.shape, False, False) == int(8 / 3 * 64**3)


def test_a_thin_decomposition_takes_the_better_of_two_algorithms() -> None:
    thin = torch.ones(1000, 8)
    assert counted_flops(lambda: torch.linalg.svd(thin, full_matrices=False)) == 6 * 1000 * 64 + 20 * 512
    assert counted_flops(lambda: torch.linalg.svd(thin.T, full_matrices=False)) == 6 * 1000 * 64 + 20 * 512


def test_products_with_vectors_and_transforms_are_counted() -> None:
    a, x = torch.ones(6, 4), torch.ones(4)
    assert counted_flops(lambda: a @ x) == 48
    assert counted_flops(lambda: x @ x) == 8
    assert counted_flops(lambda: torch.addmv(torch.ones(6), a, x)) == 48
    assert counted_flops(lambda: torch.fft.fft(torch.ones(3, 16, dtype=torch.complex64))) == 3 * 5 * 16 * 4
    assert counted_flops(lambda: torch.fft.irfft(torch.fft.rfft(torch.ones(16)))) == 2 * 2.5 * 16 * 4


def test_attention_on_a_cpu_counts_as_its_products_written_out() -> None:
    q, k, v = (torch.randn(2, 3, n, d) for n, d in ((10, 8), (12, 8), (12, 8)))

    def written_out() -> torch.Tensor:
        return torch.softmax(q @ k.transpose(-1, -2), -1) @ v

    fused = counted_flops(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))
    assert fused == counted_flops(written_out) > 0
    for part in (q, k, v):
        part.requires_grad_()
    plain = counted_flops(lambda: written_out().sum().backward())
    assert (
        counted_flops(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v).sum().backward())
        == plain + fused // 2
    )  # the fused one makes its scores a second time


# ---------------------------------------------------------------- periods


def test_a_period_is_the_longest_that_a_hyper_parameter_states() -> None:
    def of(**hp: object) -> int:
        return period(Recipe({"optimizer": Choice("x", hp), "schedule": Choice("y", {"every": 4})}))

    assert of() == 4
    assert of(interval=10, lr=50) == 10
    assert of(interval=0, refresh=True) == 4
    assert of(period=10**6) == 100


def test_counts_of_a_method_with_a_costly_step_now_and_then_are_means_over_a_period() -> None:
    spec = RunSpec("digits-cnn", "soap", "smoke")
    every = period(spec.recipe)
    assert every == 10

    def per_step(steps: int, skip: int = 0) -> float:
        workload = make_workload(spec)
        trainer = Trainer(workload, spec.recipe, spec.given)
        for _ in range(skip):
            trainer.step()
        return counters(trainer, steps)["flops"]

    whole = per_step(every)
    assert whole == per_step(every, skip=4)
    singles = {per_step(1, skip) for skip in range(every)}
    assert min(singles) < whole < max(singles)
