"""The gate's course over cells, with sides that give canned rows: what is run, on which seeds, what is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from suite.gate.compare import Gate
from suite.gate.quality import FAIL, INCONCLUSIVE, PASS, Verdict
from suite.gate.report import Report
from suite.gate.sides import Cell, GateError, Listing, Stored, Tree
from suite.registry import registry

REFERENCE = Cell("smoke", "toy", "reference", "{}", 3.0)
MINE = Cell("smoke", "toy", "mine", "{}", 3.0)
FACTS = {("smoke", "toy"): {"direction": "min", "best": 0.0, "sd": 1.0, "floor": 0.1, "budget": 3.0}}


def row(cell: Cell, seed: int, shift: float = 0.0, **more: Any) -> dict[str, Any]:
    """A run whose score is its seed's own noise and a shift."""
    score = 10.0 + np.random.default_rng(seed).normal() + shift
    return {
        "tier": cell.tier, "task": cell.task, "method": cell.method, "set_hp": cell.hp, "budget": cell.budget,
        "seed": seed, "trial": -1, "status": "ok", "message": "", "budget_kind": "steps", "score": score,
        "digest": f"{score:.12f}", "environment": '{"device": "cpu"}', "environment_hash": "here", "exhibits": "",
        "method_hash": "abc", "direction": "min", "finished_at": seed, "train_seconds": 1.0, "eval_seconds": 0.0,
        "setup_seconds": 0.5, "flops": 100.0, "cost_ratio": 1.2, "cost_low": 1.19, "cost_high": 1.21, **more,
    }  # fmt: skip


@dataclass
class Canned(Tree):
    """A tree that runs nothing; `asked` tells what was wanted of it."""

    shift: dict[Cell, float] = field(default_factory=dict)
    more: dict[Cell, dict[str, Any]] = field(default_factory=dict)
    cells: tuple[Cell, ...] = (REFERENCE, MINE)
    asked: list[dict[Cell, list[int]]] = field(default_factory=list)
    measured: dict[str, Any] | None = None

    def listing(self, *wanted: Any) -> Listing:
        names = [sorted({getattr(c, part) for c in self.cells}) for part in ("task", "method")]
        return Listing(dict.fromkeys(self.cells, "abc"), FACTS, *names)

    def rows(self, wanted: dict[Cell, list[int]], cost: float = 0.0) -> dict[Cell, pd.DataFrame]:
        self.asked.append(wanted)
        return {
            cell: pd.DataFrame([row(cell, s, self.shift.get(cell, 0.0), **self.more.get(cell, {})) for s in seeds])
            for cell, seeds in wanted.items()
            if cell not in self.refused
        }

    def measure(self, cell: Cell, seconds: float) -> dict[str, Any]:
        if self.measured is None:
            raise GateError("head: no measurement")
        return self.measured


def tree(label: str = "head", **more: Any) -> Canned:
    return Canned(Path("nowhere"), Path("nowhere"), label, **more)


def stored(seeds: int = 5, cells: tuple[Cell, ...] = (REFERENCE, MINE), **more: Any) -> Stored:
    return Stored(pd.DataFrame([row(cell, seed, **more) for cell in cells for seed in range(seeds)]))


def found(report: Report) -> dict[tuple[str, str], Verdict]:
    return {(v.method, v.question): v for v in report.verdicts}


def judged(base: Canned, head: Canned) -> dict[tuple[str, str], Verdict]:
    gate = Gate(base, head, cost=0.0)
    gate.judge(gate._choose([], ["mine"], "smoke", "cpu"))
    return found(Report(gate.found))


def test_what_is_bit_identical_on_two_seeds_is_run_no_further() -> None:
    base, head = tree("base"), tree()
    assert judged(base, head)["mine", "quality"].verdict == PASS
    assert head.asked == [{REFERENCE: [0, 1], MINE: [0, 1]}]


def test_what_differs_is_run_on_every_seed_and_what_is_open_on_five_more() -> None:
    small = tree(shift={MINE: 1e-3})
    verdicts = judged(tree("base"), small)
    assert verdicts["mine", "quality"].verdict == PASS
    assert small.asked[1:] == [{MINE: [0, 1, 2, 3, 4]}]
    large = tree(shift={MINE: 2.0})
    verdict = judged(tree("base"), large)["mine", "quality"]
    assert verdict.verdict == FAIL
    assert large.asked[2:] == [{MINE: [5, 6, 7, 8, 9]}]
    assert verdict.seconds == pytest.approx(2 * 10 * 1.5)  # both sides, ten seeds


