"""Slices, sheets, cells and standings from rows, checked against numbers worked out by hand."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from leaderboard.model import FLOOR_WORDS, Slice, build
from leaderboard.standings import SliceStats, overviews, slot_tables
from suite.store.files import Read
from suite.store.schema import RUNS

START = datetime(2026, 1, 1, tzinfo=UTC)
T2 = 4.302652729911275  # Student's t, 97.5%, 2 degrees of freedom
SLOTS = {"golu": "activation", "mish": "activation", "relu": "activation", "lion": "optimizer", "reference": ""}


def row(task: str, method: str, seed: int, score: float | None, **facts: Any) -> dict[str, Any]:
    """A result row; a score of None is a diverged run."""
    ok = score is not None
    name = f"{task}-{method}-{seed}-{facts.get('budget', 100)}-{facts.get('trial', -1)}-{facts.get('tier', 'quick')}"
    made = {
        "run_id": f"{hash_of(name):016x}",
        "schema_version": 1,
        "task": task,
        "task_version": 1,
        "task_hash": "t1",
        "family": "vision",
        "method": method,
        "slot": SLOTS.get(method, "activation"),
        "method_hash": "m1",
        "hp": "{}",
        "set_hp": "{}",
        "recipe": json.dumps({"activation": {"method": "relu", "hp": {"slope": 0.25}}}),
        "tier": "quick",
        "budget_kind": "steps",
        "budget": 100.0,
        "budget_unit": "steps",
        "seed": seed,
        "trial": -1,
        "trials": 0,
        "status": "ok" if ok else "diverged",
        "message": "" if ok else "training loss is not finite at step 12",
        "attempts": 1,
        "metric": "ce",
        "unit": "nats",
        "direction": "min",
        "score": score,
        "metrics": [("accuracy", 0.5 + seed / 100), ("ce", score)] if ok else [],
        "steps": 100,
        "spent": 100.0,
        "parameters": 1234,
        "train_seconds": 2.0 + seed,
        "cost_ratio": 1.0 if method == "reference" else 1.25,
        "cost_low": 1.0 if method == "reference" else 1.2,
        "cost_high": 1.0 if method == "reference" else 1.3,
        "digest": f"{hash_of(name + str(score)):016x}",
        "environment": json.dumps({"device": "cpu", "hardware": "test", "threads": 1, "python": "3.11"}),
        "environment_hash": "e1",
        "commit": "c" * 40,
        "dirty": False,
        "trust": "reproduced",
        "finished_at": START + timedelta(seconds=seed),
        "curve": [
            {"spent": 25.0 * i, "steps": 25 * i, "seconds": 0.5 * i, "train_loss": 1.0, "score": 2.0 / (1 + i)}
            for i in range(5)
        ],
        "exhibits": "",
    }
    return made | facts


def hash_of(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


def rows_of(task: str, method: str, scores: Iterable[float | None], **facts: Any) -> list[dict[str, Any]]:
    return [row(task, method, seed, score, **facts) for seed, score in enumerate(scores)]


def table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=RUNS)


def read_of(rows: Iterable[dict[str, Any]], problems: Iterable[str] = ()) -> Read:
    return Read(table(rows), list(problems), 1)


def golden() -> list[dict[str, Any]]:
    """Reference 1.2 with sd 0.2; golu ties, mish is better, relu is worse and diverged once."""
    return [
        *rows_of("toy", "reference", [1.0, 1.2, 1.4]),
        *rows_of("toy", "golu", [0.9, 1.0, 1.1]),
        *rows_of("toy", "mish", [0.5, 0.69, 0.9]),
        *rows_of("toy", "relu", [2.0, None, 2.4]),
    ]


QUICK = Slice("quick")


def test_golden_board_has_the_scores_worked_out_by_hand() -> None:
    sheet = build(table(golden())).sheets[QUICK, "toy"]
    base = sheet.cells["reference"].score
    assert base.value == pytest.approx(1.2)
    assert (base.high - base.low) / 2 == pytest.approx(T2 * 0.2 / math.sqrt(3))
    assert sheet.cells["golu"].score.value == pytest.approx(1.0)
    assert sheet.cells["relu"].score.value == pytest.approx(2.2)
    assert sheet.noise[0] == pytest.approx(0.2)


def test_a_task_whose_seeds_hardly_differ_is_measured_by_its_floor() -> None:
    """A share of 1e-4 where the reference learns nothing is no gain of six standard deviations, nor four budgets."""
    facts = {"metric": "accuracy", "unit": "share", "direction": "max", "family": "language", "budget": 1000.0}
    rows = [
        *rows_of("modadd-nodecay", "reference", [0.0, 0.0, 0.0], **facts),
        *rows_of("modadd-nodecay", "relu", [0.0, 0.0, 3e-4], **facts),
        *rows_of("modadd-nodecay", "mish", [0.01, 0.01, 0.01], **facts),
    ]
    for share in (0.5, 2.0):
        rungs = {**facts, "budget": 1000.0 * share}
        rows += [row("modadd-nodecay", "reference", seed, 1e-4, **rungs) for seed in range(3)]
    sheet = build(table(rows)).sheets[QUICK, "modadd-nodecay"]
    assert sheet.noise == (0.02, 5, FLOOR_WORDS)
    stats = SliceStats.of([sheet])
    assert (stats.laddered, stats.blunt) == (None, ("modadd-nodecay",))
    (found,) = slot_tables([sheet], stats)
    gains = {row.method: row.gain.value for row in found.rows if row.gain}
    assert gains == pytest.approx({"reference": 0.0, "relu": 1e-4 / 0.02, "mish": 0.5})


def test_golden_board_has_the_paired_differences_worked_out_by_hand() -> None:
    cells = build(table(golden())).sheets[QUICK, "toy"].cells
    golu, mish, relu = (cells[m].gain for m in ("golu", "mish", "relu"))
    assert golu.value == pytest.approx(0.2)
    assert golu.high - golu.value == pytest.approx(T2 * 0.1 / math.sqrt(3))
    assert mish.value == pytest.approx(1.51 / 3)
    assert mish.value - mish.low == pytest.approx(T2 * math.sqrt(1 / 30000) / math.sqrt(3))
    assert (relu.value, relu.n) == (pytest.approx(-1.0), 2)
    assert {m: c.verdict for m, c in cells.items()} == {
        "reference": "reference", "golu": "tied", "mish": "better", "relu": "worse"
    }  # fmt: skip


def test_golden_headline_counts_a_failed_run_as_six_sd_below() -> None:
    board = build(table(golden()))
    (slot,) = overviews(board)[0].tables
    gains = {r.method: r.gain.value for r in slot.rows if r.gain}
    assert gains["mish"] == pytest.approx((1.2 - 2.09 / 3) / 0.2)
    assert gains["golu"] == pytest.approx(1.0)
    assert gains["relu"] == pytest.approx((2 * -5 + -6) / 3)
    assert [r.method for r in slot.rows] == ["mish", "golu", "reference", "relu"]
    assert slot.headline == "gain"


def several(ran: dict[str, str], **facts: Any) -> list[dict[str, Any]]:
    """Method -> the tasks it was run on; the later in the alphabet the worse it is, the reference is last."""
    base = [r for task in "ABCDEF" for r in rows_of(task, "reference", [1.0, 1.2, 1.4])]
    return base + [
        r
        for place, (method, tasks) in enumerate(ran.items())
        for task in tasks
        for r in rows_of(task, method, [0.1 * place + seed / 100 for seed in range(3)], **facts)
    ]


def test_who_ran_a_method_on_few_tasks_only_gets_no_rank() -> None:
    """Of the six tasks E was run on by half of the methods and counts here, F by fewer and does not."""
    ran = {"golu": "F", "gelu": "AB", "silu": "ABE", "mish": "ABCDEF", "relu": "ABCDE", "selu": "ABCD"}
    (slot,) = overviews(build(table(several(ran))))[0].tables
    rows = {r.method: r for r in slot.rows}
    assert {m for m, r in rows.items() if r.partial} == {"golu", "gelu"}
    assert [r.method for r in slot.rows] == ["silu", "mish", "relu", "selu", "reference", "golu", "gelu"]
    assert slot.partial == 2
    assert (rows["golu"].rank, rows["golu"].group, rows["golu"].letters) == (None, 0, "")
    assert rows["silu"].rank[0] == 1  # type: ignore[index]
    assert "golu" not in slot.leaders
    assert rows["golu"].gain is not None
    with_all = {
        r.method: repr(r.gain) for r in overviews(build(table(several(ran | {"golu": "ABCDEF"}))))[0].tables[0].rows
    }
    assert {m: repr(r.gain) for m, r in rows.items() if m != "golu"} == {
        m: v for m, v in with_all.items() if m != "golu"
    }


def test_a_task_that_hardly_anyone_has_run_costs_nobody_its_rank() -> None:
    ran = {"golu": "A", "gelu": "A", "silu": "A", "mish": "ABCDEF"}
    (slot,) = overviews(build(table(several(ran))))[0].tables
    assert (slot.partial, slot.rows[0].method) == (0, "golu")


def test_a_run_that_says_it_cannot_be_made_leaves_its_task_out() -> None:
    """silu has run on A; B and C, where it was skipped, are not asked of it, those where nobody ran it are."""
    ran = {"golu": "ABC", "gelu": "ABC", "mish": "ABC", "silu": "A"}
    rows = several(ran)
    refused = [row(task, "silu", 0, None, status="skipped", message="has no place for it") for task in "BC"]
    (slot,) = overviews(build(table([*rows, *refused])))[0].tables
    assert slot.partial == 0
    (slot,) = overviews(build(table(rows)))[0].tables
    assert [r.method for r in slot.rows if r.partial] == ["silu"]
    failed = [row(task, "silu", 0, None) for task in "BC"]
    (slot,) = overviews(build(table([*rows, *failed])))[0].tables
    assert slot.partial == 0  # a failed run is an attempt


def test_differences_are_signed_so_that_plus_is_better_whatever_the_direction() -> None:
    up = {"direction": "max", "metric": "accuracy"}
    rows = [*rows_of("t", "reference", [0.5, 0.6], **up), *rows_of("t", "golu", [0.7, 0.8], **up)]
    assert build(table(rows)).sheets[QUICK, "t"].cells["golu"].gain.value == pytest.approx(0.2)


def test_identical_runs_are_said_to_be_identical_not_tied() -> None:
    rows = [*rows_of("t", "reference", [1.0, 2.0]), *rows_of("t", "relu", [1.0, 2.0])]
    assert build(table(rows)).sheets[QUICK, "t"].cells["relu"].verdict == "same"


def test_one_pair_of_runs_has_no_interval_and_no_verdict() -> None:
    rows = [*rows_of("t", "reference", [1.0]), *rows_of("t", "relu", [0.5])]
    cell = build(table(rows)).sheets[QUICK, "t"].cells["relu"]
    assert cell.verdict == "open"
    assert math.isnan(cell.gain.low)


def test_adding_a_method_leaves_every_other_score_bit_equal() -> None:
    before = build(table(golden()))
    after = build(table([*golden(), *rows_of("toy", "silu", [3.0, 0.1, 5.0, 0.3])]))
    for method, cell in before.sheets[QUICK, "toy"].cells.items():
        other = after.sheets[QUICK, "toy"].cells[method]
        assert (cell.score, cell.gain) == (other.score, other.gain)
    headline = [{r.method: repr(r.gain) for r in overviews(b)[0].tables[0].rows} for b in (before, after)]
    assert headline[0] == {m: headline[1][m] for m in headline[0]}


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = golden()
    shuffled = random.Random(1).sample(rows, len(rows))
    first, second = (build(table(r)).sheets[QUICK, "toy"] for r in (rows, shuffled))
    for method, cell in first.cells.items():
        other = second.cells[method]
        assert [r.run_id for r in cell.runs] == [r.run_id for r in other.runs]
        assert (cell.score, cell.gain, cell.letters, cell.rank) == (other.score, other.gain, other.letters, other.rank)


def test_rows_of_older_code_are_left_out_and_counted() -> None:
    old = rows_of("toy", "golu", [9.0, 9.0], method_hash="m0", finished_at=START - timedelta(days=1))
    for r in old:
        r["run_id"] += "-old"
    board = build(table([*golden(), *old]))
    assert board.sheets[QUICK, "toy"].cells["golu"].score.value == pytest.approx(1.0)
    assert board.left_out == {"older code of the task or method": 2}


def test_rows_of_an_older_task_are_never_mixed_in() -> None:
    newer = START + timedelta(days=1)
    fresh = rows_of("toy", "reference", [5.0, 6.0], task_hash="t2", finished_at=newer)
    for r in fresh:
        r["run_id"] += "-new"
    board = build(table([*golden(), *fresh]))
    assert list(board.sheets[QUICK, "toy"].cells) == ["reference"]
    assert board.left_out == {"older code of the task or method": 12}


def test_other_budgets_of_the_reference_are_its_ladder_and_of_methods_are_left_out() -> None:
    ladder = [r for share in (0.5, 2.0) for r in rows_of("toy", "reference", [1.5, 1.6, 1.7], budget=100 * share)]
    other = rows_of("toy", "golu", [0.1], budget=400.0)
    board = build(table([*golden(), *ladder, *other]))
    sheet = board.sheets[QUICK, "toy"]
    assert sorted(sheet.rungs) == [0.5, 2.0]
    assert sheet.cells["golu"].n == 3
    assert board.left_out == {"a budget other than the tier's": 1}


def test_a_ladder_makes_the_effective_speedup_the_headline() -> None:
    rows = golden()
    for share, mean in ((0.25, 3.2), (0.5, 2.2), (2.0, 0.7), (4.0, 0.5)):
        rows += rows_of("toy", "reference", [mean - 0.2, mean, mean + 0.2], budget=100 * share)
    (slot,) = overviews(build(table(rows)))[0].tables
    found = {r.method: r.speedup.value for r in slot.rows if r.speedup}
    assert slot.headline == "speedup"
    assert found["reference"] == pytest.approx(1.0)
    assert found["golu"] == pytest.approx(2 ** ((1.2 - 1.0) / 0.5))  # between 1.2 at 1 and 0.7 at 2 budgets
    assert found["relu"] == pytest.approx(2 ** ((2 * -1 + -2) / 3))  # 2.2 is worth half a budget; one failed run


def test_a_method_run_only_where_there_is_no_ladder_stands_beside_those_run_where_there_is_one() -> None:
    ladder = [r for share in (0.5, 2.0) for r in rows_of("toy", "reference", [1.2 / share] * 3, budget=100 * share)]
    bare = [*rows_of("bare", "reference", [1.0, 1.2, 1.4]), *rows_of("bare", "gelu", [0.9, 1.1, 1.3])]
    lone = [*rows_of("lone", "reference", [1.0]), *rows_of("lone", "silu", [0.9])]
    (slot,) = overviews(build(table([*golden(), *ladder, *bare, *lone])))[0].tables
    rows = {r.method: r for r in slot.rows}
    assert slot.headline == "gain"
    assert rows["golu"].speedup and not rows["gelu"].speedup and not rows["silu"].speedup
    assert rows["gelu"].gain and rows["gelu"].gain.value > 0
    assert not rows["silu"].gain


def test_a_failed_cell_stays_on_the_board_and_counts_the_floor() -> None:
    rows = [*rows_of("t", "reference", [1.0, 1.2]), *rows_of("t", "golu", [None, None])]
    board = build(table(rows))
    cell = board.sheets[QUICK, "t"].cells["golu"]
    (slot,) = overviews(board)[0].tables
    assert (cell.verdict, cell.n, cell.failed) == ("failed", 0, 2)
    assert next(r.gain.value for r in slot.rows if r.method == "golu" and r.gain) == -6.0


def test_a_skipped_run_is_not_attempted_rather_than_failed() -> None:
    rows = [*rows_of("t", "reference", [1.0, 1.2]), *rows_of("t", "golu", [None, None], status="skipped")]
    cell = build(table(rows)).sheets[QUICK, "t"].cells["golu"]
    assert (cell.verdict, cell.failed, cell.rank) == ("skipped", 0, None)


def test_a_task_whose_reference_failed_still_shows_scores() -> None:
    rows = [*rows_of("t", "reference", [None, None]), *rows_of("t", "golu", [1.0, 1.2])]
    board = build(table(rows))
    (slot,) = overviews(board)[0].tables
    assert board.sheets[QUICK, "t"].cells["golu"].score.value == pytest.approx(1.1)
    assert board.sheets[QUICK, "t"].cells["golu"].gain.n == 0
    assert slot.headline == ""


def test_a_task_without_a_reference_still_shows_scores() -> None:
    board = build(table(rows_of("t", "golu", [1.0, 1.2])))
    assert board.sheets[QUICK, "t"].reference is None
    assert board.sheets[QUICK, "t"].cells["golu"].verdict == "open"


def test_tuned_rows_make_a_board_of_their_own_with_the_frozen_reference() -> None:
    tuned = rows_of("toy", "golu", [0.3, 0.4, 0.5], trial=5, trials=8, set_hp='{"slope": 2}')
    search = [row("toy", "golu", 1_000_000, 0.2, trial=5, trials=8, set_hp='{"slope": 2}')]
    board = build(table([*golden(), *tuned, *search]))
    part = Slice("quick", trials=8)
    assert part.key == "quick-tuned8"
    assert board.sheets[part, "toy"].cells["golu"].gain.value == pytest.approx(0.8)
    assert board.sheets[QUICK, "toy"].cells["golu"].gain.value == pytest.approx(0.2)
    assert board.left_out == {"trials of a search": 1}


def test_equal_seconds_make_a_board_for_each_machine_class() -> None:
    def timed(hardware: str) -> list[dict[str, Any]]:
        facts = {"budget_kind": "seconds", "environment": json.dumps({"device": "cpu", "hardware": hardware})}
        found = [
            *rows_of("toy", "reference", [1.0, 1.2], **facts),
            *rows_of("toy", "golu", [0.9, 1.0], budget=80.0, **facts),
        ]
        return [r | {"run_id": r["run_id"] + hardware} for r in found]

    board = build(table([*timed("fast"), *timed("slow")]))
    assert len(board.slices) == 2
    assert all(part.kind == "seconds" and len(board.sheets[part, "toy"].cells) == 2 for part in board.slices)


def test_the_ladder_is_that_of_equal_seconds_too() -> None:
    ladder = [r for share in (0.5, 2.0) for r in rows_of("toy", "reference", [1.2 / share] * 3, budget=100 * share)]
    facts = {"budget_kind": "seconds"}
    timed = [*rows_of("toy", "reference", [1.1, 1.2, 1.3], **facts), *rows_of("toy", "golu", [0.8, 0.9, 1.0], **facts)]
    timed = [r | {"run_id": r["run_id"] + "s"} for r in timed]
    found = build(table([*golden(), *ladder, *timed]))
    part = next(s for s in found.slices if s.kind == "seconds")
    sheet = found.sheets[part, "toy"]
    assert [r.run_id for r in sheet.cells["reference"].runs] == [r["run_id"] for r in timed[:3]]
    assert sorted(sheet.rungs) == [0.5, 2.0]
    assert found.sheets[QUICK, "toy"].rungs == sheet.rungs
    (slot,) = next(v for v in overviews(found) if v.slice == part).tables
    speed = {r.method: r.speedup.value for r in slot.rows if r.speedup}
    assert speed == {"reference": 1.0, "golu": pytest.approx(2 ** ((1.2 - 0.9) / 0.6))}  # between 1.2 at 1 and 0.6 at 2


def test_hyper_parameters_set_by_hand_are_left_out() -> None:
    board = build(table([*golden(), *rows_of("toy", "lion", [0.1], set_hp='{"lr": 1}')]))
    assert "lion" not in board.methods
    assert board.left_out == {"hyper-parameters set by hand": 1}


@pytest.mark.parametrize(
    "fault",
    [{"direction": "sideways"}, {"score": float("nan")}, {"environment": "{"}, {"hp": "[]"}, {"budget_kind": "luck"}],
)
def test_a_row_that_cannot_be_read_is_named_and_the_rest_stays(fault: dict[str, Any]) -> None:
    bad = row("toy", "lion", 0, 1.0) | fault
    board = build(table([*golden(), bad]), ["x.parquet: damaged"])
    assert "lion" not in board.methods
    assert board.sheets[QUICK, "toy"].cells["mish"].n == 3
    assert board.problems[0] == "x.parquet: damaged"
    assert bad["run_id"] in board.problems[1]


def test_a_family_by_itself_has_its_own_headline_and_ranks() -> None:
    other = {"family": "pde"}
    rows = [
        *golden(),
        *rows_of("heat", "reference", [1.0, 1.2, 1.1], **other),
        *rows_of("heat", "golu", [3.0, 3.3, 3.1], **other),
    ]
    views = {v.family: v for v in overviews(build(table(rows)))}
    assert set(views) == {"", "pde", "vision"}
    alone = next(r for r in views["pde"].tables[0].rows if r.method == "golu")
    assert alone.gain is not None
    assert alone.gain.value == -6.0
    assert next(r for r in views["vision"].tables[0].rows if r.method == "golu").gain.value == pytest.approx(1.0)  # type: ignore[union-attr]


def test_every_attempted_run_is_in_exactly_one_cell() -> None:
    rows = golden()
    board = build(table(rows))
    shown = [r.run_id for s in board.sheets.values() for c in s.cells.values() for r in c.runs]
    assert sorted(shown) == sorted(r["run_id"] for r in rows)
    assert len(board.runs) == len(rows)


# ---------------------------------------------------------------- trust


def test_self_reported_rows_are_told_of_and_never_compared() -> None:
    """A rival that nobody has run again changes nothing of the others, and is in no sheet."""
    rival = rows_of("toy", "elu", [0.01, 0.01, 0.01], trust="self-reported")
    stated = rows_of("toy", "silu", [0.02], trust="")
    without, found = build(table(golden())), build(table([*golden(), *rival, *stated]))
    assert repr(found.sheets) == repr(without.sheets)
    assert found.methods == without.methods
    assert [(r.method, r.seed) for r in found.unverified] == [("elu", 0), ("elu", 1), ("elu", 2), ("silu", 0)]
    assert found.left_out == {"self-reported: nobody has run it again": 4}


def test_a_self_reported_reference_is_none() -> None:
    worse = rows_of("toy", "reference", [9.0, 9.0, 9.0], trust="self-reported")
    later = [{**r, "finished_at": START + timedelta(days=1), "run_id": f"later{i}"} for i, r in enumerate(worse)]
    cell = build(table([*golden(), *later])).sheets[QUICK, "toy"].cells["reference"]
    assert [r.score for r in cell.runs] == [1.0, 1.2, 1.4]


def test_smoke_runs_have_no_rank_and_no_order() -> None:
    rows = [{**r, "tier": "smoke", "trust": "smoke"} for r in golden()]
    board = build(table(rows))
    (sheet,) = board.sheets.values()
    assert {cell.rank for cell in sheet.cells.values()} == {None}
    assert {cell.letters for cell in sheet.cells.values()} == {""}
    assert not board.unverified
    (view,) = overviews(board)
    assert all(row.rank is None and not row.letters for t in view.tables for row in t.rows)
    assert {(t.headline, t.leaders) for t in view.tables} == {("", ())}
