"""The gate's verdicts: by hand, and by simulated error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from suite.stats import t1_decision, t2_decision, unpaired_decision
from suite.stats.verdict import GateDecision

BASE = np.array([1.0, 1.1, 0.9, 1.05, 0.95])


def test_the_gate_passes_what_is_shown_to_be_within_the_margin():
    found = t1_decision(BASE, BASE + np.array([0.01, -0.01, 0.0, 0.02, -0.02]), 0.1)
    assert found.verdict == "PASS"
    d = np.array([0.01, -0.01, 0.0, 0.02, -0.02])
    assert found.upper == pytest.approx(d.mean() + stats.t.ppf(0.95, 4) * stats.sem(d))
    assert found.p == pytest.approx(stats.ttest_1samp(d, 0, alternative="greater").pvalue)


def test_the_gate_fails_what_is_worse_by_more_than_the_margin():
    found = t1_decision(BASE, BASE + np.array([0.3, 0.28, 0.32, 0.31, 0.29]), 0.1)
    assert (found.verdict, found.n, found.margin) == ("FAIL", 5, 0.1)


def test_the_gate_leaves_open_what_it_cannot_tell():
    assert t1_decision(BASE, BASE + np.array([0.3, -0.2, 0.4, -0.1, 0.2]), 0.1).verdict == "INCONCLUSIVE"
    assert t1_decision(BASE, BASE + np.array([0.05, 0.06, 0.05, 0.06, 0.13]), 0.1).verdict == "INCONCLUSIVE"
    assert t1_decision([1.0], [5.0], 0.1).verdict == "INCONCLUSIVE"


def test_worse_means_lower_where_higher_is_better():
    worse = BASE - [0.3, 0.28, 0.32, 0.31, 0.29]
    assert t1_decision(BASE, worse, 0.1, "max").verdict == "FAIL"
    assert t1_decision(BASE, worse, 0.1, "min").verdict == "PASS"


def test_identical_runs_pass_and_a_constant_regression_fails():
    assert t1_decision(BASE, BASE, 0.1).verdict == "PASS"
    assert t1_decision(BASE, BASE, 0.1).mean == 0
    assert t1_decision(np.zeros(5), np.full(5, 0.25), 0.1).verdict == "FAIL"


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(0.01, 5), st.floats(0.1, 10))
def test_the_gates_verdict_does_not_depend_on_the_unit(d, margin, scale):
    plain = t1_decision(np.zeros(len(d)), d, margin)
    scaled = t1_decision(np.zeros(len(d)), scale * np.array(d), scale * margin)
    tight = min(abs(plain.upper - margin), abs(plain.mean - margin)) < 1e-9 or abs(plain.p - 0.05) < 1e-9
    assert scaled.verdict == plain.verdict or tight


@pytest.mark.parametrize(
    ("base", "head", "margin", "direction", "word"),
    [
        ([1.0, 2.0], [1.0], 0.1, "min", "same seeds"),
        ([1.0, 2.0], [1.0, math.nan], 0.1, "min", "counts"),
        ([1.0, 2.0], [1.0, 2.0], 0.0, "min", "margin"),
        ([1.0, 2.0], [1.0, 2.0], 0.1, "down", "direction"),
    ],
)
def test_the_gate_refuses_what_it_cannot_judge(base, head, margin, direction, word):
    with pytest.raises(ValueError, match=word):
        t1_decision(base, head, margin, direction)


def test_unpaired_seeds_are_held_by_welchs_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 30), rng.normal(0.8, 2, 40)
    found = unpaired_decision(a, b, 0.1)
    expected = stats.ttest_ind(b, a, equal_var=False, alternative="greater")
    assert found.mean == pytest.approx(b.mean() - a.mean())
    assert found.p == pytest.approx(expected.pvalue, rel=0.05)
    mirrored = stats.ttest_ind(a, b, equal_var=False, alternative="greater").confidence_interval(0.95).low
    assert found.upper == pytest.approx(-mirrored, rel=0.01)
    worse = unpaired_decision(BASE, BASE + 0.5, 0.1)
    assert (worse.verdict, worse.n) == ("FAIL", 5)
    assert unpaired_decision(BASE, BASE + 0.5, 0.1, "max").verdict == "PASS"
    assert unpaired_decision(BASE, BASE + 0.11, 0.1).verdict == "INCONCLUSIVE"
    assert unpaired_decision([1.0, 1.0], [2.0, 2.0], 0.1).verdict == "FAIL"
    with pytest.raises(ValueError, match="two scores a side"):
        unpaired_decision([1.0], [1.0, 2.0], 0.1)


@pytest.mark.parametrize(
    ("first", "second", "final"),
    [
        ("PASS", "FAIL", "PASS"),
        ("FAIL", "FAIL", "FAIL"),
        ("FAIL", "PASS", "PASS"),
        ("FAIL", "INCONCLUSIVE", "INCONCLUSIVE"),
        ("INCONCLUSIVE", "FAIL", "INCONCLUSIVE"),
        ("INCONCLUSIVE", "PASS", "PASS"),
    ],
)
def test_the_second_batch_confirms_or_clears(first, second, final):
    decisions = [GateDecision(v, 0.0, 0.0, 0.5, 0.1, 5, 0.1) for v in (first, second)]
    assert t2_decision(*decisions) == final


@pytest.mark.parametrize(
    ("base", "margin", "direction", "word"),
    [([1.0, math.nan], 0.1, "min", "counts"), ([1.0, 2.0], 0.0, "min", "margin"), ([1.0, 2.0], 0.1, "up", "direction")],
)
def test_the_gate_refuses_unpaired_runs_that_it_cannot_judge(base, margin, direction, word):
    with pytest.raises(ValueError, match=word):
        unpaired_decision(base, [1.0, 2.0], margin, direction)
