"""Ranks, Holm, letters: against statsmodels, by hand, as properties, and error rates by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from statsmodels.stats.multitest import multipletests

from suite.stats import (
    Board,
    Comparisons,
    benjamini_hochberg,
    compact_letters,
    compare_all,
    first_place,
    holm,
    mean_ranks,
    rank_intervals,
    shares_letter,
    suite_speedups,
    task_ranks,
    tie_letters,
    tier_groups,
)
from suite.stats.ranks import average_ranks


@settings(max_examples=15, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)))
def test_holm_is_statsmodels(p):
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]).tolist() == pytest.approx([0.06, 0.03, 0.06])
    with pytest.raises(ValueError, match="p values"):
        holm([0.5, np.nan])


@given(hnp.arrays(np.float64, st.integers(1, 12), elements=st.sampled_from([0.0, 1e-9, 0.01, 0.012, 0.04, 0.5, 1.0])))
def test_benjamini_hochberg_is_scipys(p):
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p), abs=1e-15)


def test_benjamini_hochberg_by_hand():
    assert benjamini_hochberg([0.04, 0.01, 0.03, 0.9]).tolist() == pytest.approx([0.16 / 3, 0.04, 0.16 / 3, 0.9])
    assert benjamini_hochberg([]).tolist() == []
    with pytest.raises(ValueError, match="p values"):
        benjamini_hochberg([0.5, np.nan])


@given(hnp.arrays(np.float64, (6, 3), elements=st.sampled_from([-np.inf, 0.0, 1.0, 2.0])))
def test_ranks_are_scipys(values):
    assert average_ranks(values) == pytest.approx(stats.rankdata(-values, axis=0))


def test_failed_cells_are_last_and_share_the_last_ranks(runs_of):
    runs = runs_of({"a": {"reference": [1.0, 1.0], "x": [None, None], "y": [9.0, 9.0], "z": [None, None]}})
    assert task_ranks(runs)["a"].to_dict() == {"reference": 1, "y": 2, "x": 3.5, "z": 3.5}


def test_a_failed_run_counts_as_the_worst_finished_one(runs_of):
    runs = runs_of({"a": {"reference": [1.0, 1.0], "x": [0.0, None], "y": [3.0, 3.0], "z": [1.2, 1.2]}})
    assert task_ranks(runs)["a"].to_dict() == {"reference": 1, "z": 2, "x": 3, "y": 4}


def test_ranks_compare_on_the_seeds_that_the_reference_has_too(runs_of):
    runs = runs_of({"a": {"reference": [1.0, 2.0, 3.0], "same": [1.0, 2.0, None], "ahead": [0.9, None, None]}})
    runs = runs[runs["status"] == "ok"]
    assert task_ranks(runs)["a"].to_dict() == {"reference": 2.5, "same": 2.5, "ahead": 1}


def test_mean_ranks_by_hand(runs_of):
    runs = runs_of({t: {"reference": [1.0, 1.0], "m": [s, s]} for t, s in zip("abc", [0.5, 0.6, 2.0], strict=True)})
    table = mean_ranks(runs).set_index("method")
    assert table.loc["m", "mean_rank"] == pytest.approx(4 / 3)
    assert (table["low"] >= 1).all()
    assert (table["high"] <= 2).all()


@pytest.mark.parametrize("tasks", [3, 5, 10, 20])
def test_coverage_of_mean_ranks_over_tasks(tasks):
    rng = np.random.default_rng(tasks)
    strengths = np.array([0.0, 0.5, -0.4, 1.2, 0.1])
    truth = average_ranks(strengths[:, None] + rng.gumbel(size=(5, 100_000))).mean(axis=1)
    draws = average_ranks(strengths[:, None] + rng.gumbel(size=(5, 2000 * tasks))).reshape(5, 2000, tasks)
    half = stats.t.ppf(0.975, tasks - 1) * np.sqrt((draws.var(axis=2, ddof=1) + 1 / 12) / tasks)
    cover = np.mean(np.abs(draws.mean(axis=2) - truth[:, None]) <= half)
    assert 0.93 <= cover <= 0.97
    board = pd.DataFrame(
        [
            (f"t{t}", name, 0, "ok", -draws[m, 0, t], "min")
            for m, name in enumerate(["reference", "a", "b", "c", "d"])
            for t in range(tasks)
        ],
        columns=["task", "method", "seed", "status", "score", "direction"],
    )
    row = mean_ranks(board).set_index("method").loc["c"]
    assert row["high"] - row["mean_rank"] == pytest.approx(min(half[3, 0], 5 - row["mean_rank"]), abs=0.35)


def test_pairs_over_tasks_are_the_paired_t_test(mixed_board):
    runs, ladder = mixed_board
    board = Board.of(runs, ladder)
    found = compare_all(board)
    for i, j in itertools.combinations(range(len(found.methods)), 2):
        a, b = (board.values[board.cells.methods.index(found.methods[k])] for k in (i, j))
        assert found.p[i, j] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-7)
    upper = np.triu_indices(len(found.methods), 1)
    assert found.adjusted[upper] == pytest.approx(multipletests(found.p[upper], method="holm")[1])


def test_pairs_on_one_task_are_the_paired_t_test_over_seeds(runs_of):
    rng = np.random.default_rng(0)
    common = rng.normal(size=6)
    scores = {name: list(common + rng.normal(k, 0.2, 6)) for k, name in enumerate(["reference", "m", "n"])}
    found = compare_all(runs_of({"a": scores}))
    assert found.methods == ("reference", "m", "n")
    for i, j in itertools.combinations(range(3), 2):
        expected = stats.ttest_rel(scores[found.methods[i]], scores[found.methods[j]]).pvalue
        assert found.p[i, j] == pytest.approx(expected, rel=1e-7)


def test_pairs_over_seeds_use_the_pooled_paired_error(runs_of):
    rng = np.random.default_rng(1)
    scores = {t: {m: list(rng.normal(0, 1, 5)) for m in ("reference", "m", "n")} for t in "ab"}
    board = Board.of(runs_of(scores, "max"))
    found = compare_all(board, over="seeds")
    i, j = found.methods.index("m"), found.methods.index("n")
    means, variances = [], []
    for t in "ab":
        sd = np.std(scores[t]["reference"], ddof=1)
        d = (np.array(scores[t]["m"]) - np.array(scores[t]["n"])) / sd
        means.append(d.mean())
        variances.append(d.var(ddof=1) / 5)
    df = (sum(variances) ** 2 / sum(v**2 / 4 for v in variances) + 4) / 2
    t = np.mean(means) / (np.sqrt(sum(variances)) / 2)
    assert found.difference[i, j] == pytest.approx(np.mean(means))
    assert found.p[i, j] == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-6)


def test_no_pair_is_separated_where_the_spread_is_unknown(runs_of):
    runs = runs_of({"a": {"reference": [1.0, 1.1], "m": [100.0], "n": [50.0]}})
    found = compare_all(runs)
    assert not found.separated.any()
    assert set(tie_letters(runs).values()) == {"a"}


def test_an_alpha_that_is_no_share_is_refused(mixed_board):
    with pytest.raises(ValueError, match="alpha"):
        compare_all(*mixed_board, alpha=5)


@given(st.integers(1, 9).flatmap(lambda m: hnp.arrays(np.bool_, (m, m))))
def test_letters_are_shared_exactly_where_not_separated(matrix):
    separated = np.triu(matrix, 1)
    separated = separated | separated.T
    letters = compact_letters(separated)
    for i, j in itertools.combinations(range(len(letters)), 2):
        assert shares_letter(letters[i], letters[j]) == (not separated[i, j])
    assert all(letters)


@given(st.integers(1, 8).flatmap(lambda m: hnp.arrays(np.bool_, (m, m))))
def test_no_letter_is_superfluous(matrix):
    separated = np.triu(matrix, 1)
    separated = separated | separated.T
    letters = compact_letters(separated)
    tied = {(i, j) for i in range(len(letters)) for j in range(i, len(letters)) if not separated[i, j]}
    for letter in set("".join(letters)):
        rest = [text.replace(letter, "") for text in letters]
        left = {(i, j) for i, j in tied if shares_letter(rest[i], rest[j])}
        assert left < tied


def test_letters_by_hand():
    separated = np.zeros((4, 4), dtype=bool)
    for i, j in [(0, 2), (0, 3), (1, 3)]:
        separated[i, j] = separated[j, i] = True
    assert compact_letters(separated) == ["a", "ab", "bc", "c"]
    with pytest.raises(ValueError, match="symmetric"):
        compact_letters(np.triu(np.ones((3, 3)), 1))


def test_a_group_made_superfluous_by_later_ones_gets_no_letter():
    separated = np.zeros((6, 6), dtype=bool)
    for i, j in [(0, 1), (1, 2), (2, 4), (2, 5), (3, 5)]:
        separated[i, j] = separated[j, i] = True
    assert compact_letters(separated) == ["ab", "cd", "a", "ac", "bcd", "bd"]


def test_more_than_52_groups_keep_distinct_letters():
    letters = compact_letters(~np.eye(60, dtype=bool))
    assert len(set(letters)) == 60
    assert letters[52] == "a2"
    assert not shares_letter(letters[0], letters[52])


def test_letters_of_a_board_agree_with_its_comparisons(mixed_board):
    runs, ladder = mixed_board
    for over in ("tasks", "seeds"):
        found = compare_all(runs, ladder, over=over)
        letters = tie_letters(runs, ladder, over=over)
        assert list(letters) == list(found.methods)
        assert "a" in letters[found.methods[0]]
        for i, j in itertools.combinations(range(len(letters)), 2):
            pair = letters[found.methods[i]], letters[found.methods[j]]
            assert shares_letter(*pair) == (not found.separated[i, j])


@settings(max_examples=8, deadline=None)
@given(order=st.randoms(use_true_random=False))
def test_letters_and_ranks_do_not_depend_on_the_order_of_rows(mixed_board, order):
    runs, ladder = mixed_board
    index = list(range(len(runs)))
    order.shuffle(index)
    assert tie_letters(runs.iloc[index], ladder) == tie_letters(runs, ladder)
    pd.testing.assert_frame_equal(rank_intervals(runs.iloc[index], ladder), rank_intervals(runs, ladder))


def test_first_place_is_shared_by_all_that_nobody_is_separated_from(simulate):
    rng = np.random.default_rng(0)
    effects = {"good": 0.5 + rng.normal(0, 0.1, 12), "also": 0.5 + rng.normal(0, 0.1, 12), "bad": np.full(12, -0.8)}
    runs, ladder = simulate(effects, 5, noise=0.01)
    assert sorted(first_place(runs, ladder)) == ["also", "good"]
    table = rank_intervals(runs, ladder).set_index("method")
    assert table.loc[["also", "good"], "low"].tolist() == [1, 1]
    assert table.loc[["also", "good"], "high"].tolist() == [2, 2]
    assert table.loc["reference", ["rank", "low", "high"]].tolist() == [3, 3, 3]
    assert table.loc["bad", ["rank", "low", "high"]].tolist() == [4, 4, 4]


def test_ranks_follow_the_headline(mixed_board):
    runs, ladder = mixed_board
    ranks = rank_intervals(runs, ladder)
    speed = suite_speedups(runs, ladder).set_index("method")["speedup"]
    assert ranks["method"].tolist() == speed.sort_values(ascending=False).index.tolist()
    assert ((ranks["low"] <= ranks["rank"]) & (ranks["rank"] <= ranks["high"])).all()


def test_a_method_that_failed_everywhere_is_separated_from_the_rest(simulate):
    runs, ladder = simulate({"m": np.zeros(8), "broken": np.zeros(8)}, 4)
    lost = runs["method"] == "broken"
    runs.loc[lost, "status"], runs.loc[lost, "score"] = "diverged", np.nan
    letters = tie_letters(runs, ladder)
    assert not shares_letter(letters["broken"], letters["m"])
    assert list(letters)[-1] == "broken"


@pytest.mark.parametrize(
    ("over", "tasks", "seeds"), [("tasks", 8, 3), ("seeds", 3, 3), ("seeds", 1, 5), ("seeds", 12, 2)]
)
def test_equal_methods_are_separated_anywhere_in_at_most_5_percent_of_boards(over, tasks, seeds):
    rng = np.random.default_rng(tasks)
    names = ["reference", *(f"m{i}" for i in range(5))]
    wrong = 0
    for _ in range(200):
        effect = rng.normal(0, 1.0 if over == "tasks" else 0.0, (6, tasks, 1))
        score = effect + rng.normal(0, 1, (6, tasks, seeds)) + rng.normal(0, 2, (1, tasks, seeds))
        m, t, s = np.indices(score.shape)
        table = pd.DataFrame(
            {
                "task": np.char.add("t", t.ravel().astype(str)),
                "method": np.array(names, dtype=object)[m.ravel()],
                "seed": s.ravel(),
                "status": "ok",
                "score": score.ravel(),
                "direction": "max",
            }
        )
        wrong += bool(compare_all(table, over=over).separated.any())
    assert wrong / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_rank_intervals_hold_all_true_ranks_at_once(simulate):
    rng = np.random.default_rng(7)
    truth = {"a": 0.6, "b": 0.4, "c": 0.35, "d": -0.3}
    order = ["a", "b", "c", "reference", "d"]
    held = 0
    for i in range(80):
        runs, ladder = simulate({k: v + rng.normal(0, 0.2, 12) for k, v in truth.items()}, 3, seed=1000 + i)
        table = rank_intervals(runs, ladder).set_index("method")
        held += all(table.loc[m, "low"] <= k + 1 <= table.loc[m, "high"] for k, m in enumerate(order))
    assert held / 80 >= 0.93


def test_groups_are_chains_of_separated_methods():
    """a and b over c, c over d; e is separated from nobody."""
    separated = np.zeros((5, 5), dtype=bool)
    for i, j in [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]:
        separated[i, j] = separated[j, i] = True
    value = np.array([4.0, 3.0, 2.0, 1.0, 0.5])
    found = Comparisons(
        ("a", "b", "c", "d", "e"), value, value[:, None] - value, np.ones((5, 5)), np.ones((5, 5)), separated
    )
    assert tier_groups(found) == {"a": 1, "b": 1, "c": 2, "d": 3, "e": 1}


@pytest.mark.parametrize("over", ["seeds", "tasks"])
def test_methods_of_one_group_are_not_separated_and_group_one_shares_first_place(simulate, over):
    board = Board.of(*simulate({"good": [0.5] * 4, "best": [1.0] * 4, "bad": [-1.0] * 4}, 5, noise=0.01))
    found = compare_all(board, over=over)
    groups = tier_groups(found)
    for (i, a), (j, b) in itertools.combinations(enumerate(found.methods), 2):
        assert not (found.separated[i, j] and groups[a] == groups[b])
    assert [m for m, group in groups.items() if group == 1] == first_place(board, over=over)
    assert max(groups.values()) > 1
