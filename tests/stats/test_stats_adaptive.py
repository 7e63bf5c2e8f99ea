"""Sequential seeds: the spending functions, the decision, its error rate and what it saves."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from suite.stats import cell_states, default_looks, error_spent, look_levels, next_cells, seeds_saved
from suite.stats.adaptive import cell_state

KINDS = ["pocock", "obrien-fleming"]


def test_obrien_flemings_first_bound_is_the_published_one():
    assert -stats.norm.ppf(error_spent(0.2, 0.05, "obrien-fleming") / 2) == pytest.approx(4.877, abs=5e-4)


def test_pococks_first_bound_is_the_published_one():
    assert -stats.norm.ppf(error_spent(0.2, 0.05, "pocock") / 2) == pytest.approx(2.438, abs=5e-4)


@pytest.mark.parametrize("kind", KINDS)
@given(st.sets(st.integers(2, 60), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_the_levels_of_all_looks_add_up_to_alpha(kind, looks, alpha):
    levels = look_levels(tuple(sorted(looks)), alpha, kind)
    assert sum(levels) == pytest.approx(alpha)
    assert min(levels) >= 0


def test_spending_refuses_nonsense():
    with pytest.raises(ValueError, match="spending"):
        error_spent(0.5, 0.05, "all")
    with pytest.raises(ValueError, match="fraction"):
        error_spent(0.0, 0.05)
    with pytest.raises(ValueError, match="increasing"):
        look_levels((5, 3))


def test_default_looks():
    assert default_looks(20) == (3, 5, 10, 20)
    assert default_looks(12) == (3, 5, 10, 12)
    assert default_looks(5) == (3, 5)
    assert default_looks(3) == (3,)
    assert default_looks(2) == (2,)
    with pytest.raises(ValueError, match="2 seeds"):
        default_looks(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("looks", [(3, 5, 10, 20), (2, 3, 4, 5), (3, 5, 10)])
def test_the_error_over_all_looks_is_at_most_alpha(kind, looks):
    levels = look_levels(looks, 0.05, kind)
    d = np.random.default_rng(0).normal(size=(20_000, looks[-1]))
    crossed = np.zeros(len(d), dtype=bool)
    for n, level in zip(looks, levels, strict=True):
        crossed |= stats.ttest_1samp(d[:, :n], 0, axis=1).pvalue < level
    assert 0.03 <= crossed.mean() <= 0.05


def test_a_decision_of_an_earlier_look_stands():
    d = np.array([1.0, 1.01, 0.99, -5.0, -5.0, -5.0])
    levels = look_levels((3, 6), 0.05)
    found = cell_state(d, 6, (3, 6), levels)
    assert (found.decision, found.used) == ("better", 3)


def test_seeds_beyond_a_look_are_not_looked_at_before_the_next():
    d = np.array([0.1, -0.1, 0.05, 3.0])
    found = cell_state(d, 4, (3, 10), look_levels((3, 10), 0.05))
    assert (found.decision, found.used, found.target) == ("open", 3, 10)
    assert found.p == pytest.approx(stats.ttest_1samp(d[:3], 0).pvalue)


@pytest.fixture
def three_cells(runs_of):
    base = [1.0, 1.2, 0.9]
    return runs_of(
        {
            "a": {
                "reference": base,
                "clear": [0.5, 0.701, 0.399],
                "same": [1.1, 1.1, 0.9],
                "broken": [None, None, None],
                "young": [1.0, 1.1],
            }
        }
    )


def test_states_of_cells(three_cells):
    table = cell_states(three_cells, 0.05, 10).set_index("method")
    assert table["decision"].to_dict() == {"clear": "better", "same": "open", "broken": "failed", "young": "open"}
    assert table["target"].to_dict() == {"clear": 3, "same": 5, "broken": 3, "young": 3}
    assert "reference" not in table.index


def test_open_cells_ask_for_seeds_and_take_the_reference_with_them(three_cells):
    table = next_cells(three_cells, 0.05, 10).set_index("method")
    assert table["add"].to_dict() == {"reference": 2, "same": 2, "young": 1}


def test_a_settled_board_asks_for_nothing(runs_of):
    runs = runs_of({"a": {"reference": [1.0, 1.2, 0.9], "m": [1.1, 1.1, 0.9]}})
    assert len(next_cells(runs, 0.05, 3)) == 0
    assert cell_states(runs, 0.05, 3)["decision"].tolist() == ["exhausted"]


def test_the_decision_is_a_function_of_the_table_alone(mixed_board):
    runs, _ = mixed_board
    pd.testing.assert_frame_equal(next_cells(runs), next_cells(runs.sample(frac=1, random_state=2)))


def test_the_last_look_must_be_at_the_most_seeds(three_cells):
    with pytest.raises(ValueError, match="last look"):
        next_cells(three_cells, 0.05, 10, looks=(3, 5))
    with pytest.raises(ValueError, match="last look"):
        next_cells(three_cells, looks=())


def test_clear_boards_save_seeds_and_keep_their_verdicts(simulate):
    effects = {"same": np.zeros(40), "small": np.full(40, 0.15), "large": np.full(40, 1.0)}
    runs, _ = simulate(effects, 20, seed=5)
    have = pd.Series(3, index=pd.MultiIndex.from_product([sorted(set(runs["task"])), ["reference", *effects]]))
    for _ in range(10):
        count = [have[(t, m)] for t, m in zip(runs["task"], runs["method"], strict=True)]
        so_far = runs[runs["seed"] < np.array(count)]
        more = next_cells(so_far, 0.05, 20)
        if more.empty:
            break
        for row in more.itertuples():
            have[(row.task, row.method)] = row.target
    states = cell_states(so_far, 0.05, 20)
    by_method = states.groupby("method")["decision"]
    assert (by_method.get_group("large") == "better").all()
    assert (by_method.get_group("same") == "exhausted").mean() >= 0.9
    assert (by_method.get_group("small") == "worse").sum() == 0
    assert not (states["decision"] == "open").any()
    assert states.groupby("method")["seeds"].mean()["large"] < 6
    assert 0.2 < seeds_saved(states, 20) < 0.8
    assert math.isclose(seeds_saved(states.iloc[:0], 20), 0.0)
