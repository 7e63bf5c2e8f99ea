"""Intervals: by hand, against scipy and statsmodels, and by simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from suite.stats import bootstrap_interval, mean_interval, median_interval, t_interval, tost, wilson_interval
from suite.stats.intervals import exact_mean, sample_sd, satterthwaite, t_half_width

SAMPLES = hnp.arrays(np.float64, st.integers(2, 10), elements=st.floats(-1e3, 1e3))


def test_t_interval_by_hand():
    found = t_interval([1.0, 2.0, 3.0])
    half = 4.3026527297 / math.sqrt(3)
    assert found.value == 2.0
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-9)
    assert (found.n, found.method) == (3, "t")


@given(SAMPLES)
def test_t_interval_is_scipys(x):
    found = t_interval(x)
    sem = stats.sem(x)
    if sem > 0:
        expected = stats.t.interval(0.95, len(x) - 1, loc=np.mean(x), scale=sem)
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_one_value_has_no_interval():
    found = t_interval([0.4])
    assert found.value == 0.4
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [[1.0, 2.0]]])
def test_a_sample_must_be_finite_and_flat(bad):
    with pytest.raises(ValueError, match="sample"):
        t_interval(bad)


@given(SAMPLES, st.floats(0.01, 100), st.floats(-100, 100))
def test_the_interval_moves_with_the_unit(x, scale, shift):
    plain, moved = mean_interval(x), mean_interval(scale * x + shift)
    size = 1e-9 * (1 + abs(shift) + scale * np.max(np.abs(x)))
    assert moved.low == pytest.approx(scale * plain.low + shift, abs=size)
    assert moved.high == pytest.approx(scale * plain.high + shift, abs=size)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_coverage_of_the_mean_interval_at_few_seeds(n):
    x = np.random.default_rng(n).normal(3.0, 2.0, (20_000, n))
    half = t_half_width(x.std(axis=1, ddof=1), n)
    assert np.mean(np.abs(x.mean(axis=1) - 3.0) <= half) == pytest.approx(0.95, abs=0.006)
    assert mean_interval(x[0]).method == "t"
    assert mean_interval(x[0]).high == pytest.approx(x[0].mean() + half[0])


@pytest.mark.parametrize("n", [11, 20, 50])
@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_coverage_of_the_bootstrap_where_it_is_used(n, method):
    rng = np.random.default_rng(n)
    found = [bootstrap_interval(rng.normal(size=n), method=method, rounds=1000) for _ in range(800)]
    assert 0.93 <= np.mean([i.low <= 0 <= i.high for i in found]) <= 0.97


def test_a_skewed_mean_is_covered_better_by_the_bootstrap_than_by_t():
    rng = np.random.default_rng(5)
    samples = rng.exponential(size=(1500, 20))
    bca = np.mean([i.low <= 1 <= i.high for i in (mean_interval(x, rounds=1000) for x in samples)])
    t = np.mean([i.low <= 1 <= i.high for i in map(t_interval, samples)])
    assert t < bca - 0.01


def test_the_bootstrap_is_refused_where_it_under_covers():
    with pytest.raises(ValueError, match="t_interval"):
        bootstrap_interval(np.arange(10.0))
    assert mean_interval(np.arange(10.0)).method == "t"
    assert mean_interval(np.arange(11.0)).method == "bca"


def test_the_plain_percentile_bootstrap_does_under_cover_at_5():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 5))
    draws = x[:, rng.integers(0, 5, (400, 5))].mean(axis=2)
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.90


def test_bca_agrees_with_scipys_where_n_is_large():
    x = np.random.default_rng(1).exponential(size=400)
    expected = stats.bootstrap((x,), np.mean, method="BCa", n_resamples=4000, rng=np.random.default_rng(2))
    found = bootstrap_interval(x, rounds=4000)
    interval = expected.confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.008)


def test_the_bootstrap_takes_any_statistic():
    x = np.random.default_rng(2).normal(size=60)
    found = bootstrap_interval(x, lambda rows: np.median(rows, axis=-1))
    assert found.value == np.median(x)
    assert found.low < np.median(x) < found.high


def test_a_constant_sample_has_an_interval_of_no_width():
    found = mean_interval(np.full(30, 2.5))
    assert (found.value, found.low, found.high) == (2.5, 2.5, 2.5)


def test_the_bootstrap_depends_on_its_seed_alone():
    x = np.random.default_rng(3).normal(size=30)
    np.random.seed(1)
    first = bootstrap_interval(x, seed=7)
    np.random.seed(2)
    assert bootstrap_interval(x, seed=7) == first
    assert bootstrap_interval(x, seed=8) != first


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_statsmodels(counts):
    k, n = counts
    found = wilson_interval(k, n)
    assert (found.low, found.high) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)
    assert 0 <= found.low <= k / n <= found.high <= 1


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_wilson_covers_on_average_over_rates(n):
    rates = np.linspace(0.05, 0.95, 181)
    bounds = [wilson_interval(k, n) for k in range(n + 1)]
    cover = sum(
        stats.binom.pmf(k, n, rates) * ((b.low <= rates) & (rates <= b.high)) for k, b in enumerate(bounds)
    ).mean()
    assert 0.93 <= cover <= 0.97


def test_wilson_of_nothing_is_nan_and_nonsense_is_refused():
    assert math.isnan(wilson_interval(0, 0).value)
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(3, 2)


def test_the_medians_interval_by_hand():
    found = median_interval([5.0, 1.0, 4.0, 2.0, 3.0, 6.0])
    assert (found.value, found.low, found.high) == (3.5, 1.0, 6.0)  # P(all on one side) = 2 / 64 < 5%
    ten = median_interval(range(10))
    assert (ten.low, ten.high) == (1.0, 8.0)  # 2 * 11 / 1024 = 2.1%; one further in, 2 * 56 / 1024 = 10.9%
    few = median_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert few.value == 3.0
    assert math.isnan(few.low) and math.isnan(few.high)


@pytest.mark.parametrize("n", [6, 10, 15, 50])
def test_the_medians_interval_covers_whatever_the_distribution(n):
    x = np.random.default_rng(n).standard_cauchy((3000, n)) ** 3
    covered = np.mean([found.low <= 0 <= found.high for found in map(median_interval, x)])
    outside = next(2 * stats.binom.cdf(k, n, 0.5) for k in range(n, -1, -1) if 2 * stats.binom.cdf(k, n, 0.5) <= 0.05)
    assert covered == pytest.approx(1 - outside, abs=0.015)
    assert covered > 0.94


def test_tost_is_statsmodels_paired_and_welch():
    rng = np.random.default_rng(4)
    x, y = rng.normal(0.1, 1, 12), rng.normal(0, 2, 9)
    assert tost(x, 0.8).p == pytest.approx(ttost_paired(x, np.zeros(12), -0.8, 0.8)[0], abs=1e-12)
    assert tost(x, 2.0, y).p == pytest.approx(ttost_ind(x, y, -2.0, 2.0, usevar="unequal")[0], abs=1e-12)


@given(SAMPLES, st.floats(0.01, 100))
def test_equivalence_is_the_90_percent_interval_inside_the_margins(x, margin):
    found = tost(x, margin)
    inside = -margin < found.low and found.high < margin
    near = min(abs(found.low + margin), abs(found.high - margin)) < 1e-9 * (1 + margin)
    assert found.equivalent == inside or near


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_false_equivalence_at_the_margin_is_at_most_alpha(n):
    x = np.random.default_rng(n).normal(1.0, 0.6, (2000, n))
    assert np.mean([tost(row, 1.0).equivalent for row in x]) <= 0.062


def test_tost_refuses_what_it_cannot_judge():
    with pytest.raises(ValueError, match="margin"):
        tost([1.0, 2.0], 0.0)
    with pytest.raises(ValueError, match="two values"):
        tost([1.0], 0.5)


def test_degrees_of_freedom_of_a_sum():
    assert satterthwaite([2.0], [4]) == pytest.approx(4)
    assert satterthwaite([1.0] * 6, [3] * 6) == pytest.approx(6 * 4 - 1)
    assert satterthwaite([1.0, 1e-30], [2, 7]) == pytest.approx(2)
    assert satterthwaite([0.0, 0.0], [2, 7]) == 9


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("tasks", [2, 4, 10])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_coverage_of_a_sum_over_tasks_whose_noise_differs(n, tasks, spread):
    rng = np.random.default_rng(n)
    truth = np.exp(2 * spread * rng.normal(size=(40_000, tasks)))
    variances = truth * rng.chisquare(n - 1, truth.shape) / (n - 1)
    error = rng.normal(size=40_000) * np.sqrt(truth.sum(axis=1))
    df = satterthwaite(variances, n - 1)
    half = t_half_width(np.sqrt(variances.sum(axis=1)), 1, df=df)
    assert 0.93 <= np.mean(np.abs(error) <= half) <= 0.97


def test_one_task_that_is_noisier_than_all_others_is_covered_from_5_seeds_on():
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(20) == 0, 400.0, 1.0)
    hits = {}
    for n in (2, 5, 10):
        variances = truth * rng.chisquare(n - 1, (20_000, 20)) / (n - 1)
        error = rng.normal(size=20_000) * np.sqrt(truth.sum())
        half = t_half_width(np.sqrt(variances.sum(axis=1)), 1, df=satterthwaite(variances, n - 1))
        hits[n] = np.mean(np.abs(error) <= half)
    assert 0.85 <= hits[2] <= 0.88  # as stated: two seeds cannot tell which task is the noisy one
    assert 0.93 <= hits[5] <= 0.97
    assert 0.93 <= hits[10] <= 0.97


@pytest.mark.parametrize("value", [0.1, 0.3, -0.7, 0.994])
@pytest.mark.parametrize("n", [2, 3, 5, 6, 7])
def test_equal_values_are_their_own_mean_and_have_no_spread(value, n):
    assert exact_mean([value] * n) == value
    assert sample_sd([value] * n) == 0.0
    assert t_interval([value] * n)[:3] == (value, value, value)


def test_scores_near_the_end_of_the_floats_have_a_mean_and_a_spread():
    assert exact_mean([1e308, 1.5e308, 0.5e308]) == pytest.approx(1e308)
    assert sample_sd([1e200, 2e200, 4e200]) == pytest.approx(np.std([1.0, 2.0, 4.0], ddof=1) * 1e200)
    assert t_interval([1e200, 1.1e200]).low == pytest.approx(1e200 * t_interval([1.0, 1.1]).low)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_the_sample_sd_is_numpys(x):
    assert sample_sd(x) == pytest.approx(np.std(x, ddof=1), abs=1e-9)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5])
def test_a_level_in_percent_is_refused(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        t_interval([1.0, 2.0], level)
