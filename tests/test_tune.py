"""Tuning: equal trials from one sequence, chosen on validation."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import suite
from suite.registry import registry
from suite.space import Choice, IntUniform, LogUniform, Uniform
from suite.stats import best_of_k, sensitivity
from suite.tune import TUNING_SEED, select, space_on, trial, trial_specs

SPACE = {"lr": LogUniform(1e-4, 1e-1), "beta": Uniform(0.5, 1.0), "k": IntUniform(1, 4), "mode": Choice("a", "b")}

T1 = 12.706204736432095  # Student's t, 97.5%, 1 degree of freedom


def test_a_trial_is_a_pure_function_of_space_and_index() -> None:
    assert trial(SPACE, 5) == trial(dict(reversed(SPACE.items())), 5)
    assert trial(SPACE, 5) != trial(SPACE, 6)


def test_more_trials_begin_with_the_same_trials() -> None:
    early = [trial(SPACE, i) for i in range(4)]
    trial(SPACE, 200)
    assert [trial(SPACE, i) for i in range(4)] == early


def test_trials_lie_in_the_space_and_cover_it_evenly() -> None:
    drawn = [trial(SPACE, i) for i in range(64)]
    assert all(values[name] in domain for values in drawn for name, domain in SPACE.items())
    decades = [sum(-4 + d <= math.log10(v["lr"]) < -3 + d for v in drawn) for d in range(3)]
    assert min(decades) >= 18  # 64 points of a Sobol sequence, three equal strata
    assert 28 <= sum(v["mode"] == "a" for v in drawn) <= 36


def test_every_method_gets_the_same_number_of_trials_on_the_tuning_seed() -> None:
    task = registry().task("digits-cnn")
    for name in ("adamw", "lion"):
        specs = trial_specs(task, suite.method(name), "smoke", 6)
        assert [s.trial for s in specs] == list(range(6))
        assert {s.seed for s in specs} == {TUNING_SEED}
        assert {s.trials for s in specs} == {6}
    assert len(trial_specs(task, suite.method("relu"), "smoke", 6)) == 1


def test_learning_rates_are_searched_on_the_tasks_scale() -> None:
    task, method = registry().task("dyck-gpt"), suite.method("adamw")
    plain, scaled = method.space["lr"], space_on(task, method)["lr"]
    assert scaled == plain.scaled(task.lr_scale)


def row(trial: int, score: float, status: str = "ok") -> dict[str, object]:
    return {"trial": trial, "val_score": score, "status": status}


def test_the_best_validation_score_wins_and_failures_never_do() -> None:
    lower, higher = registry().task("digits-cnn"), registry().task("add2-rlvr")
    found = [row(0, 0.4), row(1, 0.2), row(2, 0.2), row(3, 0.0, "diverged"), row(4, math.nan)]
    assert select(lower, found) == found[1]
    assert select(higher, found) == found[0]
    assert select(lower, [found[3]]) is None


def test_a_negative_trial_is_refused() -> None:
    with pytest.raises(ValueError, match="indices start at 0"):
        trial(SPACE, -1)


# ---------------------------------------------------------------- the command


@pytest.mark.usefixtures("toy")
def test_a_search_prints_its_choice_what_fewer_trials_would_give_and_how_wide_the_good_region_is(
    levelfield: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("tune", "--tasks", "toy", "--methods", "toy-rated,toy-plain", "--trials", "8", "--seeds", "2")
    arguments = (*arguments, "--tier", "smoke", "--out", str(out))
    code, said, _ = levelfield(*arguments, "--json")
    assert code == 0
    found = json.loads(said)
    assert {(r["method"], r["n"]) for r in found["rows"]} == {("reference", 2), ("toy-plain", 2), ("toy-rated", 2)}
    assert [r["score"] for r in found["rows"]] == sorted(r["score"] for r in found["rows"])  # best first

    rows = suite.load_results(out)
    scores = {m: rows[(rows["method"] == m) & (rows["seed"] < 2)].sort_values("seed")["score"].to_numpy() for m in
              ("reference", "toy-plain", "toy-rated")}  # fmt: skip
    for r in found["rows"]:
        mine, gain = scores[r["method"]], scores["reference"] - scores[r["method"]]
        half = abs(mine[1] - mine[0]) / 2 * T1
        assert (r["score"], r["low"], r["high"]) == pytest.approx((mine.mean(), mine.mean() - half, mine.mean() + half))
        if r["method"] != "reference":
            half = abs(gain[1] - gain[0]) / 2 * T1
            ends = r["difference"], r["difference_low"], r["difference_high"]
            assert ends == pytest.approx((gain.mean(), gain.mean() - half, gain.mean() + half))
    trials = rows[(rows["seed"] == TUNING_SEED) & (rows["method"] == "toy-rated")].sort_values("trial")
    assert list(trials["trial"]) == list(range(8))
    ended = trials["status"] == "ok"
    validation, test = (np.where(ended, trials[c], np.nan) for c in ("val_score", "score"))
    wanted = best_of_k(validation, test, ks=(1, 2, 5, 8))
    assert [r["k"] for r in found["best_of_k"]] == [1, 2, 5, 8]
    assert {r["method"] for r in found["best_of_k"]} == {"toy-rated"}  # toy-plain has nothing to search
    assert [r["expected"] for r in found["best_of_k"]] == pytest.approx(list(wanted["expected"]))
    chosen = int(np.nanargmin(validation))
    assert found["best_of_k"][-1]["expected"] == pytest.approx(test[chosen])

    (good,) = found["sensitivity"]
    share = sensitivity(validation, 0.05, relative=True)
    assert (good["share"], good["low"], good["high"], good["trials"]) == pytest.approx((*share[:3], 8))
    assert (good["within"], good["unit"]) == (0.05, "of the best score")
    reported = rows[(rows["seed"] < 2) & (rows["method"] == "toy-rated")]
    assert set(reported["trial"]) == {chosen}
    assert set(reported["trials"]) == {8}

    wide = levelfield(*arguments, "--within", "1e9")[1]
    assert re.search(r"toy +toy-rated +[\d.]+ \(-?[\d.]+ to [\d.]+\) +2 +[+-][\d.e-]+ \([+-].* to [+-].*\) +\d", wide)
    assert "expected test score of the trial chosen out of k" in wide
    assert re.search(r"best of 1 +best of 2 +best of 5 +best of 8", wide)
    assert re.search(r"toy +toy-rated +[\d.]+ \([\d.]+ to [\d.]+\) +1e\+09 squared units", wide)