def test_lost_runs_are_not_run_again_to_make_sure() -> None:
    head = tree(more={MINE: {"status": "error", "message": "no", "digest": "none"}})
    verdicts = judged(tree("base"), head)
    assert verdicts["mine", "failures"].verdict == FAIL
    assert verdicts["mine", "quality"].verdict == INCONCLUSIVE
    assert len(head.asked) == 2


def test_what_one_side_cannot_run_or_skips_is_told() -> None:
    skip = {MINE: {"status": "skipped", "message": "needs data"}}
    assert "head skips it: needs data" in judged(tree("base"), tree(more=skip))["mine", "presence"].rule
    gate = Gate(tree("base", more=skip), tree(more=skip), cost=0.0)
    gate.judge(gate._choose([], ["mine"], "smoke", "cpu"))
    assert gate.notes == ["toy, mine: skipped: needs data"]
    assert {v.method for v in gate.found} == {"reference"}
    refused = judged(tree("base"), tree(refused={MINE: "no hyper-parameter"}))["mine", "presence"]
    assert (refused.verdict, refused.rule) == (FAIL, "head cannot run it: no hyper-parameter")


def test_a_new_cell_is_noted_and_a_removed_one_fails_even_where_nobody_asked_for_it() -> None:
    gate = Gate(tree("base"), tree(cells=(REFERENCE, Cell("smoke", "toy", "other", "{}", 3.0))), cost=0.0)
    gate._choose([], [], "smoke", "cpu")
    (gone,) = gate.found
    assert (gone.method, gone.question, gone.verdict) == ("mine", "presence", FAIL)
    assert "new there: other" in gone.rule
    assert gate.notes == ["new in head, nothing to hold it against: other toy"]


def test_stored_seeds_are_those_that_are_run() -> None:
    head = tree(shift={MINE: 1e-3})
    report = Gate(stored(3), head, seeds=5, cost=0.0).report()
    assert report.verdict == PASS
    assert head.asked == [{REFERENCE: [0, 1], MINE: [0, 1]}, {MINE: [0, 1, 2]}]


def test_fresh_seeds_of_head_meet_the_stored_ones_where_none_are_left() -> None:
    head = tree(shift={MINE: 3.0})
    verdict = found(Gate(stored(5), head, cost=0.0).report())["mine", "quality"]
    assert head.asked[2] == {MINE: [5, 6, 7, 8, 9]}
    assert "T2, unpaired: 5 runs" in verdict.rule
    left = tree(shift={MINE: 3.0})
    verdict = found(Gate(stored(8), left, cost=0.0).report())["mine", "quality"]
    assert left.asked[2] == {MINE: [5, 6, 7]}
    assert verdict.verdict == FAIL


def test_the_ladder_of_the_reference_is_no_cell() -> None:
    rungs = [Cell("smoke", "toy", "reference", "{}", budget) for budget in (1.0, 3.0, 6.0)]
    head = tree()
    Gate(stored(2, cells=(*rungs, MINE)), head, cost=0.0).report()
    assert set(head.asked[0]) == {REFERENCE, MINE}


def test_the_ladder_of_the_reference_is_no_cell_of_two_results_folders_either() -> None:
    budget = float(registry().task("digits-cnn").tiers["smoke"].budget)
    rungs = [Cell("smoke", "digits-cnn", "reference", "{}", budget * part) for part in (0.25, 0.5, 1.0)]
    sides = [stored(2, cells=tuple(rungs)) for _ in range(2)]
    questions = [v.question for v in Gate(*sides, cost=0.0).report().verdicts]
    assert "quality" in questions
    assert len(questions) == len(set(questions))


def test_several_rows_of_a_seed_count_as_the_latest() -> None:
    old, new = stored(2, cells=(MINE,), score=0.0).frame, stored(2, cells=(MINE,), score=1.0, finished_at=99).frame
    rows = Stored(pd.concat([new, old])).rows({MINE: [0, 1]})[MINE]
    assert list(rows["score"]) == [1.0, 1.0]


def slower(ratio: float, itself: float = 1.01) -> dict[str, Any]:
    cost = {"cost_ratio": ratio, "cost_low": 0.99 * ratio, "cost_high": 1.01 * ratio}
    return {"cost": cost, "itself": {"cost_ratio": itself}}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(slower(1.8), FAIL), (slower(1.2), PASS), (slower(1.8, itself=1.2), INCONCLUSIVE), (None, INCONCLUSIVE)],
)
def test_a_stored_cost_ratio_that_grew_is_measured_again(measured: dict[str, Any] | None, expected: str) -> None:
    head = tree(more={MINE: slower(1.8)["cost"]}, measured=measured)
    verdicts = found(Gate(stored(2), head).report())
    assert verdicts["mine", "step time"].verdict == expected
    assert ("reference", "step time") not in verdicts  # its ratio is to itself
    assert verdicts["mine", "flops"].verdict == PASS
