"""Best of k: by enumeration of all draws, and by simulated coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.stats import best_of_k, sensitivity
from suite.stats.tuning import selection_weights

TRIALS = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(-3, 3)), st.floats(-10, 10)), min_size=1, max_size=7
).filter(lambda trials: any(v is not None for v, _ in trials))


def enumerated(trials, k, direction):
    """Mean test score over all k-subsets with a finished trial, and the share without one."""
    totals, none = [], 0
    draws = list(itertools.combinations(trials, k))
    for draw in draws:
        finished = [(v, t) for v, t in draw if v is not None]
        if not finished:
            none += 1
            continue
        best = (min if direction == "min" else max)(v for v, _ in finished)
        totals.append(np.mean([t for v, t in finished if v == best]))
    return (np.mean(totals) if totals else math.nan), none / len(draws)


@given(TRIALS, st.data(), st.sampled_from(["min", "max"]))
def test_the_closed_form_is_the_mean_over_all_draws_where_validation_has_no_ties(trials, data, direction):
    seen = [v for v, _ in trials if v is not None]
    if len(set(seen)) < len(seen):
        trials = [(None if v is None else v + 10 * i, t) for i, (v, t) in enumerate(trials)]
    k = data.draw(st.integers(1, len(trials)))
    validation = [math.nan if v is None else v for v, _ in trials]
    test = [math.nan if v is None else t for v, t in trials]
    row = best_of_k(validation, test, direction, ks=[k]).iloc[0]
    expected, none = enumerated(trials, k, direction)
    assert row["none"] == pytest.approx(none, abs=1e-9)
    if none < 1:
        assert row["expected"] == pytest.approx(expected, abs=1e-8)
    else:
        assert math.isnan(row["expected"])


def test_trials_tied_on_validation_share_their_weight_whatever_their_order():
    first = best_of_k([1.0, 1.0, 2.0], [5.0, 7.0, 9.0], ks=[1, 2, 3])["expected"].tolist()
    second = best_of_k([1.0, 2.0, 1.0], [7.0, 9.0, 5.0], ks=[1, 2, 3])["expected"].tolist()
    assert first == pytest.approx(second)
    assert first == pytest.approx([7.0, 6.0, 6.0])


def test_best_of_one_is_the_mean_and_of_all_is_the_selected_trial():
    validation, test = [0.3, 0.1, 0.2, 0.4], [0.5, 0.35, 0.2, 0.6]
    table = best_of_k(validation, test, ks=[1, 4, 9])
    assert table["k"].tolist() == [1, 4]
    assert table["expected"].tolist() == pytest.approx([np.mean(test), 0.35])


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_selection_weights_are_a_distribution_that_prefers_the_better(size):
    weights = selection_weights(*size)
    assert weights.sum() == pytest.approx(1)
    assert np.all(np.diff(weights) <= 1e-12)


def test_selection_weights_by_hand():
    assert selection_weights(4, 2) == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0])
    with pytest.raises(ValueError, match="best of 5"):
        selection_weights(4, 5)


def test_with_the_same_score_on_both_splits_more_trials_never_hurt():
    scores = np.random.default_rng(0).normal(size=20)
    found = best_of_k(scores, scores, ks=range(1, 21))["expected"]
    assert np.all(np.diff(found) <= 1e-12)
    assert found.iloc[-1] == pytest.approx(scores.min())


def test_the_interval_is_withheld_where_trials_hold_too_few_bests_of_k():
    scores = np.random.default_rng(1).normal(size=20)
    table = best_of_k(scores, scores, ks=[1, 5, 6, 20])
    assert table["low"].isna().tolist() == [False, False, True, True]
    assert table["expected"].notna().all()


@pytest.mark.parametrize(("count", "k"), [(20, 1), (20, 2), (20, 5), (40, 5), (40, 10)])
def test_coverage_of_the_expected_best_of_k(count, k):
    rng = np.random.default_rng(count + k)
    many = rng.normal(size=(100_000, k))
    chosen = np.take_along_axis(many, many.argmin(axis=1)[:, None], 1)
    truth = chosen.mean()
    hits = []
    for _ in range(500):
        validation = rng.normal(size=count)
        row = best_of_k(validation, validation + rng.normal(0, 0.5, count), ks=[k]).iloc[0]
        hits.append(row["low"] <= truth <= row["high"])
    assert 0.93 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize(
    ("validation", "test", "word"),
    [
        ([math.nan], [math.nan], "no trial"),
        ([1.0, 2.0], [1.0], "one validation"),
        ([1.0, 2.0], [1.0, math.nan], "no test score"),
    ],
)
def test_trials_that_cannot_be_judged_are_refused(validation, test, word):
    with pytest.raises(ValueError, match=word):
        best_of_k(validation, test)
    with pytest.raises(ValueError, match="direction"):
        best_of_k([1.0], [1.0], "up")


def test_sensitivity_by_hand():
    scores = [1.0, 1.05, 1.2, 2.0, math.nan]
    assert sensitivity(scores, 0.1).value == pytest.approx(2 / 5)
    assert sensitivity(scores, 0.2, relative=True).value == pytest.approx(3 / 5)
    assert sensitivity([-s for s in scores], 0.1, "max").value == pytest.approx(2 / 5)
    assert sensitivity(scores, 0.0).value == pytest.approx(1 / 5)
    assert sensitivity(scores, 0.1).n == 5


def test_sensitivity_refuses_nonsense():
    with pytest.raises(ValueError, match="no trial"):
        sensitivity([math.nan], 0.1)
    with pytest.raises(ValueError, match="negative"):
        sensitivity([1.0], -0.1)
    with pytest.raises(ValueError, match="negative"):
        sensitivity([1.0], math.nan)
    with pytest.raises(ValueError, match="direction"):
        sensitivity([1.0], 0.1, "up")
