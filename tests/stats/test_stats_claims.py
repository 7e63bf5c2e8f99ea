"""Claims and comparisons: by hand, and by simulated error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from suite.stats import (
    Board,
    Cells,
    TableError,
    claim_table,
    claim_verdict,
    comparison_table,
    margin_verdict,
    minimum_detectable_effect,
    noise_margin,
    tost,
)
from suite.stats.claims import fisher_exact


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
    assert table.loc["all", "verdict"] == "holds"
    assert table.loc["all", "p"] == pytest.approx(table.loc["a", "p"])  # one task's combined test is its own
    few = claim_table(runs_of({"a": {k: v[:2] for k, v in scores.items()}}), "calm", "wild").set_index("task")
    assert few.loc["a", "verdict"] == "does not separate"
    assert few.loc["all", "verdict"] == "does not separate"


def test_tasks_decided_by_scores_and_by_failures_are_combined_by_stouffer(runs_of):
    a, b = [1.0, 1.2, 0.9, 1.1], [1.4, 1.7, 1.2, 1.6]
    runs = runs_of({"by-score": {"a": a, "b": b}, "by-failure": {"a": a, "b": [None] * 4}})
    table = claim_table(runs, "a", "b").set_index("task")
    p = [stats.fisher_exact([[0, 4], [4, 0]]).pvalue, stats.ttest_rel(a, b).pvalue]
    assert table.loc["all", "p"] == pytest.approx(2 * stats.combine_pvalues(np.array(p) / 2, "stouffer").pvalue)
    assert table.loc["all", "verdict"] == "holds"
    d = np.subtract(b, a) / np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
    assert table.loc["all", "difference"] == pytest.approx(d.mean())  # of the task that has one


def test_arms_that_hardly_spread_are_measured_by_the_floor_of_the_task(runs_of):
    tight = {"a": [1.0, 1.0 + 1e-8, 1.0 - 1e-8], "b": [1.02, 1.02 - 1e-8, 1.02 + 2e-8]}
    wide = {"a": [1.0, 1.3, 0.8], "b": [1.4, 1.5, 1.3]}
    runs, floors = runs_of({"tight": tight, "wide": wide}), {"tight": 0.01, "wide": 0.01}
    found = claim_table(runs, "a", "b", floors=floors).set_index("task")
    pooled = np.sqrt((np.var(wide["a"], ddof=1) + np.var(wide["b"], ddof=1)) / 2)
    wanted = (0.02 / 0.01 + np.mean(np.subtract(wide["b"], wide["a"])) / pooled) / 2
    assert found.loc["all", "difference"] == pytest.approx(wanted, rel=1e-5)
    alone = claim_table(runs, "a", "b", ["tight"], floors=floors).set_index("task")
    plain = claim_table(runs, "a", "b", ["tight"]).set_index("task")
    assert plain.loc["all", "difference"] > 1e5
    assert (alone.loc["all", "p"], alone.loc["all", "verdict"]) == (
        pytest.approx(plain.loc["all", "p"]), plain.loc["all", "verdict"],
    )  # fmt: skip
    assert alone.loc["tight"].equals(plain.loc["tight"])


def test_the_arm_that_failed_more_often_is_not_called_better(runs_of):
    scores = {"shaky": [1.0, 1.1, 0.9, None, None], "firm": [2.0, 2.1, 1.9, 2.0, 2.0]}
    lower = claim_table(runs_of({"t": scores}, "min"), "shaky", "firm")
    assert lower["verdict"].tolist() == ["does not separate", "does not separate"]
    turned = claim_table(runs_of({"t": scores}, "min"), "firm", "shaky")
    assert turned["verdict"].tolist() == ["does not separate", "does not separate"]
    higher = claim_table(runs_of({"t": scores}, "max"), "shaky", "firm")
    assert higher["verdict"].tolist() == ["opposite", "opposite"]
    fair = claim_table(runs_of({"t": scores | {"firm": [2.0, 2.1, 1.9, 2.0, None, None]}}), "shaky", "firm")
    assert fair.loc[0, "verdict"] == "does not separate"  # 2 of 5 against 2 of 6
    even = claim_table(runs_of({"t": scores | {"firm": [2.0, 2.1, 1.9, None, None]}}), "shaky", "firm")
    assert even["verdict"].tolist() == ["holds", "holds"]


def test_runs_without_spread_are_judged_by_the_tasks_tests(runs_of):
    table = claim_table(runs_of({"t": {"a": [0.0] * 3, "b": [1.0] * 3}}), "a", "b").set_index("task")
    assert table["verdict"].to_dict() == {"t": "holds", "all": "holds"}
    assert table.loc["t", "difference"] == 1.0
    assert math.isnan(table.loc["all", "low"])
    same = claim_table(runs_of({"t": {"a": [1.0] * 3, "b": [1.0] * 3}}), "a", "b")
    assert same["verdict"].tolist() == ["does not separate"] * 2


def test_a_whole_that_a_task_contradicts_does_not_separate(runs_of):
    base = [1.0, 1.2, 0.9, 1.1, 1.05]
    scores = {f"t{i}": {"a": [x - 0.5 for x in base], "b": base} for i in range(3)}
    runs = runs_of(scores | {"odd": {"a": [x + 0.2 for x in base], "b": base}})
    table = claim_table(runs, "a", "b").set_index("task")
    assert table["verdict"].to_dict() == {
        "odd": "opposite", "t0": "holds", "t1": "holds", "t2": "holds", "all": "does not separate",
    }  # fmt: skip
    assert table.loc["all", "low"] > 0  # the interval is shown as it is
    assert claim_table(runs, "a", "b", ["t0", "t1", "t2"])["verdict"].tolist() == ["holds"] * 4


# ---------------------------------------------------------------- margins


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=12), st.floats(0.1, 3))
def test_equality_is_two_one_sided_tests(d, margin):
    found = margin_verdict(d, margin)
    known = tost(d, margin)
    assert (found.verdict == "holds") == known.equivalent
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    if np.std(d) > 1e-6:
        assert found.p == pytest.approx(known.p, abs=1e-9)
        assert found.p == pytest.approx(ttost_paired(np.array(d), np.zeros(len(d)), -margin, margin)[0], abs=1e-9)


def test_margin_verdicts_by_hand():
    d = [0.1, -0.1, 0.05, -0.05]
    assert margin_verdict(d, 0.5).verdict == "holds"
    assert margin_verdict(d, 0.05).verdict == "does not separate"
    assert margin_verdict([2.1, 1.9, 2.0], 0.5).verdict == "opposite"
    assert margin_verdict([-2.1, -1.9, -2.0], 0.5).verdict == "opposite"
    assert margin_verdict([2.1, 1.9, 2.0], 0.5, "no worse").verdict == "holds"
    assert margin_verdict([-2.1, -1.9, -2.0], 0.5, "no worse").verdict == "opposite"
    assert margin_verdict([0.2], 0.5).verdict == "not tested"
    assert margin_verdict([0.0, 0.0, 0.0], 0.0).verdict == "holds"
    assert margin_verdict([0.0, 0.0, 0.1], 0.0).verdict == "does not separate"
    with pytest.raises(ValueError, match="margin"):
        margin_verdict(d, -1.0)


def test_a_margin_verdict_says_which_margin_the_runs_could_have_shown():
    d = [0.3, -0.1, 0.2, 0.1]
    within = margin_verdict(d, 0.01).detectable
    assert margin_verdict(d, within * 1.001).verdict == "holds"
    assert margin_verdict(d, within * 0.999).verdict == "does not separate"
    one_sided = margin_verdict(d, 0.01, "no worse").detectable
    assert one_sided < within
    assert margin_verdict(d, one_sided * 1.001, "no worse").verdict == "holds"


def simulated_board(rng, tasks, seeds, shift=0.0, shared=0.7, fail=0.0, scale=None):
    """Board of arms a and b: noise of sd `scale` a task, `shared` of it common to a seed, a better by `shift` sd."""
    sd = np.ones(tasks) if scale is None else np.asarray(scale, dtype=float)
    common = rng.normal(size=(1, tasks, seeds)) * shared
    u = common + rng.normal(size=(2, tasks, seeds)) * np.sqrt(1 - shared**2)
    u[0] += shift
    u *= sd[:, None]
    failed = rng.random(u.shape) < fail
    u[failed] = np.nan
    names = tuple(f"t{t}" for t in range(tasks))
    return Board(Cells(("a", "b"), names, ("",) * tasks, np.arange(seeds), u, failed))


def rates(boards, **options):
    """Shares of the boards on which any task, and all tasks together, hold and are opposite."""
    found = {"any holds": 0, "any opposite": 0, "all holds": 0, "all opposite": 0}
    for board in boards:
        verdicts = claim_table(board, "a", "b", **options)["verdict"].tolist()
        for word in ("holds", "opposite"):
            found[f"any {word}"] += word in verdicts[:-1]
            found[f"all {word}"] += verdicts[-1] == word
    return {name: count / len(boards) for name, count in found.items()}


@pytest.mark.parametrize(("tasks", "seeds", "fail"), [(1, 5, 0.0), (4, 3, 0.0), (4, 5, 0.0), (3, 5, 0.4), (3, 4, 0.9)])
def test_a_difference_that_is_not_there_is_declared_in_at_most_alpha(tasks, seeds, fail):
    rng = np.random.default_rng(tasks * 100 + seeds)
    boards = [simulated_board(rng, tasks, seeds, fail=fail, scale=np.geomspace(1, 20, tasks)) for _ in range(400)]
    found = rates(boards)
    for word in ("any holds", "any opposite", "all holds", "all opposite"):
        assert found[word] <= 0.025 + 0.02, found  # half of alpha and two standard errors of 400 draws


def test_a_difference_that_is_there_is_found_by_all_tasks_together():
    rng = np.random.default_rng(1)
    boards = [simulated_board(rng, 4, 5, shift=1.0) for _ in range(100)]
    found = rates(boards)
    assert found["all holds"] > 0.9
    assert found["all opposite"] == 0


@pytest.mark.parametrize("kind", ["equal", "no worse"])
@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_a_difference_of_the_margin_is_called_none_in_at_most_alpha(kind, measured, shared):
    rng = np.random.default_rng(7)
    boards = [simulated_board(rng, 1, 10, shift=-1.0, shared=shared) for _ in range(400)]
    found = rates(boards, kind=kind, margins={"t0": 1.0} if measured else None)
    assert found["any holds"] == found["all holds"] <= 0.05 + 0.02


def test_equal_arms_are_called_equal_once_there_are_seeds_enough():
    rng = np.random.default_rng(8)
    boards = [simulated_board(rng, 2, 20, shared=0.7) for _ in range(100)]
    found = rates(boards, kind="equal", margins={"t0": 1.0, "t1": 1.0})
    assert found["all holds"] > 0.9
    assert found["all opposite"] == 0


def test_a_claim_of_equality_needs_every_task(runs_of):
    base = [1.0, 1.2, 0.9, 1.1, 1.05]
    far = [x + 3.0 for x in base]
    runs = runs_of({"near": {"a": base, "b": base}, "far": {"a": base, "b": far}})
    margins = {"near": 0.1, "far": 0.1}
    table = claim_table(runs, "a", "b", kind="equal", margins=margins).set_index("task")
    assert table["verdict"].to_dict() == {"near": "holds", "far": "opposite", "all": "opposite"}
    assert table.loc["near", "margin"] == 0.1
    kept = claim_table(runs, "a", "b", ["near"], kind="equal", margins=margins).set_index("task")
    assert kept.loc["all", "verdict"] == "holds"
    worse = claim_table(runs, "a", "b", kind="no worse", margins=margins).set_index("task")
    assert worse["verdict"].to_dict() == {"near": "holds", "far": "holds", "all": "holds"}


def test_failures_on_one_side_are_no_equality(runs_of):
    base = [1.0, 1.2, 0.9, 1.1, 1.05]
    one = claim_table(runs_of({"t": {"a": [*base[:4], None], "b": base}}), "a", "b", kind="equal", margins={"t": 1.0})
    assert one["verdict"].tolist() == ["does not separate", "does not separate"]
    none = claim_table(runs_of({"t": {"a": [None] * 5, "b": base}}), "a", "b", kind="equal", margins={"t": 1.0})
    assert none["verdict"].tolist() == ["opposite", "opposite"]


def test_the_margin_of_unmeasured_noise_is_a_lower_bound_of_the_pooled_sd():
    rng = np.random.default_rng(2)
    low = [noise_margin(*rng.normal(size=(2, 5))) < 1.0 for _ in range(1000)]
    assert np.mean(low) == pytest.approx(0.95, abs=0.02)
    x, y = [1.0, 2.0, 4.0], [0.0, 0.5, 0.1, 0.2]
    pooled = (np.var(x, ddof=1) * 2 + np.var(y, ddof=1) * 3) / 5
    assert noise_margin(x, y) == pytest.approx(np.sqrt(pooled * 5 / stats.chi2.ppf(0.95, 5)))
    assert math.isnan(noise_margin([1.0], [1.0, 2.0]))


# ---------------------------------------------------------------- comparisons


def test_a_comparison_by_hand(runs_of):
    a, b = [0.50, 0.54, 0.47, 0.52], [0.60, 0.66, 0.55, 0.64]
    runs = runs_of({"t": {"a": a, "b": b, "c": [None] * 4, "d": [0.5, None, 0.5, 0.5]}}, direction="max")
    table = comparison_table(runs, ["a", "b", "c", "d"]).set_index("method")
    assert table["verdict"].to_dict() == {"a": "", "b": "better", "c": "failed", "d": "does not separate"}
    assert table["failed"].tolist() == [0, 0, 4, 1]
    assert table["n"].tolist() == [4, 4, 0, 3]
    found = table.loc["b"]
    known = stats.ttest_rel(b, a)
    assert (found["t"], found["p"]) == pytest.approx((known.statistic, known.pvalue))
    assert (found["low"], found["high"]) == pytest.approx(tuple(known.confidence_interval()))
    assert found["difference"] == pytest.approx(np.mean(b) - np.mean(a))
    assert found["score"] == pytest.approx(np.mean(b))
    assert (found["score_low"], found["score_high"]) == pytest.approx(
        stats.t.interval(0.95, 3, np.mean(b), stats.sem(b))
    )
    assert found["detectable"] == pytest.approx(minimum_detectable_effect(4, np.std(np.subtract(b, a), ddof=1)))


def test_a_difference_is_signed_so_that_plus_is_better(runs_of):
    runs = runs_of({"t": {"a": [0.5, 0.6, 0.4], "b": [0.3, 0.39, 0.22]}}, direction="min")
    there = comparison_table(runs, ["a", "b"]).set_index("method").loc["b"]
    back = comparison_table(runs, ["b", "a"]).set_index("method").loc["a"]
    assert there["difference"] > 0
    assert (there["verdict"], back["verdict"]) == ("better", "worse")
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["score"] == pytest.approx(np.mean([0.3, 0.39, 0.22]))


def test_one_seed_separates_nothing_and_a_method_that_was_not_run_has_no_row(runs_of):
    runs = runs_of({"s": {"a": [1.0], "b": [2.0]}, "t": {"a": [1.0, 2.0], "c": [1.0, 2.0]}})
    table = comparison_table(runs, ["a", "b", "c"])
    assert list(zip(table["task"], table["method"], strict=True)) == [("s", "a"), ("s", "b"), ("t", "a"), ("t", "c")]
    assert table["verdict"].tolist() == ["", "does not separate", "", "does not separate"]
    assert table.loc[1, "detectable"] == math.inf
    with pytest.raises(TableError, match="nobody"):
        comparison_table(runs, ["nobody", "a"])


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


def test_arms_that_never_vary_are_no_enormous_difference_in_sd(runs_of):
    stuck = {"a": [0.1] * 3, "b": [0.9] * 3}  # 0.1 has no exact double: numpy's sd of it is 1e-17
    table = claim_table(runs_of({"stuck": stuck, "t": {"a": [1.0, 1.3, 1.1], "b": [1.2, 1.0, 1.1]}}), "a", "b")
    assert table["verdict"].tolist() == ["holds", "does not separate", "holds"]
    assert table["n"].tolist() == [3, 3, 2]
    assert abs(table.loc[2, "difference"]) < 1
    assert table.loc[0, "detectable"] == 0.0
    alone = claim_table(runs_of({"stuck": stuck}), "a", "b").set_index("task")
    assert math.isnan(alone.loc["all", "low"])
    assert noise_margin(stuck["a"], stuck["b"]) == 0.0


def test_a_kind_of_claim_that_is_none_is_refused(runs_of):
    with pytest.raises(ValueError, match="better, equal, no worse"):
        claim_table(runs_of({"t": {"a": [1.0, 2.0], "b": [1.0, 2.0]}}), "a", "b", kind="beter")
    with pytest.raises(ValueError, match="no worse"):
        margin_verdict([1.0, 2.0], 1.0, "better")
    with pytest.raises(ValueError, match="finite"):
        margin_verdict([1.0, 2.0], math.inf)
