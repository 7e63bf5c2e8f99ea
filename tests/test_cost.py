"""Step costs: ratios with honest intervals, and counters that are the same on every machine."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from suite.runner.cost import MAX_PAIRS, MIN_PAIRS, ElementCounter, counters, measure, paired_ratio, trimmed_interval
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
