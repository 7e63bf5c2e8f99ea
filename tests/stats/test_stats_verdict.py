"""Claims and the gate: by hand, and by simulated error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from suite.stats import (
    TableError,
    claim_table,
    claim_verdict,
    minimum_detectable_effect,
    t1_decision,
    t2_decision,
    unpaired_decision,
)
from suite.stats.verdict import GateDecision, fisher_exact


def test_claim_verdicts_by_hand():
    assert claim_verdict([1.0, 1.2, 0.9]).verdict == "holds"
    assert claim_verdict([-1.0, -1.2, -0.9]).verdict == "opposite"
    assert claim_verdict([1.0, -1.2, 0.4]).verdict == "does not separate"
    assert claim_verdict([1.0]).verdict == "not tested"
    assert claim_verdict([]).verdict == "not tested"
    assert claim_verdict([0.0, 0.0]).verdict == "does not separate"


def test_a_verdict_says_what_could_have_been_seen():
    found = claim_verdict([1.0, -1.2, 0.4])
    assert found.detectable == pytest.approx(minimum_detectable_effect(3, np.std([1.0, -1.2, 0.4], ddof=1)))
    assert found.low < 0 < found.high
    assert found.p == pytest.approx(stats.ttest_1samp([1.0, -1.2, 0.4], 0).pvalue)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=10))
def test_turning_a_claim_round_turns_its_verdict(d):
    there, back = claim_verdict(d), claim_verdict([-x for x in d])
    turned = {"holds": "opposite", "opposite": "holds", "does not separate": "does not separate"}
    assert back.verdict == turned[there.verdict]
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_a_wrong_sign_is_declared_in_at_most_half_alpha(n):
    d = np.random.default_rng(n).normal(size=(3000, n))
    found = [claim_verdict(row).verdict for row in d]
    assert found.count("holds") / 3000 == pytest.approx(0.025, abs=0.01)
    assert found.count("opposite") / 3000 == pytest.approx(0.025, abs=0.01)


def test_a_claim_over_tasks(simulate):
    runs, _ = simulate({"a": [0.8, 0.0, 0.8], "b": [0.0, 0.0, 0.0]}, 5, noise=0.02, seed=2)
    table = claim_table(runs, "a", "b").set_index("task")
    assert table["verdict"].to_dict() == {
        "t0000": "holds",
        "t0001": "does not separate",
        "t0002": "holds",
        "all": "holds",
    }
    raw = []
    for task in ("t0000", "t0001", "t0002"):
        part = runs[runs["task"] == task].pivot(index="seed", columns="method", values="score")
        raw.append(stats.ttest_rel(part["b"], part["a"]).pvalue)
        assert table.loc[task, "difference"] == pytest.approx((part["b"] - part["a"]).mean())
    expected = multipletests(raw, method="holm")[1]
    assert table["p"].tolist()[:3] == pytest.approx(expected.tolist())
    turned = claim_table(runs, "b", "a").set_index("task")
    assert turned.loc["all", "verdict"] == "opposite"
    assert claim_table(runs, "a", "b", tasks=["t0001"])["task"].tolist() == ["t0001", "all"]


def test_a_claim_about_stability_is_judged_by_failures(runs_of):
    scores = {"reference": [1.0] * 6, "calm": [1.0, 1.1, 0.9, 1.0, 1.0, 1.0], "wild": [None] * 6}
    table = claim_table(runs_of({"a": scores}), "calm", "wild").set_index("task")
    assert table.loc["a", "verdict"] == "holds"
    assert table.loc["a", "p"] == pytest.approx(stats.fisher_exact([[0, 6], [6, 0]]).pvalue)
    assert (table.loc["a", "failed_a"], table.loc["a", "failed_b"]) == (0, 6)
    assert table.loc["all", "verdict"] == "not tested"
    few = claim_table(runs_of({"a": {k: v[:2] for k, v in scores.items()}}), "calm", "wild").set_index("task")
    assert few.loc["a", "verdict"] == "does not separate"


def test_a_claim_without_runs_is_an_error_or_not_tested(runs_of):
    runs = runs_of({"a": {"reference": [1.0, 2.0], "m": [1.0]}})
    with pytest.raises(TableError, match="nobody"):
        claim_table(runs, "m", "nobody")
    assert set(claim_table(runs, "m", "reference")["verdict"]) == {"not tested"}


@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_fishers_test_is_scipys(n_a, n_b, data):
    a, b = data.draw(st.integers(0, n_a)), data.draw(st.integers(0, n_b))
    expected = stats.fisher_exact([[a, n_a - a], [b, n_b - b]]).pvalue
    assert fisher_exact(a, n_a, b, n_b) == pytest.approx(expected, abs=1e-9)


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
