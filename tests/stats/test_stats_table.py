"""The runs table: what is refused, and that nothing is dropped in silence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from suite.stats import Board, TableError, board_table, check_ladder, check_runs, suite_speedups


@pytest.fixture
def small(runs_of):
    return runs_of({"a": {"reference": [1.0, 1.1], "m": [0.9, 1.0]}, "b": {"reference": [2.0, 2.1], "m": [None, 2.0]}})


def test_rows_come_out_in_canonical_order_whatever_the_input_order(small):
    shuffled = small.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(check_runs(small), check_runs(shuffled))


def test_the_input_table_is_left_as_it_was(small):
    before = small.copy()
    check_runs(small)
    Board.of(small)
    pd.testing.assert_frame_equal(small, before)


@pytest.mark.parametrize("column", ["task", "method", "seed", "status", "score", "direction"])
def test_a_missing_column_is_named(small, column):
    with pytest.raises(TableError, match=column):
        check_runs(small.drop(columns=column))


def test_a_run_that_occurs_twice_is_refused_and_named(small):
    with pytest.raises(TableError, match=r"\(a, m, seed 0\)"):
        check_runs(pd.concat([small, small.iloc[[2]]]))


def test_an_ok_run_without_a_finite_score_is_refused(small):
    small.loc[0, "score"] = np.nan
    with pytest.raises(TableError, match="finite"):
        check_runs(small)
    small.loc[0, "score"] = np.inf
    with pytest.raises(TableError, match="finite"):
        check_runs(small)


def test_a_row_without_a_status_is_refused(small):
    small.loc[0, "status"] = None
    with pytest.raises(TableError, match="status"):
        check_runs(small)


def test_an_odd_direction_is_refused(small):
    with pytest.raises(TableError, match="upwards"):
        check_runs(small.assign(direction="upwards"))


def test_two_tiers_or_two_hashes_of_a_task_are_never_mixed(small):
    with pytest.raises(TableError, match="tier"):
        check_runs(small.assign(tier=["quick"] * 7 + ["standard"]))
    with pytest.raises(TableError, match="task_hash"):
        check_runs(small.assign(task_hash=["x", "x", "x", "y", "z", "z", "z", "z"]))
    check_runs(small.assign(task_hash=["x"] * 4 + ["z"] * 4))


def test_budgets_in_steps_are_one_a_task_and_in_seconds_may_differ(small):
    budgets = [100.0] * 4 + [200.0] * 3 + [150.0]
    with pytest.raises(TableError, match="budget"):
        check_runs(small.assign(budget_kind="steps", budget=budgets))
    check_runs(small.assign(budget_kind="seconds", budget=budgets))


def test_a_method_that_was_only_skipped_stays_on_the_board_with_no_coverage(small):
    skipped = small.iloc[[2]].assign(method="absent", status="skipped", score=np.nan)
    board = board_table(pd.concat([small, skipped])).set_index("method")
    assert board.loc["absent", "coverage"] == 0
    assert board.loc["absent", "letters"] == ""
    assert pd.isna(board.loc["absent", "rank"])
    assert board.loc["m", "coverage"] == 1


def test_every_method_of_the_table_is_on_the_board(mixed_board):
    runs, ladder = mixed_board
    runs = runs.copy()
    lost = runs["method"] == "m2"
    runs.loc[lost, "status"], runs.loc[lost, "score"] = "oom", np.nan
    board = board_table(runs, ladder).set_index("method")
    assert sorted(board.index) == sorted(set(runs["method"]))
    assert board.loc["m2", "failed"] == 1
    assert board.loc["m2", "speedup"] == 0.25
    assert board.loc["m2", "rank"] == len(board)


def test_a_board_without_a_reference_says_so(runs_of):
    runs = runs_of({"a": {"m": [1.0, 2.0], "k": [1.0, 2.0]}})
    with pytest.raises(TableError, match="reference"):
        suite_speedups(Board.of(runs, check_ladder_rows()))


def check_ladder_rows() -> pd.DataFrame:
    rows = [("a", b, 0, "ok", 1.0 / b) for b in (0.5, 1.0, 2.0)]
    return pd.DataFrame(rows, columns=["task", "budget", "seed", "status", "score"])


def test_the_ladder_is_checked_too():
    ladder = check_ladder_rows()
    with pytest.raises(TableError, match="budget"):
        check_ladder(ladder.drop(columns="budget"))
    with pytest.raises(TableError, match="twice"):
        check_ladder(pd.concat([ladder, ladder.iloc[[0]]]))
    assert len(check_ladder(ladder.assign(status=["ok", "error", "ok"]))) == 2


def test_a_task_without_a_finished_reference_run_is_named(runs_of, rungs_of):
    runs = runs_of({"a": {"reference": [None, None], "m": [0.9, 1.0]}})
    with pytest.raises(TableError, match="'a'"):
        suite_speedups(runs, rungs_of({"a": {0.5: [1.2], 2.0: [0.8]}}))


def test_a_task_without_a_ladder_is_named(runs_of, rungs_of):
    runs = runs_of({t: {"reference": [1.0, 1.1], "m": [0.9, 1.0]} for t in "ab"})
    with pytest.raises(TableError, match="'b'"):
        suite_speedups(runs, rungs_of({"a": {0.5: [1.2], 2.0: [0.8]}}))


def test_an_unknown_part_of_a_board_is_refused(mixed_board):
    board = Board.of(*mixed_board)
    with pytest.raises(TableError, match="nobody"):
        board.only(methods=["nobody"])
    assert board.only(tasks=["t0001"]).cells.tasks == ("t0001",)


@pytest.mark.parametrize("laddered", [True, False])
def test_a_part_of_a_board_takes_over_what_was_computed(mixed_board, laddered):
    """Bit for bit what the part would compute itself, with the reference in it; without it nothing is taken over."""
    runs, ladder = mixed_board
    whole = Board.of(runs, ladder if laddered else None)
    methods, tasks = ["m1", "m4", "reference"], ["t0001", "t0002", "t0005"]
    fresh = Board.of(runs, ladder if laddered else None).only(methods, tasks)
    names = ("means", "values", "variances", "run_values")
    for name in names:
        getattr(whole, name)
    part = whole.only(methods, tasks)
    for name in names:
        np.testing.assert_array_equal(vars(part)[name], getattr(fresh, name))
    assert "values" not in vars(whole.only(["m1", "m4"], tasks))
    more = part.at_rounds(64)
    assert (more.rounds, part.rounds) == (64, 1000)
    assert vars(more)["values"] is part.values


@pytest.mark.parametrize("odd", [0.5, np.inf, "first"])
def test_a_seed_that_is_no_whole_number_is_refused(small, odd):
    seeds = small["seed"].astype(object)
    seeds.iloc[0] = odd
    with pytest.raises(TableError, match=f"whole number, got {odd}"):
        check_runs(small.assign(seed=seeds))
    with pytest.raises(TableError, match="whole number"):
        check_ladder(check_ladder_rows().assign(seed=[0, 0, odd]))


@pytest.mark.parametrize("column", ["task", "budget", "seed", "status"])
def test_a_ladder_with_gaps_is_refused(column):
    ladder = check_ladder_rows()
    with pytest.raises(TableError, match=f"without {column}"):
        check_ladder(ladder.assign(**{column: [None, *ladder[column][1:]]}))


def test_a_board_takes_a_share_as_its_level_and_mirrored_rounds(mixed_board):
    with pytest.raises(ValueError, match="level"):
        Board.of(*mixed_board, level=95)
    with pytest.raises(ValueError, match="even"):
        Board.of(*mixed_board, rounds=0)
