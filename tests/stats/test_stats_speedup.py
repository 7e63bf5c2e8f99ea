"""Effective speedup: by hand, invariances, what leaves a headline bit-equal, and coverage."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from suite.stats import Board, cell_speedups, compare_all, effective_speedup, ladder_report, suite_speedups
from suite.stats.intervals import mean_interval
from suite.stats.ladder import Arm, anchored_ladder, isotonic
from suite.stats.resample import StudentMultipliers, chi_square, stream
from suite.stats.speedup import seed_interval
from suite.stats.table import Cells

BUDGETS = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
LADDER = np.array([1.0, 0.8, 0.6, 0.5, 0.45])


def board_by_hand(runs_of, rungs_of, *, method=(0.55, 0.55)):
    runs = runs_of({"a": {"reference": [0.6, 0.6], "m": list(method)}})
    ladder = rungs_of({"a": {b: [s, s] for b, s in zip(BUDGETS, LADDER, strict=True) if b != 1}})
    return runs, ladder


def test_speedup_by_hand():
    score = [0.6, 0.55, 0.5, 0.45, 0.2, 0.7, 0.8, 1.0, 2.0]
    expected = [1, math.sqrt(2), 2, 4, 4, 1 / math.sqrt(2), 0.5, 0.25, 0.25]
    assert effective_speedup(score, BUDGETS, LADDER) == pytest.approx(expected, rel=1e-12)


def test_the_reference_reads_exactly_one_and_a_failed_cell_a_quarter():
    assert effective_speedup(0.6, BUDGETS, LADDER) == 1.0
    assert effective_speedup(np.nan, BUDGETS, LADDER) == 0.25


def test_interpolation_is_linear_in_log_budget():
    budget = 2.0 ** np.linspace(-2, 2, 33)
    score = 3 - 0.2 * np.log2(budget)
    assert effective_speedup(score, BUDGETS, 3 - 0.2 * np.log2(BUDGETS)) == pytest.approx(budget, rel=1e-12)


def test_a_flat_ladder_says_nothing_about_budget():
    flat = np.array([1.0, 0.6, 0.6, 0.6, 0.5])
    assert effective_speedup([0.6, 0.61, 0.55, 0.6 + 1e-12], BUDGETS, flat) == pytest.approx(
        [1, 0.5 * 2 ** (-0.01 / 0.4), 2 * math.sqrt(2), 0.5], rel=1e-9
    )


def test_a_ladder_out_of_order_is_made_monotone_and_still_reads_one_at_its_own_score():
    bumpy = np.array([1.0, 0.58, 0.6, 0.62, 0.5])
    found = effective_speedup([0.6, 0.55, 0.5], BUDGETS, bumpy)
    assert found[0] == 1
    assert 2 < found[1] < found[2] == 4


def test_the_ladder_ends_where_its_rungs_end():
    assert effective_speedup([0.1, 0.99], [0.5, 1.0, 2.0], [0.8, 0.6, 0.5]).tolist() == [2.0, 0.5]


@pytest.mark.parametrize(
    ("budgets", "ladder", "word"),
    [
        ([0.5, 2.0], [1.0, 0.5], "budget 1"),
        ([1.0, 0.5], [1.0, 0.5], "increasing"),
        ([1.0], [1.0], "two"),
        ([0.5, 1.0], [1.0, np.nan], "finite"),
        ([0.5, 1.0], [1.0], "one finite"),
    ],
)
def test_a_ladder_that_is_none_is_refused(budgets, ladder, word):
    with pytest.raises(ValueError, match=word):
        effective_speedup(0.5, budgets, ladder)


@given(hnp.arrays(np.float64, st.integers(1, 6), elements=st.floats(-5, 5)))
def test_isotonic_is_scikit_learns(values):
    expected = IsotonicRegression().fit_transform(np.arange(len(values)), values)
    assert isotonic(values) == pytest.approx(expected, abs=1e-9)


@given(hnp.arrays(np.float64, 5, elements=st.floats(-5, 5)))
def test_the_anchored_ladder_increases_and_keeps_its_value_at_one(values):
    found = anchored_ladder(BUDGETS, values)
    assert np.all(np.diff(found) >= 0)
    assert found[2] == values[2]
    if np.all(np.diff(values) >= 0):
        assert found == pytest.approx(values)


@given(hnp.arrays(np.float64, 5, elements=st.floats(-5, 5)), st.floats(-6, 6), st.floats(-6, 6))
def test_a_better_score_is_never_slower(ladder, first, second):
    found = effective_speedup([min(first, second), max(first, second)], BUDGETS, ladder, "max")
    assert found[0] <= found[1]
    assert np.all((found >= 0.25) & (found <= 4))


@given(hnp.arrays(np.float64, 5, elements=st.floats(-5, 5)), st.floats(-6, 6))
def test_direction_only_flips_the_sign(ladder, score):
    assert effective_speedup(score, BUDGETS, ladder, "max") == effective_speedup(-score, BUDGETS, -ladder, "min")


def test_the_suite_is_the_geometric_mean_by_hand(runs_of, rungs_of):
    rungs = {b: [s, s] for b, s in zip(BUDGETS, LADDER, strict=True)}
    runs = runs_of(
        {
            "a": {"reference": [0.6, 0.6], "m": [0.5, 0.5]},
            "b": {"reference": [0.6, 0.6], "m": [0.55, 0.55]},
            "c": {"reference": [0.6, 0.6], "m": [None, None]},
        }
    )
    table = suite_speedups(runs, rungs_of(dict.fromkeys("abc", rungs))).set_index("method")
    assert table.loc["m", "speedup"] == pytest.approx((2 * math.sqrt(2) * 0.25) ** (1 / 3))
    assert table.loc["m", "failed"] == 2
    assert table.loc["reference", ["speedup", "low", "high", "seeds_low", "seeds_high"]].tolist() == [1.0] * 5
    t = 4.3026527297 * np.std([1, 0.5, -2], ddof=1) / math.sqrt(3)
    centre = (1 + 0.5 - 2) / 3
    assert table.loc["m", "low"] == pytest.approx(max(0.25, 2 ** (centre - t)))
    assert table.loc["m", "high"] == pytest.approx(min(4, 2 ** (centre + t)))


def test_the_interval_over_tasks_is_the_t_interval_of_the_logarithms(runs_of, rungs_of):
    rungs = {b: [s, s] for b, s in zip(BUDGETS, LADDER, strict=True)}
    scores = {"a": [0.5, 0.5], "b": [0.55, 0.55], "c": [0.55, 0.55]}
    runs = runs_of({t: {"reference": [0.6, 0.6], "m": s} for t, s in scores.items()})
    row = suite_speedups(runs, rungs_of(dict.fromkeys("abc", rungs))).set_index("method").loc["m"]
    low, high = stats.t.interval(0.95, 2, loc=2 / 3, scale=stats.sem([1, 0.5, 0.5]))
    assert np.log2(row[["speedup", "low", "high"]].tolist()) == pytest.approx([2 / 3, low, high])


def test_a_failed_run_counts_a_quarter_with_its_share(runs_of, rungs_of):
    runs, ladder = board_by_hand(runs_of, rungs_of, method=(0.5, 0.5, None, 0.5))
    cell = cell_speedups(runs, ladder).set_index("method").loc["m"]
    assert cell["speedup"] == pytest.approx(2 ** ((3 * 1 + 1 * -2) / 4))
    assert (cell["n"], cell["failed"]) == (3, 1)
    assert 0.25 <= cell["low"] < cell["speedup"] < cell["high"] <= 4


def test_a_cell_that_always_failed_is_a_quarter_and_one_run_has_no_interval(runs_of, rungs_of):
    runs, ladder = board_by_hand(runs_of, rungs_of, method=(None, None))
    cell = cell_speedups(runs, ladder).set_index("method").loc["m"]
    assert cell[["speedup", "low", "high"]].tolist() == [0.25] * 3
    runs, ladder = board_by_hand(runs_of, rungs_of, method=(0.5,))
    cell = cell_speedups(runs, ladder).set_index("method").loc["m"]
    assert cell["speedup"] == 2
    assert math.isnan(cell["low"])
    assert math.isnan(suite_speedups(runs, ladder).set_index("method").loc["m", "seeds_low"])


def test_a_cell_never_attempted_is_left_out_and_shown_as_coverage_or_counted_as_failed(mixed_board):
    runs, ladder = mixed_board
    part = runs[~((runs["method"] == "m1") & (runs["task"] == "t0002"))]
    left = suite_speedups(part, ladder).set_index("method").loc["m1"]
    whole = suite_speedups(runs, ladder).set_index("method").loc["m1"]
    assert left["coverage"] == pytest.approx(5 / 6)
    assert (left["tasks"], whole["tasks"]) == (5, 6)
    failed = suite_speedups(Board.of(part, ladder, missing="fail")).set_index("method").loc["m1"]
    assert failed["tasks"] == 6
    assert np.log2(failed["speedup"]) == pytest.approx((5 * np.log2(left["speedup"]) - 2) / 6)
    with pytest.raises(ValueError, match="missing"):
        Board.of(part, ladder, missing="ignore")


def test_the_budget_one_rung_is_the_references_own_runs(runs_of, rungs_of):
    runs, ladder = board_by_hand(runs_of, rungs_of)
    with_rung = pd.concat([ladder, rungs_of({"a": {1.0: [0.7, 0.7]}})])
    pd.testing.assert_frame_equal(suite_speedups(runs, with_rung), suite_speedups(runs, ladder))


def test_a_speedup_without_a_ladder_is_refused(mixed_board):
    runs, ladder = mixed_board
    with pytest.raises(ValueError, match="ladder"):
        suite_speedups(runs)
    with pytest.raises(ValueError, match="already"):
        suite_speedups(Board.of(runs, ladder), ladder)


NEWCOMER = st.fixed_dictionaries(
    {
        "scores": st.lists(st.one_of(st.none(), st.floats(-2, 2)), min_size=1, max_size=9),
        "first_seed": st.integers(0, 20),
        "name": st.sampled_from(["a-first", "m3b", "zz-last"]),
        "tasks": st.sets(st.sampled_from([f"t{i:04d}" for i in range(6)]), min_size=1),
    }
)


@settings(max_examples=20, deadline=None)
@given(newcomer=NEWCOMER)
def test_adding_a_method_leaves_every_other_headline_bit_equal(mixed_board, newcomer):
    runs, ladder = mixed_board
    rows = [
        (task, newcomer["name"], newcomer["first_seed"] + i, "ok" if s is not None else "oom", s, "min", "vision")
        for task in sorted(newcomer["tasks"])
        for i, s in enumerate(newcomer["scores"])
    ]
    more = pd.DataFrame(rows, columns=["task", "method", "seed", "status", "score", "direction", "family"])
    more["score"] = more["score"].astype(float)
    grown = pd.concat([runs, more], ignore_index=True)
    for function in (suite_speedups, cell_speedups):
        before, after = function(runs, ladder), function(grown, ladder)
        others = after[after["method"] != newcomer["name"]].reset_index(drop=True)
        pd.testing.assert_frame_equal(others, before, check_exact=True)
        assert len(after) > len(before)


@settings(max_examples=10, deadline=None)
@given(order=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(mixed_board, order):
    runs, ladder = mixed_board
    index = list(range(len(runs)))
    order.shuffle(index)
    shuffled, turned = runs.iloc[index], ladder.iloc[::-1]
    for function in (suite_speedups, cell_speedups):
        pd.testing.assert_frame_equal(function(shuffled, turned), function(runs, ladder), check_exact=True)


def test_the_unit_and_direction_of_a_score_do_not_matter(mixed_board):
    runs, ladder = mixed_board
    other = runs.assign(score=8 - 4 * runs["score"], direction="max")
    moved = suite_speedups(other, ladder.assign(score=8 - 4 * ladder["score"]))
    plain = suite_speedups(runs, ladder)
    pd.testing.assert_frame_equal(moved, plain, check_exact=False, rtol=1e-9)


def test_rounds_must_be_even(mixed_board):
    runs, ladder = mixed_board
    with pytest.raises(ValueError, match="even"):
        cell_speedups(Board.of(runs, ladder, rounds=999))


def test_student_multipliers_give_the_t_interval():
    x = np.array([1.0, 2.0, 4.0])
    draws = StudentMultipliers(200_000, 0, "task").means(x, np.arange(3))
    expected = mean_interval(x)
    assert np.quantile(draws, [0.025, 0.975]) == pytest.approx([expected.low, expected.high], rel=0.02)


def test_student_multipliers_cancel_what_arms_share():
    multipliers = StudentMultipliers(1000, 0, "task")
    seeds = np.array([4, 7, 9])
    shared = np.array([0.3, -1.0, 2.0])
    first, second = multipliers.means(shared, seeds), multipliers.means(shared + 5, seeds)
    assert second - first == pytest.approx(np.full(1000, 5.0))


def test_streams_are_pure_functions_of_their_scope():
    assert stream(1, "a", 2).random() == stream(1, "a", 2).random()
    assert stream(1, "a", 2).random() != stream(1, "a", 3).random()
    assert stream(1, "a").random() != stream(2, "a").random()
    u = np.linspace(0.01, 0.99, 9)
    assert chi_square(u, 4) == pytest.approx(stats.chi2.ppf(u, 4))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("effect", [0.0, 1.4])
def test_coverage_of_a_cells_speedup_with_a_noisy_ladder(simulate, n, effect):
    runs, ladder = simulate({"m": np.full(800, effect)}, n, seed=10 * n)
    table = cell_speedups(Board.of(runs, ladder, rounds=400))
    table = table[table["method"] == "m"]
    truth = 2.0**effect
    assert np.mean((table["low"] <= truth) & (truth <= table["high"])) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_coverage_of_the_suite_speedup_over_seeds(simulate, n):
    effects = np.random.default_rng(0).normal(0.2, 0.4, 2000)
    runs, ladder = simulate({"m": effects}, n, seed=n)
    board = Board.of(runs, ladder)
    for tasks in (1, 5):
        order = np.concatenate([np.random.default_rng(i).permutation(2000) for i in range(tasks)])
        hits = []
        for part in order.reshape(-1, tasks):
            freedom = board.freedom[0, part].astype(float)
            found = seed_interval(board.values[0, part], board.variances[0, part], freedom, 0.95)
            hits.append(found.low <= effects[part].mean() <= found.high)
        assert 0.93 <= np.mean(hits) <= 0.97


@pytest.mark.parametrize("tasks", [2, 5, 10, 20])
def test_coverage_of_the_suite_speedup_over_tasks_and_seeds(simulate, tasks):
    effects = np.random.default_rng(1).normal(0.2, 0.4, 800 * min(tasks, 5))
    runs, ladder = simulate({"m": effects}, 3, seed=tasks)
    values = Board.of(runs, ladder).values[0]
    picks = np.random.default_rng(2).permutation(len(values)) if tasks <= 5 else None
    rng = np.random.default_rng(3)
    hits = []
    for i in range(800):
        index = picks[i * tasks : (i + 1) * tasks] if picks is not None else rng.choice(len(values), tasks, False)
        found = mean_interval(values[index], rounds=1000)
        hits.append(found.low <= 0.2 <= found.high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)


def test_the_spread_between_tasks_holds_the_seeds_noise_already(simulate):
    runs, ladder = simulate({"m": np.full(400, 0.2)}, 2, noise=0.05, seed=3)
    board = Board.of(runs, ladder)
    between, within = np.var(board.values[0], ddof=1), board.variances[0].mean()
    assert between == pytest.approx(within, rel=0.2)
    error = np.std([board.values[0, i::40].mean() for i in range(40)], ddof=1)
    assert math.sqrt(between / 10) == pytest.approx(error, rel=0.2)
    assert math.sqrt((between + within) / 10) > 1.25 * error


def test_the_ladder_report_shows_how_sharp_each_task_is(runs_of, rungs_of):
    runs = runs_of({"a": {"reference": [0.55, 0.65], "m": [0.5, 0.5]}})
    ladder = rungs_of({"a": {0.25: [1.0], 0.5: [0.8, 0.8], 2.0: [0.85, 0.85]}})
    row = ladder_report(runs, ladder).iloc[0]
    assert (row["rungs"], row["ladder_seeds"], row["monotone"]) == (4, 1, False)
    sd = math.sqrt(0.005)
    assert row["span"] == pytest.approx((1.0 - 0.85) / sd)
    assert row["resolution"] == pytest.approx(2 ** (-sd / 0.2))
    assert not row["sharp"]  # 2 budgets are no better than 1


@pytest.mark.parametrize(("doubling", "sharp"), [(0.09, False), (0.11, True)])
def test_a_ladder_is_sharp_where_a_seed_sd_is_worth_less_than_a_doubling(runs_of, rungs_of, doubling, sharp):
    runs = runs_of({"a": {"reference": [0.5, 0.6, 0.7]}, "b": {"reference": [0.5, 0.6, 0.7]}}, "max")  # sd 0.1
    ladder = rungs_of({t: {0.5: [0.2, 0.2], 2.0: [0.6 + d] * 2} for t, d in (("a", doubling), ("b", 1.0))})
    assert Board.of(runs, ladder).sharp.tolist() == [sharp, True]
    assert Board.of(runs, ladder, noise={"a": 0.01}).sharp.tolist() == [True, True]
    assert Board.of(runs).sharp.tolist() == [True, True]


def test_a_ladder_without_a_rise_is_not_sharp_though_the_reference_always_scores_the_same(runs_of, rungs_of):
    """As on a task that the reference never learns: one lucky example must not read as four budgets."""
    runs = runs_of({t: {"reference": [0.0] * 5} for t in "abc"}, "max")
    rises = {"a": {2.0: [0.0, 0.0], 4.0: [0.0, 1e-4]}, "b": {2.0: [0.0, 1e-4]}, "c": {2.0: [0.1, 0.1]}}
    ladder = rungs_of({t: {0.5: [-0.1, -0.1], **own} for t, own in rises.items()})
    assert Board.of(runs, ladder).sharp.tolist() == [False, True, True]
    assert Board.of(runs, ladder, noise=dict.fromkeys("abc", 0.02)).sharp.tolist() == [False, False, True]


def test_equal_scores_read_one_however_many_runs_say_so(runs_of, rungs_of):
    runs = runs_of({"t": {"reference": [0.1] * 5, "m": [0.1] * 3}}, "max")
    flat = rungs_of({"t": {b: [0.1] * 6 for b in (0.25, 0.5, 2.0, 4.0)}})
    assert cell_speedups(runs, flat)["speedup"].tolist() == [1.0, 1.0]
    assert Board.of(runs).values.tolist() == [[0.0], [0.0]]


def test_a_cells_interval_holds_its_value_on_a_bent_ladder(runs_of, rungs_of):
    runs = runs_of({"t": {"reference": [0.0], "m": [-0.15] * 2}}, "max")
    rungs = {0.25: [-0.5], 0.5: [-0.2, 0.2], 2.0: [0.3], 4.0: [0.6]}
    row = cell_speedups(runs, rungs_of({"t": rungs})).set_index("method").loc["m"]
    assert row["low"] <= row["speedup"] <= row["high"]


def test_coverage_over_seeds_on_ladders_that_bend_at_the_reference():
    """Three ladders as the quick tasks have them, in seed sd a doubling; the truth lies 0.7 doublings up."""
    steps = np.array([[8.85, 2.8, 1.32, 0.76], [2.6, 5.13, 2.3, 1.3], [2.95, 5.44, 0.54, 0.0]])
    boards, n, rng = 300, 5, np.random.default_rng(6)
    means = np.tile(np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0))), (boards, 1))
    means -= means[:, [2]]
    common = 0.5 * rng.normal(size=(len(means), n))

    def scores(centre):
        return centre[:, None] + common + np.sqrt(0.75) * rng.normal(size=common.shape)

    utility = np.stack([scores(0.7 * means[:, 3]), scores(means[:, 2])])
    rungs = {b: scores(means[:, k]) for k, b in enumerate(BUDGETS) if b != 1.0}
    tasks, seeds = tuple(f"t{t:04d}" for t in range(len(means))), np.arange(n)
    cells = Cells(("m", "reference"), tasks, ("",) * len(tasks), seeds, utility, np.zeros(utility.shape, dtype=bool))
    board = Board(cells, {name: {b: Arm(seeds, rungs[b][t]) for b in rungs} for t, name in enumerate(tasks)})
    hits = []
    for part in np.arange(len(tasks)).reshape(boards, 3):
        found = seed_interval(
            board.values[0, part], board.variances[0, part], board.freedom[0, part].astype(float), 0.95
        )
        hits.append(found.low <= 0.7 <= found.high)
    assert np.mean(hits) >= 0.88  # of 0.95: the mean over seeds is read on a bent curve, which shifts it


def test_runs_equal_to_the_references_read_as_the_reference_whichever_seeds_they_are(runs_of, rungs_of):
    scores = [0.5, 0.1, 0.13, 0.9, 0.7]
    shifted = [score - 0.1 for score in scores[:2]]
    runs = runs_of({"a": {"reference": scores, "same": scores[:3], "two": scores[:2], "shifted": shifted}})
    ladder = rungs_of({"a": {0.5: [1.0, 1.1], 2.0: [0.2, 0.21]}})
    for board in (Board.of(runs), Board.of(runs, ladder)):
        same = [board.cells.methods.index(name) for name in ("same", "two", "reference")]
        assert board.values[same, 0].tolist() == [0.0, 0.0, 0.0]
        assert board.variances[same, 0].tolist() == [0.0, 0.0, 0.0]
    spread = Board.of(runs)
    assert spread.values[spread.cells.methods.index("shifted"), 0] == pytest.approx(0.1 / np.std(scores, ddof=1))
    found = compare_all(runs)  # one task: by scores, paired all the same
    assert found.methods[0] == "shifted"
    assert found.value[1:].tolist() == [found.value[-1]] * 3
    assert found.p[1:, 1:].min() == 1.0


@pytest.mark.parametrize("scale", ["ladder", "spread"])
def test_a_value_at_the_end_of_the_scale_is_as_sure_as_the_paired_t_of_its_scores(runs_of, rungs_of, scale):
    reference, better = np.array([1.0, 1.01, 0.99]), np.array([0.2, 0.8, 0.65])
    runs = runs_of({"a": {"reference": reference, "m": better}})
    ladder = rungs_of({"a": {0.5: [1.1, 1.12, 1.13], 2.0: [0.95, 0.96, 0.94], 4.0: [0.93, 0.92, 0.94]}})
    board = Board.of(runs, ladder if scale == "ladder" else None)
    m = board.cells.methods.index("m")
    assert board.values[m, 0] == (2.0 if scale == "ladder" else 6.0)
    t = board.values[m, 0] / np.sqrt(board.variances[m, 0])
    assert t == pytest.approx(stats.ttest_rel(reference, better).statistic)
    found = seed_interval(board.values[m], board.variances[m], board.freedom[m].astype(float), 0.95)
    assert found.low < 0.0 < found.high  # p is 0.07
