"""Searches on the method's page: expected best of k, by hand, and nothing of them on the boards."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import comb
from test_board_model import START, golden, read_of, row, rows_of, table
from test_board_pages import Page

from leaderboard.model import build
from leaderboard.site import render
from leaderboard.tuning import searches

TRIALS = [0.9, 0.5, None, 0.7, 0.4, 0.8, 0.6, 1.0]  # test scores; validation is 0.01 lower


def search(**facts: Any) -> list[dict[str, Any]]:
    return [
        row(
            "toy", "golu", 1_000_000, score, trial=i, trials=8, set_hp=f'{{"slope": {i}}}',
            val_score=None if score is None else score - 0.01, **facts,
        )
        for i, score in enumerate(TRIALS)
    ]  # fmt: skip


def by_hand(k: int) -> float:
    """Mean over all subsets of k of the 8 trials with a finished one of the best finished score."""
    known = sorted(s for s in TRIALS if s is not None)
    weights = np.array([comb(8 - i, k - 1) for i in range(1, 8)]) / comb(8, k)
    return float(weights @ known / weights.sum())


def test_expected_best_of_k_by_hand() -> None:
    ((found,),) = searches(build(table([*golden(), *search()]))).values()
    assert (found.method, found.task, len(found.runs), found.failed) == ("golu", "toy", 8, 1)
    assert {b.k: b.score.value for b in found.best} == pytest.approx({k: by_hand(k) for k in (1, 2, 5, 8)})
    low = {b.k: b.score.low for b in found.best}
    assert math.isfinite(low[2]) and math.isnan(low[5])
    assert found.default.n == 3


def test_a_search_is_of_one_code_and_needs_two_trials() -> None:
    old = search(method_hash="old", finished_at=START.replace(year=2020))
    again = [r | {"run_id": r["run_id"] + "o"} for r in old]
    ((found,),) = searches(build(table([*golden(), *search(), *again]))).values()
    assert len(found.runs) == 8
    assert {r.method_hash for r in found.runs} == {"m1"}
    assert searches(build(table([*golden(), *search()[:1]]))) == {}
    assert searches(build(table([*golden(), search()[2]]))) == {}


def test_the_method_page_shows_what_tuning_buys() -> None:
    tuned = rows_of("toy", "golu", [0.3, 0.4, 0.35], trial=4, trials=8, set_hp='{"slope": 4}')
    files = render(read_of([*golden(), *tuned, *search()]))
    page = Page(files["method/golu.html"].decode())
    assert "What tuning buys" in page.text
    assert "expected best of k of 8 trials" in page.text
    assert f"{by_hand(5):.4g}" in page.text
    assert "What tuning buys" not in files["method/mish.html"].decode()
    assert "8 runs (trials of a search)" in Page(files["index.html"].decode()).text
