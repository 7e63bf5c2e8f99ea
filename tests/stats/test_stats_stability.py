"""Leave-one-out and the agreement of aggregates, by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from suite.stats import (
    leave_one_method_out,
    leave_one_task_out,
    metric_agreement,
    rank_agreement,
    stability_summary,
    suite_speedups,
)
from suite.stats.stability import kendall_tau, suite_score


def test_leaving_out_the_deciding_task_swaps_the_methods(simulate):
    effects = {"steady": [0.3, 0.3, 0.3], "lucky": [0.0, 0.0, 1.8]}
    runs, ladder = simulate(effects, 4, noise=0.001)
    changes = leave_one_task_out(runs, ladder)
    table = changes.pivot(index="left_out", columns="method", values="rank")
    assert table.loc["t0000", ["lucky", "steady"]].tolist() == [1, 2]
    assert table.loc["t0002", "steady"] == 1
    summary = stability_summary(changes).set_index("method")
    assert summary.loc["steady", ["best", "worst", "largest_change"]].tolist() == [1, 2, 1]
    assert summary.loc["steady", "decisive"] == "t0002"
    assert summary.loc["lucky", "decisive"] == "t0002"


def test_the_rank_without_a_task_is_the_rank_of_the_board_without_it(mixed_board):
    runs, ladder = mixed_board
    changes = leave_one_task_out(runs, ladder)
    part = suite_speedups(runs[runs["task"] != "t0003"], ladder).set_index("method")["speedup"]
    expected = part.rank(ascending=False).to_dict()
    got = changes[changes["left_out"] == "t0003"].set_index("method")["rank"].to_dict()
    assert got == expected


def test_the_headlines_order_survives_leaving_any_method_out(mixed_board):
    runs, ladder = mixed_board
    assert (leave_one_method_out(runs, ladder, suite_score)["change"] == 0).all()


def test_mean_ranks_can_turn_when_a_third_method_leaves(runs_of):
    scores = {
        "a": {"reference": [9.0, 9.0], "x": [3.0, 3.0], "y": [2.0, 2.0], "z": [5.0, 5.0]},
        "b": {"reference": [9.0, 9.0], "x": [1.0, 1.0], "y": [4.0, 4.0], "z": [2.5, 2.5]},
        "c": {"reference": [9.0, 9.0], "x": [3.0, 3.0], "y": [2.0, 2.0], "z": [5.0, 5.0]},
    }
    changes = leave_one_method_out(runs_of(scores))
    assert set(changes["left_out"]) == {"x", "y", "z"}
    without_z = changes[changes["left_out"] == "z"].set_index("method")
    assert without_z.loc[["y", "x"], "rank"].tolist() == [1, 2]
    assert without_z.loc[["y", "x"], "change"].tolist() == [-0.5, 0.5]


def test_too_small_a_board_is_refused(runs_of):
    runs = runs_of({"a": {"reference": [1.0, 1.1]}})
    with pytest.raises(ValueError, match="two tasks"):
        leave_one_task_out(runs)
    with pytest.raises(ValueError, match="beside"):
        leave_one_method_out(runs)


@given(hnp.arrays(np.float64, (2, 8), elements=st.sampled_from([0.0, 1.0, 2.0, 3.0])))
def test_kendalls_tau_is_scipys(pair):
    expected = stats.kendalltau(pair[0], pair[1]).statistic
    assert kendall_tau(pair[0], pair[1]) == pytest.approx(expected, nan_ok=True)


def test_rank_agreement_uses_the_methods_both_score():
    table = rank_agreement({"x": {"a": 1, "b": 2, "c": 3}, "y": {"a": 3, "b": 1, "d": 9}})
    assert table.loc["x", "y"] == table.loc["y", "x"] == -1
    assert table.loc["x", "x"] == 1


def test_aggregates_of_a_clear_board_agree(simulate):
    effects = {f"m{i}": np.full(6, 0.4 * i - 0.8) for i in range(5)}
    table = metric_agreement(*simulate(effects, 4, noise=0.002))
    assert set(table.columns) == {"speedup", "iqm", "win_rate", "elo", "mean_rank", "profile_area"}
    assert table.loc["speedup", "iqm"] == 1
    assert table.loc["speedup", "mean_rank"] == 1
    assert table.loc["speedup", "elo"] == 1
