"""Paired differences: by hand, against scipy, exact tests, and what pairing saves."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from suite.stats import paired_differences, paired_summary, paired_test, pairing_gain, sign_flip_test

PAIRS = hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(2, 9)), elements=st.floats(-100, 100))


def test_differences_are_signed_so_that_plus_is_better(runs_of):
    scores = {"a": {"reference": [1.0, 2.0], "m": [0.75, 2.5]}}
    low = paired_differences(runs_of(scores, "min"))
    high = paired_differences(runs_of(scores, "max"))
    assert low["difference"].tolist() == [0.25, -0.5]
    assert high["difference"].tolist() == [-0.25, 0.5]


def test_only_seeds_that_both_finished_are_paired_and_the_others_counted(runs_of):
    runs = runs_of({"a": {"reference": [1.0, None, 1.0, 1.5], "m": [None, 0.5, 0.75, 1.0]}})
    assert paired_differences(runs)["seed"].tolist() == [2, 3]
    row = paired_summary(runs).iloc[0]
    assert (row["n"], row["failed"], row["reference_failed"]) == (2, 1, 1)
    assert row["difference"] == 0.375


def test_a_cell_without_pairs_is_kept_with_nan(runs_of):
    row = paired_summary(runs_of({"a": {"reference": [1.0, 1.1], "m": [None, None]}})).iloc[0]
    assert row["n"] == 0
    assert row["failed"] == 2
    assert math.isnan(row["difference"])


@given(PAIRS)
def test_the_paired_t_test_is_scipys(pair):
    a, b = pair
    found = paired_test(a, b)
    d = a - b
    if d.std() > 1e-9 * (1 + np.abs(d).max()):
        expected = stats.ttest_rel(a, b)
        assert found.t == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-12)
        interval = expected.confidence_interval(0.95)
        assert (found.difference.low, found.difference.high) == pytest.approx((interval.low, interval.high), abs=1e-7)


def test_without_any_spread_t_is_infinite_or_zero():
    assert paired_test([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])[1:3] == (math.inf, 0.0)
    assert paired_test([1.0, 2.0], [1.0, 2.0])[1:3] == (0.0, 1.0)
    assert math.isnan(paired_test([1.0], [0.5]).t)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="same seeds"):
        paired_test([1.0, 2.0], [1.0])


@given(hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(-10, 10)), st.sampled_from(["two", "greater"]))
def test_sign_flips_are_counted_by_brute_force(d, side):
    sums = [float(np.dot(signs, d)) for signs in itertools.product([-1, 1], repeat=len(d))]
    slack = 1e-12 * np.abs(d).sum()
    if side == "two":
        hits = sum(abs(s) >= abs(d.sum()) - slack for s in sums)
    else:
        hits = sum(s >= d.sum() - slack for s in sums)
    assert sign_flip_test(d, side) == hits / 2 ** len(d)


def test_sign_flips_agree_with_scipys_permutation_test():
    d = np.random.default_rng(0).normal(0.5, 1, 9)
    expected = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(d) == pytest.approx(expected.pvalue)


def test_sign_flips_by_hand():
    assert sign_flip_test([1.0] * 5) == 2 / 32
    assert sign_flip_test([1.0] * 5, "greater") == 1 / 32
    assert sign_flip_test([1.0] * 5, "less") == 1
    assert sign_flip_test([1.0, -1.0]) == 1


def test_many_pairs_are_sampled_and_never_give_zero():
    d = np.random.default_rng(1).normal(3, 1, 30)
    assert sign_flip_test(d, rounds=999) == 1 / 1000
    null = np.random.default_rng(2).normal(0, 1, 30)
    assert sign_flip_test(null) == pytest.approx(stats.ttest_1samp(null, 0).pvalue, abs=0.02)


@pytest.mark.parametrize("n", [5, 6, 8])
def test_t_and_sign_flips_keep_their_level_at_few_seeds(n):
    d = np.random.default_rng(n).normal(size=(4000, n))
    t = [paired_test(row, np.zeros(n)) for row in d[:2000]]
    assert np.mean([x.p < 0.05 for x in t]) == pytest.approx(0.05, abs=0.015)
    assert np.mean([x.p_exact <= 0.05 for x in t]) <= 0.065
    one_sided = np.mean([sign_flip_test(row, "greater") <= 0.05 for row in d])
    assert one_sided <= 0.062


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_coverage_of_the_paired_interval(simulate, n):
    runs, _ = simulate({"m": np.full(1500, 0.5)}, n, seed=n)
    table = paired_summary(runs)
    truth = 0.1 * 0.5
    assert np.mean((table["low"] <= truth) & (truth <= table["high"])) == pytest.approx(0.95, abs=0.02)


def test_the_variance_cut_is_the_ratio_of_standard_deviations():
    a, b = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 4.5])
    found = paired_test(a, b)
    expected = np.std(a - b, ddof=1) / math.sqrt(np.var(a, ddof=1) + np.var(b, ddof=1))
    assert found.variance_cut == pytest.approx(expected)


def test_pairing_gain_recovers_the_shared_noise(simulate):
    runs, _ = simulate({f"m{i}": np.zeros(3) for i in range(4)}, 500, shared=0.8, seed=1)
    gain = pairing_gain(runs)
    assert gain["ratio"].tolist() == pytest.approx([math.sqrt(1 - 0.64)] * 3, abs=0.04)
    assert gain["cells"].tolist() == [4, 4, 4]


def test_arms_that_never_vary_have_no_variance_cut(runs_of):
    assert math.isnan(paired_test([0.1] * 3, [0.9] * 3).variance_cut)
    assert pairing_gain(runs_of({"t": {"reference": [0.1] * 3, "m": [0.9] * 3}})).empty
