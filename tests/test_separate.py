"""``levelfield run --until-separated``: seeds go where the order is open, and a stopped comparison goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from suite.cli import separate
from suite.runner.pool import Progress
from suite.runner.spec import RunSpec
from suite.store.files import read

Levelfield = Callable[..., tuple[int, str, str]]
SHIFTS = {"reference": 0.0, "gelu": 0.0, "relu": 3.0, "mish": -1.0}  # sd, lower is better


class Lab:
    """Makes runs without training: scores of a known truth, and a note of each round's plan."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, skip: str = "") -> None:
        self.rounds: list[set[tuple[str, str, int]]] = []
        self.specs: dict[str, RunSpec] = {}
        self.skip = skip
        monkeypatch.setattr(separate, "_attempted", self.attempted)

    def train(self, specs: list[RunSpec]) -> tuple[Progress, list[RunSpec]]:
        fresh = {s.run_id: s for s in specs if s.run_id not in self.specs}
        self.rounds.append({(s.task, s.method, s.seed) for s in fresh.values()})
        self.specs |= fresh
        return Progress(planned=len(specs), cached=len(specs) - len(fresh), done=len(fresh)), specs

    def attempted(self, out: Path, planned: list[RunSpec]) -> pd.DataFrame:
        names = sorted({spec.run_id for spec in planned})
        made = [self.specs[name] for name in names if self.specs[name].method != self.skip]
        rows = [(s.task, s.method, s.seed, "ok", self.score(s), s.info.metric.direction) for s in made]
        return pd.DataFrame(rows, columns=["task", "method", "seed", "status", "score", "direction"])

    @staticmethod
    def score(spec: RunSpec) -> float:
        common, own = (np.random.default_rng([spec.seed, len(name)]).normal() for name in (spec.task, spec.method))
        return SHIFTS[spec.method] + common + 0.4 * own


def plan(*methods: str, max_seeds: int = 20) -> separate.Plan:
    return separate.Plan(methods, ["digits-cnn", "shapes-cnn"], "quick", max_seeds, 0.05)


def test_a_clear_order_takes_few_seeds_and_an_open_one_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab = Lab(monkeypatch)
    found = separate.separate(plan("gelu", "relu", "mish"), lab.train, tmp_path)
    assert found.states is not None
    states = found.states.set_index(["task", "method"])
    for task in ("digits-cnn", "shapes-cnn"):
        assert states.loc[(task, "relu"), "decision"] == "worse"
        assert states.loc[(task, "mish"), "decision"] == "better"
        assert states.loc[(task, "gelu"), ["decision", "seeds"]].tolist() == ["exhausted", 20]
        assert states.loc[(task, "relu"), "seeds"] == 3
    assert len(lab.rounds[0]) == 2 * 4 * 3
    assert {seed for _, _, seed in lab.rounds[1]} == {3, 4}
    assert not {("digits-cnn", "relu", seed) for seed in range(3, 20)} & set().union(*lab.rounds)
    count = {m: len({s.seed for s in lab.specs.values() if s.method == m and s.task == "digits-cnn"}) for m in SHIFTS}
    assert count["reference"] == count["gelu"] == 20
    assert (found.runs, found.full) == (len(lab.specs), 2 * 4 * 20)
    assert found.saved == pytest.approx(1 - len(lab.specs) / 160)
    assert (found.progress.done, found.progress.cached) == (len(lab.specs), 0)


def test_a_comparison_goes_on_from_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = Lab(monkeypatch)
    first = separate.separate(plan("gelu", "relu"), whole.train, tmp_path)
    again = separate.separate(plan("gelu", "relu"), whole.train, tmp_path)
    assert again.progress.done == 0
    pd.testing.assert_frame_equal(first.states, again.states)
    parted = Lab(monkeypatch)
    parted.train(plan("gelu", "relu").first())
    separate.separate(plan("gelu", "relu"), parted.train, tmp_path)
    assert set(parted.specs) == set(whole.specs)


def test_a_method_that_cannot_be_run_here_asks_for_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab = Lab(monkeypatch, skip="gelu")
    found = separate.separate(plan("gelu", "relu"), lab.train, tmp_path)
    assert len(lab.rounds) < 5
    assert set(found.states["method"]) == {"relu"}
    nothing = Lab(monkeypatch, skip="reference")
    monkeypatch.setattr(separate, "_attempted", lambda out, planned: lab.attempted(out, set()))
    assert separate.separate(plan("gelu"), nothing.train, tmp_path).states is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--seeds 5", "--until-separated chooses the seeds itself; give --max-seeds"),
        ("--max-seeds 1", "a paired comparison needs at least 2 seeds, got 1"),
        ("--alpha 2", "--alpha lies between 0 and 1, got 2"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run(
    options: str, says: str, levelfield: Levelfield, tmp_path: Path
) -> None:
    command = ["run", "--methods", "golu", "--tasks", "digits-cnn", "--out", tmp_path / "out", "--until-separated"]
    code, out, err = levelfield(*command, *options.split())
    assert (code, out) == (2, "")
    assert says in err
    assert not (tmp_path / "out").exists()


def test_the_command_stops_where_a_cell_is_settled_and_resumes(levelfield: Levelfield, toy: Path) -> None:
    command = ["run", "--tasks", "toy", "--methods", "toy-more,toy-nan", "--tier", "smoke", "--out", toy / "out"]
    command += ["--workers", "1", "--cost", "0", "--until-separated", "--max-seeds", "5"]
    code, out, err = levelfield(*command)
    assert code == 1, err  # toy-nan diverges
    assert re.search(r"^toy +toy-more +exhausted +5 ", out, re.M)
    assert re.search(r"^toy +toy-nan +failed +3 ", out, re.M)
    assert "13 runs where 5 seeds for every cell take 15: 13% saved" in out
    assert "in at most 5% of the cells, over all looks together" in out
    assert "13 of 13 runs done, 3 failed" in out
    rows = read(toy / "out").table.to_pylist()
    assert sorted(r["seed"] for r in rows if r["method"] == "reference") == [0, 1, 2, 3, 4]

    code, out, _ = levelfield(*command, "--json")
    found = json.loads(out)
    assert (found["done"], found["cached"], found["runs"], found["fixed_runs"]) == (0, 13, 13, 15)
    assert {c["method"]: c["decision"] for c in found["cells"]} == {"toy-more": "exhausted", "toy-nan": "failed"}
    assert len((toy / "log").read_text().splitlines()) == 13
