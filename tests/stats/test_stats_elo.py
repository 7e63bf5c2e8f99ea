"""Bradley-Terry: against a numeric maximum, closed forms, and by simulated coverage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from suite.stats import Board, Cells, TableError, bradley_terry, elo_ratings


@settings(deadline=None, max_examples=25)
@given(hnp.arrays(np.float64, (4, 4), elements=st.floats(0, 20)))
def test_the_strengths_are_the_numeric_maximum(wins):
    np.fill_diagonal(wins, 0)

    def loss(free):
        theta = np.concatenate([free[:1], [0.0], free[1:]])
        gap = theta[:, None] - theta[None, :]
        return np.sum(wins * np.logaddexp(0, -gap)) + 0.05 * np.sum(theta**2)

    best = minimize(loss, np.zeros(3), tol=1e-12).x
    assert np.delete(bradley_terry(wins, 1, ridge=0.1), 1) == pytest.approx(best, abs=2e-4)


def test_two_players_have_the_log_odds():
    wins = np.array([[0.0, 30.0], [10.0, 0.0]])
    assert bradley_terry(wins, 1, ridge=1e-9) == pytest.approx([np.log(3), 0], abs=1e-6)


def test_a_batch_is_solved_like_its_parts():
    batch = np.random.default_rng(0).uniform(0, 10, (5, 3, 3))
    batch[:, np.arange(3), np.arange(3)] = 0
    together = bradley_terry(batch, 0)
    for row, wins in zip(together, batch, strict=True):
        assert row == pytest.approx(bradley_terry(wins, 0), abs=1e-8)


def test_a_method_that_always_wins_stays_finite_and_the_reference_is_1000(runs_of):
    runs = runs_of({t: {"reference": [1.0, 1.0], "m": [0.5, 0.5], "n": [2.0, None]} for t in "abc"})
    table = elo_ratings(runs).set_index("method")
    assert table.index.tolist() == ["m", "reference", "n"]
    assert np.isfinite(table["elo"]).all()
    assert table.loc["reference"].tolist() == [1000, 1000, 1000]


def test_the_ridge_must_be_positive_and_a_board_needs_two_methods(runs_of):
    with pytest.raises(ValueError, match="ridge"):
        bradley_terry(np.zeros((2, 2)), 0, ridge=0)
    with pytest.raises(TableError, match="beside"):
        elo_ratings(runs_of({"a": {"reference": [1.0, 2.0]}}))


def test_elo_does_not_depend_on_the_unit_of_a_score(mixed_board):
    runs, _ = mixed_board
    other = runs.assign(score=np.exp(-5 * runs["score"]), direction="max")
    pd.testing.assert_frame_equal(elo_ratings(other), elo_ratings(runs))


STRENGTHS = np.array([0.5, -0.4, 1.2, 0.0])


def gumbel_board(rng, tasks, seeds):
    """Scores whose pairwise win chances are exactly Bradley-Terry."""
    utility = STRENGTHS[:, None, None] + rng.gumbel(size=(4, tasks, seeds))
    names = tuple(f"t{i:03d}" for i in range(tasks))
    cells = Cells(("a", "b", "c", "reference"), names, ("",) * tasks, np.arange(seeds), utility, utility > np.inf)
    return Board(cells, rounds=300)


@pytest.mark.parametrize(
    ("tasks", "seeds"), [(1, 5), (1, 10), (2, 3), (3, 3), (5, 2), pytest.param(10, 3, marks=pytest.mark.slow), (20, 2)]
)
def test_coverage_of_elo(tasks, seeds):
    rng = np.random.default_rng(10 * tasks + seeds)
    truth = 1000 + 400 / np.log(10) * STRENGTHS[:3]
    hits = []
    for _ in range(250):
        table = elo_ratings(gumbel_board(rng, tasks, seeds)).set_index("method").loc[["a", "b", "c"]]
        hits.append(((table["low"] <= truth) & (truth <= table["high"])).to_numpy())
    assert 0.93 <= np.mean(hits) <= 0.98
