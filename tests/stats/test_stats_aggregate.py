"""IQM, profiles and win rates: by hand, against scipy, and by simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from suite.stats import (
    Board,
    interquartile_mean,
    iqm,
    iqm_interval,
    pairwise_win_rates,
    performance_profile,
    profile_area,
    profiles,
    score_profiles,
    win_rate_interval,
    win_rates,
)

VALUES = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-100, 100))


@given(hnp.arrays(np.float64, st.integers(1, 10).map(lambda k: 4 * k), elements=st.floats(-100, 100)))
def test_iqm_is_the_quarter_trimmed_mean_where_quarters_are_whole(values):
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-9)


def test_iqm_by_hand_where_quarters_are_not_whole():
    assert interquartile_mean([5.0, 1.0]) == pytest.approx(3.0)
    assert interquartile_mean([0.0, 1.0, 10.0]) == pytest.approx((0.25 * 0 + 1 * 1 + 0.25 * 10) / 1.5)


@given(VALUES, st.integers(1, 5))
def test_iqm_with_weights_is_iqm_of_repeated_values(values, times):
    weights = np.arange(len(values)) % times + 1
    repeated = np.repeat(values, weights)
    assert interquartile_mean(values, weights) == pytest.approx(float(interquartile_mean(repeated)), abs=1e-7)


def test_iqm_refuses_a_value_that_is_missing():
    with pytest.raises(ValueError, match="finite"):
        interquartile_mean([1.0, np.nan])


def test_one_run_a_task_has_no_iqm_interval():
    found = iqm_interval([np.array([1.0]), np.array([2.0, 3.0])])
    assert math.isnan(found.low)
    assert found.value == pytest.approx(float(interquartile_mean([1.0, 2.0, 3.0], [1.0, 0.5, 0.5])))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("tasks", [4, 10])
def test_coverage_of_the_iqm_interval(n, tasks):
    rng = np.random.default_rng(100 * n + tasks)
    centre = rng.normal(0, 1.5, tasks)
    truth = float(interquartile_mean((centre[:, None] + rng.normal(size=(tasks, 20_000))).ravel()))
    hits = 0
    for _ in range(500):
        found = iqm_interval(list(centre[:, None] + rng.normal(size=(tasks, n))), rounds=400)
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 500 <= 0.975


def test_iqm_of_the_reference_is_zero_and_failed_runs_are_in_it(runs_of, rungs_of):
    runs = runs_of({"a": {"reference": [0.6, 0.61, 0.59, 0.6], "m": [0.5, 0.51, None, None]}})
    ladder = rungs_of({"a": {0.25: [1.0, 1.0], 0.5: [0.8, 0.8], 2.0: [0.5, 0.5], 4.0: [0.45, 0.45]}})
    table = iqm(runs, ladder).set_index("method")
    assert table.loc["reference", ["iqm", "low", "high"]].tolist() == [0, 0, 0]
    assert table.loc["m", "n"] == 4
    assert table.loc["m", "iqm"] == pytest.approx((-2 + 1) / 2)


def test_adding_a_method_leaves_iqm_and_win_rate_of_the_others_bit_equal(mixed_board):
    runs, ladder = mixed_board
    more = runs[runs["method"] == "m1"].assign(method="newcomer", seed=lambda t: t["seed"] + 2)
    for function in (lambda r: iqm(r, ladder), win_rates):
        after = function(pd.concat([runs, more]))
        others = after[after["method"] != "newcomer"].reset_index(drop=True)
        pd.testing.assert_frame_equal(others, function(runs), check_exact=True)


def test_performance_profile_by_hand():
    costs = np.array([[1.0, 4.0, 2.0], [2.0, 1.0, np.inf], [1.0, 3.0, 8.0]])
    found = performance_profile(costs, [1.0, 2.0, 3.0, 4.0])
    assert found[0] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1])
    assert found[1] == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert found[2] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1])


def test_a_task_that_every_method_failed_is_done_by_none():
    found = performance_profile(np.array([[1.0, np.inf], [2.0, np.inf]]), [1.0, 100.0])
    assert found.tolist() == [[0.5, 0.5], [0.0, 0.5]]


def test_a_cost_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        performance_profile([[0.0, 1.0]])


@given(hnp.arrays(np.float64, (4, 6), elements=st.floats(0.01, 100)))
def test_a_profile_rises_and_someone_is_best_everywhere(costs):
    found = performance_profile(costs)
    assert np.all(np.diff(found, axis=1) >= 0)
    assert found[:, 0].sum() >= 1 - 1e-9
    assert np.all((profile_area(found) >= 0) & (profile_area(found) <= 1))


def test_profile_area_is_the_trapezoid_rule():
    taus = np.array([1.0, 2.0, 4.0])
    assert profile_area([0.0, 0.5, 1.0], taus) == pytest.approx((0.25 + 1.5) / 3)


def test_profiles_of_a_board_come_from_its_speedups(mixed_board):
    runs, ladder = mixed_board
    board = Board.of(runs, ladder)
    table = profiles(board).pivot(index="method", columns="tau", values="share")
    best = (board.values == board.values.max(axis=0)).mean(axis=1)
    assert table[1.0].to_numpy() == pytest.approx(best)
    with pytest.raises(ValueError, match="ladder"):
        profiles(runs)


def test_score_profiles_are_shares_of_runs_above_tau(runs_of, rungs_of):
    runs = runs_of({"a": {"reference": [0.6, 0.6], "m": [0.5, 0.55]}, "b": {"reference": [0.6, 0.6], "m": [0.5, None]}})
    rungs = {0.25: [1.0], 0.5: [0.8], 2.0: [0.5], 4.0: [0.45]}
    table = score_profiles(runs, rungs_of({"a": rungs, "b": rungs}), [-2.0, 0.0, 0.75, 1.5])
    m = table[table["method"] == "m"]
    assert m["share"].tolist() == [0.75, 0.75, 0.5, 0.0]
    assert (m["low"] <= m["share"]).all()
    assert (m["share"] <= m["high"]).all()


def test_win_rates_by_hand_with_ties_and_failures(runs_of):
    runs = runs_of({"a": {"reference": [1.0, 1.0, 1.0, None, None], "m": [0.9, 1.0, None, 0.5, None]}})
    row = win_rates(runs).iloc[0]
    assert row["win_rate"] == pytest.approx((1 + 0.5 + 0 + 1 + 0.5) / 5)
    assert row["pairs"] == 5


def test_every_task_weighs_the_same_in_a_win_rate(runs_of):
    runs = runs_of({"a": {"reference": [1.0] * 9, "m": [0.5] * 9}, "b": {"reference": [1.0], "m": [2.0]}})
    assert win_rates(runs).iloc[0]["win_rate"] == 0.5


def test_pairwise_win_rates_add_up_to_one(mixed_board):
    table = pairwise_win_rates(mixed_board[0])
    values = table.to_numpy()
    off = ~np.eye(len(values), dtype=bool)
    assert (values + values.T)[off] == pytest.approx(np.ones(off.sum()))
    versus = win_rates(mixed_board[0]).set_index("method")["win_rate"]
    assert table["reference"].drop("reference").to_dict() == pytest.approx(versus.to_dict())


def test_one_task_gives_wilsons_interval():
    found = win_rate_interval(np.array([0.8]), np.array([5.0]))
    assert (found.low, found.high) == pytest.approx(stats.binomtest(4, 5).proportion_ci(method="wilson"))


@pytest.mark.parametrize(("tasks", "most"), [(5, 1.0), (10, 0.985), (30, 0.98)])
@pytest.mark.parametrize("shape", [(2, 2), (5, 1)])
def test_a_win_rate_over_tasks_is_covered(tasks, most, shape):
    rng = np.random.default_rng(tasks)
    rates = rng.beta(*shape, (1500, tasks))
    wins = rng.binomial(5, rates) / 5
    truth = shape[0] / sum(shape)
    found = [win_rate_interval(row, np.full(tasks, 5.0)) for row in wins]
    assert 0.93 <= np.mean([i.low <= truth <= i.high for i in found]) <= most
