"""What runs take, what a plan lacks, and what of it some processor hours make."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from test_claims import BASE, row, rows, times

from suite.effort import steps_of, within
from suite.runner.spec import RunSpec
from suite.store.files import read

Levelfield = Callable[..., tuple[int, str, str]]


def test_the_time_of_a_run_is_that_of_runs_like_it() -> None:
    known = times(
        rows("digits-cnn", "reference", BASE, cpu_seconds=2.0),
        [row("digits-cnn", "gelu", seed, 0.1, cpu_seconds=s) for seed, s in enumerate((3.0, 4.0, 50.0))],
        rows("digits-cnn", "leaky-relu", BASE[:2], cpu_seconds=5.0, set_hp='{"negative_slope": 1}'),
        rows("digits-cnn", "leaky-relu", BASE[:1], cpu_seconds=7.0),
        rows("digits-cnn", "mish", [None, None], cpu_seconds=0.1),
        rows("digits-cnn", "silu", BASE, cpu_seconds=9.0, budget=3.0),
        rows("convection", "reference", BASE, cpu_seconds=11.0),
        [row("convection", "swish-trainable", 0, None, cost_ratio=3.0)],
    )
    assert known.of(RunSpec("digits-cnn", "gelu")) == 4.0
    assert known.of(RunSpec("digits-cnn", "leaky-relu", hp={"negative_slope": 1.0})) == 5.0
    assert known.of(RunSpec("digits-cnn", "leaky-relu", hp={"negative_slope": 0.5})) == 5.0  # of the method's three
    assert known.of(RunSpec("digits-cnn", "mish")) == known.of(RunSpec("digits-cnn", "silu")) == 3.0  # of all eleven
    assert known.of(RunSpec("digits-cnn", "sam")) == 6.0  # two passes a step
    assert known.of(RunSpec("convection", "extragradient")) == 11.0  # the budget counts passes
    assert known.of(RunSpec("digits-cnn", "swish-trainable+sam")) == 18.0  # a cost measured elsewhere
    assert math.isnan(known.of(RunSpec("digits-cnn", "gelu", "smoke")))
    measured = times(
        rows("digits-cnn", "reference", BASE, cpu_seconds=3.0),
        rows("convection", "reference", BASE, cpu_seconds=11.0),
        [row("digits-cnn", "extragradient", 0, None, cost_ratio=2.4)],
        [row("convection", "sam", 0, None, cost_ratio=1.5)],
    )
    assert measured.of(RunSpec("digits-cnn", "extragradient")) == pytest.approx(7.2)
    assert measured.of(RunSpec("convection", "extragradient")) == pytest.approx(13.2)  # 2.4 a step, of two evaluations
    assert measured.of(RunSpec("convection", "sam")) == pytest.approx(16.5)
    assert measured.of(RunSpec("digits-cnn", "sam")) == pytest.approx(9.0)
    seconds, unknown = known.total(
        [RunSpec("digits-cnn", "gelu"), RunSpec("digits-cnn", "sam"), RunSpec("shapes-vit", "gelu")]
    )
    assert (seconds, unknown) == (10.0, 1)


def test_a_run_that_was_only_ever_skipped_takes_no_time() -> None:
    known = times(
        rows("digits-cnn", "reference", BASE, cpu_seconds=2.0),
        rows("digits-cnn", "mish", [None, None], status="skipped"),
        [*rows("digits-cnn", "gelu", [None], status="skipped"), row("digits-cnn", "gelu", 1, 0.5, cpu_seconds=3.0)],
    )
    assert known.of(RunSpec("digits-cnn", "mish", seed=7)) == 0.0
    assert known.of(RunSpec("digits-cnn", "gelu")) == 3.0
    assert known.of(RunSpec("digits-cnn", "silu")) == 2.0  # of the task, the skipped left out


def test_the_cheapest_tasks_come_first_and_of_each_the_reference() -> None:
    known = times(
        rows("digits-cnn", "reference", BASE, cpu_seconds=5.0),
        rows("digits-cnn", "mish", BASE, cpu_seconds=2.0),
        rows("digits-cnn", "gelu", BASE, cpu_seconds=1.0),
        rows("convection", "gelu", BASE, cpu_seconds=3.0),
    )
    planned = [RunSpec(task, m, seed=s) for task in ("digits-cnn", "shapes-vit", "convection") for m in ("mish", "gelu")
               for s in (0, 1)]  # fmt: skip
    steps = steps_of([*planned, RunSpec("digits-cnn", "reference")], known)
    assert [(s.name, len(s.specs), s.seconds) for s in steps[:5]] == [
        ("digits-cnn: reference", 1, 5.0),
        ("digits-cnn: gelu", 2, 7.0),
        ("digits-cnn: mish", 2, 11.0),  # 11 s in all: before convection, 12 s
        ("convection: mish", 2, 17.0),  # the plan's order where two take the same
        ("convection: gelu", 2, 23.0),
    ]
    assert [s.name for s in steps[5:]] == ["shapes-vit: mish", "shapes-vit: gelu"]
    assert all(math.isnan(s.seconds) for s in steps[5:])
    assert sorted(s.run_id for step in steps for s in step.specs) == sorted(
        [s.run_id for s in planned] + [RunSpec("digits-cnn", "reference").run_id]
    )
    assert within(steps, 11 / 3600) == steps[:3]
    assert within(steps, 1e9) == steps[:5]


def test_what_is_missing_is_listed_and_made_within_some_hours(
    levelfield: Levelfield, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy)
    command = ["run", "--tasks", "toy,toy-long", "--tier", "smoke", "--methods", "toy-more,toy-misfit,toy-raises"]
    command += ["--out", "out", "--cost", "0", "--workers", "1", "--seeds"]
    code, out, _ = levelfield(*command, "2", "--dry-run")
    assert (code, (toy / "out").exists()) == (0, False)
    assert re.search(r"^toy +4 +8 runs, processor time unknown +unknown$", out, re.M)
    assert out.endswith("\nmissing: 16 runs, processor time unknown; 0 already there\n")
    code, out, err = levelfield(*command, "2", "--hours", "1")
    assert (code, "within 1 h: no run" in err, (toy / "log").exists()) == (0, True, False)

    assert levelfield(*command[:2], "toy", *command[3:], "1")[0] == 3  # toy-misfit is skipped
    begun = len((toy / "log").read_text().splitlines())
    code, out, _ = levelfield(*command, "2", "--dry-run", "--json")
    found = json.loads(out)
    (short, long), there = found["tasks"], found["already_there"]
    assert (short["task"], short["unknown"], long["task"], long["unknown"]) == ("toy", 0, "toy-long", 8)
    assert 0 < short["seconds"] < 100
    assert short["so_far"] == pytest.approx(short["seconds"])
    assert (long["so_far"], there) == (None, 3)
    assert {m["method"]: m["seeds"] for m in short["methods"]} == {
        "reference": [1], "toy-more": [1], "toy-misfit": [0, 1], "toy-raises": [1]
    }  # fmt: skip
    assert short["methods"][0]["method"] == "reference"
    code, out, _ = levelfield(*command, "2", "--dry-run", "--retry", "--json")
    assert json.loads(out)["already_there"] == 2  # the failure would be made again
    assert len(read(toy / "out").table) == 4  # and is still there

    code, out, err = levelfield(*command, "2", "--hours", "1")
    assert code == 3
    assert re.search(r"^missing: 13 runs, about \d+ s of processor time, 8 of them left out of that$", err, re.M)
    assert re.search(r"^within 1 h: 5 runs, about \d+ s of processor time$", err, re.M)
    assert "5 of 5 runs done, 3 already there, 1 failed, 2 skipped" in out
    assert len((toy / "log").read_text().splitlines()) == begun + 5
    assert {r["task"] for r in read(toy / "out").table.to_pylist()} == {"toy"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--hours", "1", "--dry-run"], "give one of them"),
        (["--hours", "1", "--until-separated"], "leave them out here"),
        (["--dry-run", "--budget", "seconds"], "leave them out here"),
    ],
)
def test_what_has_no_known_time_is_refused(
    options: list[str], says: str, levelfield: Levelfield, tmp_path: Path
) -> None:
    code, _, err = levelfield("run", "--tasks", "digits-cnn", "--methods", "relu", "--out", tmp_path / "out", *options)
    assert (code, says in err) == (2, True), err
    assert not (tmp_path / "out").exists()
