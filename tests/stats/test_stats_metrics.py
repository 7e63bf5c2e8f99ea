"""The metric registry, the whole board, and that the package is pure."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from suite import stats
from suite.stats import METRICS, Board, board_table, elo_ratings, iqm, mean_ranks, suite_speedups, win_rates
from suite.stats.metrics import available


def test_every_metric_says_what_a_reader_needs():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.title
        assert metric.unit
        assert metric.direction in ("min", "max")
        assert metric.formula.endswith(".")


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric_gives_a_value_inside_its_interval(mixed_board, name):
    runs, ladder = mixed_board
    table = METRICS[name].compute(Board.of(runs, ladder))
    assert table.columns.tolist() == ["method", "value", "low", "high"]
    assert np.isfinite(table["value"]).all()
    known = table.dropna()
    assert (known["low"] <= known["value"] + 1e-12).all()
    assert (known["value"] <= known["high"] + 1e-12).all()


@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if not m.depends_on_pool])
def test_a_metric_that_says_so_does_not_depend_on_the_pool(mixed_board, name):
    runs, ladder = mixed_board
    whole = METRICS[name].compute(Board.of(runs, ladder)).set_index("method")
    part = METRICS[name].compute(Board.of(runs[runs["method"] != "m5"], ladder)).set_index("method")
    pd.testing.assert_frame_equal(whole.drop(index="m5"), part, check_exact=True)


@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if m.depends_on_pool])
def test_a_metric_that_says_so_depends_on_the_pool(mixed_board, name):
    runs, ladder = mixed_board
    whole = METRICS[name].compute(Board.of(runs, ladder)).set_index("method")["value"]
    part = METRICS[name].compute(Board.of(runs[runs["method"] != "m5"], ladder)).set_index("method")["value"]
    assert not np.allclose(whole.drop("m5").reindex(part.index), part)


@pytest.mark.parametrize("name", list(METRICS))
def test_a_method_of_none_of_the_tasks_changes_no_value(mixed_board, name):
    runs, ladder = mixed_board
    first, *tasks = sorted(set(runs["task"]))
    runs = runs[
        (runs["method"] != "m5") | (runs["task"] == first)
    ]  # as one that ran where the ladder is not sharp only
    found = METRICS[name].compute(Board.of(runs, ladder).only(tasks=tasks)).set_index("method")
    wanted = METRICS[name].compute(Board.of(runs[runs["method"] != "m5"], ladder).only(tasks=tasks)).set_index("method")
    pd.testing.assert_frame_equal(found.drop(index="m5", errors="ignore"), wanted, check_exact=True)
    if "m5" in found.index and name not in ("coverage", "failed"):
        assert np.isnan(found.loc["m5", "value"])


def test_the_board_is_its_metrics_side_by_side(mixed_board):
    runs, ladder = mixed_board
    table = board_table(runs, ladder).set_index("method")
    speed = suite_speedups(runs, ladder).set_index("method")
    assert table["speedup"].to_dict() == speed["speedup"].to_dict()
    assert table["speedup_seeds_low"].to_dict() == speed["seeds_low"].to_dict()
    assert table["iqm"].to_dict() == pytest.approx(np.exp2(iqm(runs, ladder).set_index("method")["iqm"]).to_dict())
    assert table["elo"].to_dict() == elo_ratings(runs).set_index("method")["elo"].to_dict()
    assert table["mean_rank_high"].to_dict() == mean_ranks(runs).set_index("method")["high"].to_dict()
    assert table["win_rate"].dropna().to_dict() == win_rates(runs).set_index("method")["win_rate"].to_dict()
    assert table["speedup"].is_monotonic_decreasing
    assert table["letters"].iloc[0].startswith("a")


def test_a_board_without_a_ladder_has_the_other_metrics(mixed_board):
    runs, ladder = mixed_board
    table = board_table(runs)
    assert "speedup" not in table
    assert {"iqm", "win_rate", "elo", "mean_rank", "coverage", "failed", "rank", "letters"} <= set(table.columns)
    assert [m.name for m in available(Board.of(runs, ladder), ["elo", "iqm"])] == ["elo", "iqm"]
    with pytest.raises(ValueError, match="ladder"):
        board_table(runs, names=["speedup"])
    with pytest.raises(KeyError, match="shine"):
        board_table(runs, names=["shine"])


def test_the_board_is_the_same_bytes_every_time_and_in_any_order_of_rows(mixed_board):
    runs, ladder = mixed_board
    first = board_table(runs, ladder)
    shuffled = board_table(runs.sample(frac=1, random_state=5), ladder.sample(frac=1, random_state=6))
    pd.testing.assert_frame_equal(first, shuffled, check_exact=True)
    assert first.to_csv() == board_table(runs, ladder).to_csv()


def test_global_random_state_and_the_input_are_left_alone(mixed_board):
    runs, ladder = mixed_board
    copies = runs.copy(), ladder.copy()
    np.random.seed(11)
    before = np.random.get_state()[1].copy()
    board_table(runs, ladder)
    assert np.array_equal(before, np.random.get_state()[1])
    pd.testing.assert_frame_equal(runs, copies[0])
    pd.testing.assert_frame_equal(ladder, copies[1])


def test_the_seed_moves_bootstrap_intervals_and_nothing_else(mixed_board):
    runs, ladder = mixed_board
    one, two = (stats.cell_speedups(Board.of(runs, ladder, seed=s)) for s in (0, 1))
    assert one["speedup"].equals(two["speedup"])
    assert not one["low"].equals(two["low"])


def test_columns_of_arrow_types_give_the_same_board(mixed_board):
    runs, ladder = mixed_board
    arrow = runs.convert_dtypes(dtype_backend="pyarrow")
    pd.testing.assert_frame_equal(board_table(arrow, ladder), board_table(runs, ladder), check_exact=True)


def test_everything_public_is_documented_and_listed():
    for name in stats.__all__:
        assert getattr(stats, name).__doc__ or name in ("METRICS", "REFERENCE")


def test_the_package_needs_neither_torch_nor_a_plotting_library():
    code = (
        "import sys; import suite.stats; "
        "bad = {'torch', 'matplotlib', 'sklearn', 'statsmodels', 'pyarrow.dataset'} & set(sys.modules); "
        "sys.exit(str(sorted(bad)) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_noise_that_was_measured_apart_is_the_scale_without_a_ladder(runs_of):
    runs = runs_of({"a": {"reference": [1.0, 1.001], "m": [0.9, 0.901]}})
    assert Board.of(runs).scales[0].sd == pytest.approx(0.001 / np.sqrt(2))
    apart = Board.of(runs, noise={"a": 0.2})
    assert apart.scales[0].sd == 0.2
    assert apart.only(methods=["reference", "m"]).scales[0].sd == 0.2
