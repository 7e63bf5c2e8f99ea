"""The way of a method from its author to the board: bundled, checked, run again, taken in."""

from __future__ import annotations

import json
import math
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forge import Files, rebuilt, with_manifest, with_rows

import suite
from leaderboard.model import build
from suite.cli.verify import Examiner
from suite.fingerprint import source_hash
from suite.registry import registry
from suite.runner.execute import curve_digest, facts_of
from suite.runner.pool import Pool
from suite.runner.spec import RunSpec
from suite.store.files import read
from suite.trust import bundle as bundles
from suite.trust.bundle import REFERENCE_ROWS, BadBundle
from suite.trust.sandbox import OFF, unavailable
from suite.trust.verify import (
    COUNTS,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    REPRODUCED,
    Rerun,
    draw,
    judge,
    settled,
    spread_of,
)

Levelfield = Callable[..., tuple[int, str, str]]

TASK = '''
import numpy as np
import torch
from torch import nn

from suite import Metric, Noise, Tier, define_task, optimizer, schedule
from suite.train.build import Build
from suite.train.workload import Task, Workload


class Line(Workload):
    def __init__(self, context):
        self.context = context
        build = Build(context)
        self.x = torch.randn(16, 1, generator=context.generator("points"))
        self.stream = context.generator("order")
        self.model = build.finish(nn.Sequential(build.head(1, 1), build.activation(1)))
        with torch.no_grad():
            for parameter in self.model[0].parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=context.generator("init")))

    def next(self):
        self.rows = torch.randint(16, (4,), generator=self.stream)
        self.examples += 4

    def loss(self):
        return ((self.model(self.x[self.rows]) - 2 * self.x[self.rows]) ** 2).mean()

    def validate(self):
        with torch.no_grad():
            return {"mse": float(((self.model(self.x) - 2 * self.x) ** 2).mean())}

    def predict(self):
        return {"y": self.model(torch.linspace(-1, 1, 5)[:, None]).numpy()[:, 0]}


@define_task(
    "line", family="vision", version=1, metric=Metric("mse", "squared units", "min"), slots=("activation",),
    recipe={"activation": "line-plain", "optimizer": ("line-descent", {"lr": 0.1}), "schedule": "line-level"},
    tiers={"quick": Tier(20, evals=2, limit=90.0)}, noise={"quick": Noise(0.5, n=5)},
)
class LineTask(Task):
    """Learns y = 2 x in twenty steps."""

    def workload(self, context):
        return Line(context)

    def answers(self, tier):
        return 2 * np.linspace(-1, 1, 5)

    def score(self, predictions, answers):
        return {"mse": float(np.mean((predictions["y"].astype(np.float64) - answers) ** 2))}


@optimizer("line-descent", defaults={"lr": 0.1})
class Descent(torch.optim.SGD):
    """w <- w - lr g."""


@schedule("line-level")
def level(step, total):
    """1 throughout."""
    return 1.0
'''
PLAIN = '''
from suite import activation
from torch import nn


@activation("line-plain")
class Plain(nn.Module):
    """x."""

    def forward(self, x):
        return x
'''
METHOD = '''
import torch
from torch import nn

from suite import Paper, activation


@activation("my-leaky", paper=Paper("A paper", arxiv="0000.00000"))
class Leaky(nn.Module):
    """x for x > 0, x/2 else."""

    def forward(self, x):
        return torch.where(x > 0, x, x / 2)
'''


class Place:
    """A task that everybody has, a method that its author has, and the bundle of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("line", TASK), ("plain", PLAIN), ("my_leaky", METHOD)):
            (folder / f"{name}.py").write_text(text)
        self.everybody = os.pathsep.join(str(folder / f"{n}.py") for n in ("line", "plain"))
        self.author = os.pathsep.join([self.everybody, str(folder / "my_leaky.py")])
        self.runs, self.file, self.bytes = folder / "runs", folder / "my-leaky.zip", b""

    def command(self, out: Path) -> list[str]:
        words = ["submit", "my-leaky", "--tasks", "line", "--seeds", "4", "--cost", "0", "--licence", "MIT"]
        return [*words, "--author", "A. Author", "--runs", str(self.runs), "--out", str(out)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The author's side, done once."""
    from suite.cli.main import main

    place = Place(tmp_path_factory.mktemp("author"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEVELFIELD_ENTRY", place.author)
        with pytest.raises(SystemExit) as end:
            main(place.command(place.file))
        assert not end.value.code
    place.bytes = place.file.read_bytes()
    return place


@pytest.fixture
def place(made: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    """The side of whoever receives it: the task is known, the method is not; `file` is a fresh copy of the bundle."""
    monkeypatch.setenv("LEVELFIELD_ENTRY", made.everybody)
    made.file = tmp_path / "received.zip"
    made.file.write_bytes(made.bytes)
    return made


# ---------------------------------------------------------------- the bundle


def test_a_bundle_holds_source_rows_and_their_hashes(place: Place) -> None:
    found = bundles.read(place.file)
    assert found.sources == {"my_leaky.py": METHOD.encode()}
    assert Counter(found.rows["method"].to_pylist()) == {"my-leaky": 4}
    assert Counter(found.reference["method"].to_pylist()) == {"reference": 4}
    assert set(found.rows["trust"].to_pylist()) == set(found.reference["trust"].to_pylist()) == {"self-reported"}
    manifest = found.manifest
    assert (manifest["author"], manifest["licence"]) == ("A. Author", "MIT")
    assert manifest["paper"] == {"title": "A paper", "arxiv": "0000.00000"}
    assert manifest["summary"] == "x for x > 0, x/2 else."
    assert (set(manifest["tasks"]), manifest["seeds"]) == ({"line"}, [0, 1, 2, 3])


def test_what_was_run_here_is_first_hand_and_what_leaves_is_not(place: Place) -> None:
    assert set(read(place.runs).table["trust"].to_pylist()) == {"reproduced"}


def test_the_same_runs_make_the_same_bytes(
    place: Place, levelfield: Levelfield, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LEVELFIELD_ENTRY", place.author)
    code, out, _ = levelfield(*place.command(tmp_path / "again.zip"))
    assert code == 0
    assert "my-leaky on 1 task, 4 runs" in out
    assert (tmp_path / "again.zip").read_bytes() == place.bytes


def test_a_method_that_others_would_refuse_is_refused_before_any_run(
    place: Place, levelfield: Levelfield, tmp_path: Path
) -> None:
    file = tmp_path / "clock.py"
    file.write_text(METHOD.replace("import torch\n", "import torch, time\n", 1).replace("my-leaky", "my-clock"))
    code, _, err = levelfield("submit", "my-clock", "--entry", file, "--runs", tmp_path / "none")
    assert code == 2
    assert "my-clock does what no method may: clock.py:2: time: reads the clock" in err
    assert not (tmp_path / "none").exists()


def test_a_bundle_with_a_file_name_that_no_reader_takes_is_not_made(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "my leaky.py"
    file.write_text(METHOD)
    monkeypatch.setenv("LEVELFIELD_ENTRY", os.pathsep.join([place.everybody, str(file)]))
    with pytest.raises(BadBundle, match="name the file with letters"):
        bundles.make(suite.method("my-leaky"), bundles.read(place.file).rows.to_pylist(), [])


# ---------------------------------------------------------------- verifying


def test_an_honest_bundle_is_reproduced_bit_for_bit(place: Place, levelfield: Levelfield) -> None:
    code, out, err = levelfield("verify", place.file, "--sandbox", "off")
    assert code == 0, out + err
    assert out.count("reproduced: 1 run bit-identical") == 2  # the method, and the reference it is compared with
    assert "my-leaky: reproduced" in out
    assert "its rows stay self-reported" in out


def test_what_is_reproduced_is_taken_in_with_its_source_and_a_record(
    place: Place, levelfield: Levelfield, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    options = ("--sandbox", "off", "--rerun", "2", "--into", results, "--by", "V. Erifier", "--json")
    code, out, err = levelfield("verify", place.file, *options)
    assert code == 0, out + err
    assert json.loads(out)["verdict"] == REPRODUCED
    taken = read(results).table
    assert Counter(zip(taken["method"].to_pylist(), taken["trust"].to_pylist(), strict=True)) == {
        ("my-leaky", "reproduced"): 4,
        ("reference", "reproduced"): 4,
    }
    (record,) = (results / "verified").iterdir()
    told = json.loads(record.read_text())
    assert (told["verified_by"], told["author"], told["verdict"]) == ("V. Erifier", "A. Author", REPRODUCED)
    evidence = [run["run_id"] for task in told["tasks"] for run in task["evidence"]]
    assert len(evidence) == 4
    assert set(evidence) <= set(taken["run_id"].to_pylist())
    (source,) = (results / "sources").iterdir()
    assert json.loads(source.read_text()) == {"my_leaky.py": METHOD}
    (sheet,) = build(taken).sheets.values()
    assert set(sheet.cells) == {"my-leaky", "reference"}


@pytest.mark.slow
@pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "bubblewrap works")
def test_a_bundle_is_reproduced_in_the_sandbox(place: Place, levelfield: Levelfield) -> None:
    code, out, err = levelfield("verify", place.file, "--sandbox", "require", "--every-task")
    assert (code, "my-leaky: reproduced" in out) == (0, True), out + err


def shifted(by: float) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Another environment's row: other bits, and a score that is off."""

    def shift(row: dict[str, Any]) -> dict[str, Any]:
        score = row["score"] + by
        told = {"score": score, "metrics": [("mse", score)], "digest": curve_digest(row["curve"], score)}
        return {**row, **told, "environment_hash": "elsewhere"}

    return shift


def earlier(row: dict[str, Any]) -> dict[str, Any]:
    """A row that states half of the budget at each evaluation: twice as fast, with the digest as it was."""
    return {**row, "curve": [{**point, "spent": point["spent"] / 2} for point in row["curve"]]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "code", "verdict"),
    [
        (0.01, 0, REPRODUCED),
        (-3.0, 1, NOT_REPRODUCED),
        (3.0, 1, NOT_REPRODUCED),
        (-1.0, 4, INCONCLUSIVE),
    ],
)
def test_scores_from_elsewhere_are_held_against_the_tasks_noise(
    by: float, code: int, verdict: str, place: Place, levelfield: Levelfield, tmp_path: Path
) -> None:
    """The task's seed sd is 0.5: the margin is 1, and a claim may be neither better nor worse by more."""
    place.file.write_bytes(with_rows(place.bytes, shifted(by)))
    results = tmp_path / "results"
    got, out, err = levelfield("verify", place.file, "--sandbox", "off", "--into", results)
    assert got == code, out + err
    assert f"my-leaky: {verdict}" in out
    assert "another environment than the author's" in out
    assert json.loads(next((results / "verified").iterdir()).read_text())["verdict"] == verdict
    assert bool(list(results.rglob("*.parquet"))) == (verdict == REPRODUCED)


@pytest.mark.slow
def test_a_reference_made_worse_is_not_reproduced(place: Place, levelfield: Levelfield) -> None:
    """The comparison is forged by its other side."""
    place.file.write_bytes(with_rows(place.bytes, shifted(5.0), REFERENCE_ROWS))
    code, out, _ = levelfield("verify", place.file, "--sandbox", "off")
    assert code == 1
    assert "reference on line" in out
    assert "(better than stated)" in out


def test_a_success_that_was_written_by_hand_is_not_reproduced(
    place: Place, levelfield: Levelfield, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its source raises."""
    file = tmp_path / "my_leaky.py"
    file.write_text(METHOD.replace("return torch", "raise ValueError('never worked')\n        return torch"))
    honest = bundles.read(place.file)
    with monkeypatch.context() as patch:
        patch.setenv("LEVELFIELD_ENTRY", os.pathsep.join([place.everybody, str(file)]))
        rows = [
            {**row, **facts_of(RunSpec("line", "my-leaky", "quick", row["seed"]))} for row in honest.rows.to_pylist()
        ]
        place.file.write_bytes(bundles.make(suite.method("my-leaky"), rows, honest.reference.to_pylist()))
    code, out, _ = levelfield("verify", place.file, "--sandbox", "off")
    assert code == 1
    assert "is stated ok and ends as error here: ValueError: never worked" in out


def test_a_method_whose_runs_differ_under_another_task_name_is_not_reproduced(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit-identical under the task's own name, and only there."""
    examiner = Examiner(bundles.read(place.file), tmp_path, OFF, 1)

    def again(sides: dict[str, list[RunSpec]], masked: bool = False) -> dict[str, list[Rerun]]:
        def made(name: str, spec: RunSpec) -> Rerun:
            stored = examiner.stored[spec.run_id]
            return Rerun(stored, {**stored, "digest": "other"} if masked and name != "reference" else stored)

        return {name: [made(name, spec) for spec in specs] for name, specs in sides.items()}

    monkeypatch.setattr(examiner, "_again", again)
    method, reference = examiner.examine(1, False)
    assert (method.verdict, reference.verdict) == (NOT_REPRODUCED, REPRODUCED)
    assert "it looks at what it runs on" in method.rule


# ---------------------------------------------------------------- refusals


def source(text: str) -> Callable[[Files], Any]:
    return lambda files: files.update({"source/my_leaky.py": text.encode()})


@pytest.mark.parametrize(
    ("forge", "what"),
    [
        (lambda b: b[:-100], "damaged, or not a bundle"),
        (lambda b: b"PK", "damaged, or not a bundle"),
        (
            lambda b: rebuilt(b, source(METHOD + "\n"), rehash=False),
            "source/my_leaky.py is not the file that the manifest states",
        ),
        (lambda b: rebuilt(b, source(METHOD.replace("x / 2", "x / 3"))), "its source hashes to"),
        (lambda b: rebuilt(b, source("def f(:")), "its source cannot be read"),
        (lambda b: rebuilt(b, lambda files: files.pop("source/my_leaky.py")), "the source of the method is not in it"),
        (lambda b: rebuilt(b, lambda files: files.update({"source/a.sh": b""})), "has no place in a bundle"),
        (lambda b: with_manifest(b, format=2), "format 2; this release reads format 1"),
        (lambda b: with_manifest(b, seeds="many"), "a field is missing, unknown or of a wrong type"),
        (lambda b: with_manifest(b, method="reference"), "is not one that the manifest states"),
        (lambda b: with_manifest(b, tasks={}), "is not one that the manifest states"),
        (lambda b: with_manifest(b, method_hash="0" * 12), "a row comes from other source"),
        (lambda b: with_rows(b, lambda r: {**r, "budget": 2e9}), "states budget = '2000000000.0'; this run has 20.0"),
        (lambda b: with_rows(b, lambda r: {**r, "direction": "max"}), "states direction = 'max'"),
        (lambda b: with_rows(b, lambda r: {**r, "set_hp": '{"lr": 1}'}), "states set_hp"),
        (lambda b: with_rows(b, lambda r: {**r, "run_id": r["run_id"][::-1]}), "states run_id"),
        (lambda b: with_rows(b, lambda r: {**r, "run_id": "x"}), "it holds a run twice"),
        (lambda b: with_rows(b, lambda r: {**r, "score": math.nan}), "is ok and has no score"),
        (lambda b: with_rows(b, lambda r: {**r, "score": r["score"] / 2}), "a digest that is not of its curve and its"),
        (lambda b: with_rows(b, lambda r: {**r, "metrics": [("mse", 0.0)]}), "states two scores"),
        (lambda b: with_rows(b, earlier), "has a curve that is not of 2 evaluations over its budget"),
        (lambda b: with_rows(b, lambda r: {**r, "steps": 3}), "ends elsewhere than its curve"),
        (lambda b: with_rows(b, lambda r: {**r, "curve": [None]}), "has a curve with empty points"),
        (lambda b: with_rows(b, lambda r: {**r, "environment": "[" * 5000}), "cannot be one"),
        (lambda b: with_rows(b, lambda r: {**r, "status": "perfect"}), "unknown status"),
    ],
)
def test_a_bundle_that_is_not_what_it_says_is_refused_before_any_run(
    forge: Callable[[bytes], bytes], what: str, place: Place, levelfield: Levelfield, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pool, "run", lambda *a, **k: pytest.fail("something was run"))
    place.file.write_bytes(forge(place.bytes))
    code, out, err = levelfield("verify", place.file, "--sandbox", "off")
    assert (code, out) == (2, ""), err
    assert what in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import os\n" + METHOD, "its source does what no method may: my_leaky.py:1: os"),
        (METHOD + "\n\nopen('MARK', 'w').close()\n", "open: touches files"),
        (METHOD.replace("my-leaky", "other"), "registers no method 'my-leaky'"),
        (METHOD + TASK.replace('"line', '"two'), "its source registers a task; a submission is a method"),
        (METHOD.replace("from torch import nn", "from . import nn"), "imports relative to its own place"),
    ],
)
def test_source_is_refused_unseen_by_python(
    text: str, what: str, place: Place, levelfield: Levelfield, tmp_path: Path
) -> None:
    """All hashes are right; the second would leave a mark if anything imported it."""
    mark, file = tmp_path / "mark", tmp_path / "my_leaky.py"
    file.write_text(text.replace("MARK", str(mark)))
    code_of = source_hash(file)
    changed = rebuilt(place.bytes, source(file.read_text()))
    forged = with_manifest(changed, method_hash=code_of)
    place.file.write_bytes(with_rows(forged, lambda r: {**r, "method_hash": code_of}))
    code, out, err = levelfield("verify", place.file, "--sandbox", "off")
    assert (code, out) == (2, "")
    assert what in err
    assert not mark.exists()
    assert "my-leaky" not in registry().methods


def test_a_name_that_is_other_code_here_is_refused(
    place: Place, levelfield: Levelfield, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_leaky.py").write_text(METHOD.replace("x / 2", "x / 4"))
    monkeypatch.setenv("LEVELFIELD_ENTRY", os.pathsep.join([place.everybody, str(tmp_path / "my_leaky.py")]))
    code, _, err = levelfield("verify", place.file, "--sandbox", "off")
    assert code == 2
    assert "'my-leaky' is other code here" in err
    assert "my_leaky.py differ; verify where they are the same" in err


@pytest.mark.slow
def test_a_method_that_is_registered_here_with_the_same_code_is_verified(
    place: Place, levelfield: Levelfield, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEVELFIELD_ENTRY", place.author)
    assert levelfield("verify", place.file, "--sandbox", "off")[0] == 0


def test_rows_of_another_version_of_the_task_are_told_apart(
    place: Place, levelfield: Levelfield, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "line.py").write_text(TASK.replace("version=1", "version=2"))
    entry = os.pathsep.join([str(tmp_path / "line.py"), str(place.folder / "plain.py")])
    monkeypatch.setenv("LEVELFIELD_ENTRY", entry)
    code, _, err = levelfield("verify", place.file, "--sandbox", "off")
    assert code == 2
    assert "no task of it is the same here: line is another version here (2, the rows are of 1)" in err


def test_a_file_that_is_none_is_one_sentence(levelfield: Levelfield, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.zip", Path("/dev/zero")):
        code, _, err = levelfield("verify", path, "--sandbox", "off")
        assert (code, err.count("\n")) == (2, 1)


# ---------------------------------------------------------------- verdicts


def pair(stored: float | None, fresh: float | None, same: bool = False, end: str = "error") -> Rerun:
    """A stored and a fresh run; None is one that failed."""

    def row(score: float | None, digest: str) -> dict[str, Any]:
        beside = {"metrics": [], "val_metrics": [], "curve": [], **dict.fromkeys(COUNTS, 1)}
        end_ = end if score is None else "ok"
        return {"seed": 0, "score": score, "digest": digest, "status": end_, "message": "m", **beside}

    return Rerun(row(stored, "a"), row(fresh, "a" if same else "b"))


@pytest.fixture
def info(place: Place) -> Any:
    return registry().task("line")


def test_verdicts_follow_bits_then_ends_then_noise(info: Any) -> None:
    """Seed sd 0.5: the margin is 1.0."""
    cases = [
        ([pair(1.0, 1.0, same=True)] * 2, REPRODUCED),
        ([pair(None, None)], REPRODUCED),
        ([pair(1.0, None)], NOT_REPRODUCED),
        ([pair(None, 1.0)], NOT_REPRODUCED),
        ([pair(1.0, None, end="timeout")], INCONCLUSIVE),
        ([pair(1.0, 1.0)], INCONCLUSIVE),  # one pair cannot decide: its interval is wider than the margin
        ([pair(1.0, 9.0)], NOT_REPRODUCED),
        ([pair(1.0, 1.0), pair(2.0, 2.01), pair(3.0, 3.02)], REPRODUCED),
        ([pair(1.0, 3.0), pair(2.0, 4.1), pair(3.0, 5.2)], NOT_REPRODUCED),
        ([pair(1.0, 2.0), pair(2.0, 2.0), pair(3.0, 4.5)], INCONCLUSIVE),
    ]
    for reruns, verdict in cases:
        found = judge(info, "quick", reruns)
        assert found.verdict == verdict, found.rule
    assert judge(info, "other", [pair(1.0, 1.0)]).rule == "not bit-identical, and the task's noise is not known"
    assert settled([judge(info, "quick", cases[0][0]), judge(info, "quick", cases[4][0])]) == INCONCLUSIVE


def test_equal_bits_do_not_carry_what_stands_beside_them(place: Place, info: Any) -> None:
    """The digest covers losses and scores; counts and further metrics are held against the rerun too."""
    fresh = bundles.read(place.file).rows.to_pylist()[0]
    assert judge(info, "quick", [Rerun(dict(fresh), fresh)]).verdict == REPRODUCED
    forged = {
        "passes": (1, "states passes = 1; this run has 20"),
        "parameters": (7, "states parameters = 7; this run has 2"),
        "val_metrics": ([("mse", 0.0)], "states other val_metrics"),
        "metrics": ([*fresh["metrics"], ("accuracy", 1.0)], "states other metrics"),
        "curve": ([{**p, "examples": 0} for p in fresh["curve"]], "a curve whose evaluations are elsewhere"),
    }
    for name, (value, told) in forged.items():
        found = judge(info, "quick", [Rerun({**fresh, name: value}, fresh)])
        assert (found.verdict, told in found.rule) == (NOT_REPRODUCED, True), found.rule


def test_a_claim_that_is_off_by_the_margin_passes_in_at_most_a_twentieth_of_cases(info: Any) -> None:
    """And an honest one, of independent seeds, mostly does; 400 simulated verifications of five runs each."""
    dice = np.random.default_rng(0)

    def passed(shift: float) -> float:
        count = 0
        for _ in range(400):
            stored, fresh = dice.normal(0, 0.5, 5) - shift, dice.normal(0, 0.5, 5)
            reruns = [pair(a, b) for a, b in zip(stored.tolist(), fresh.tolist(), strict=True)]
            count += judge(info, "quick", reruns).verdict == REPRODUCED
        return count / 400

    assert passed(1.0) < 0.08
    assert passed(-1.0) < 0.08
    assert passed(0.0) > 0.5


def test_the_noise_is_taken_from_the_rows_where_the_task_states_none() -> None:
    rows = [{"status": "ok", "score": s} for s in (1.0, 2.0, 3.0)]
    assert spread_of(rows) == 1.0
    assert math.isnan(spread_of(rows[:2]))
    assert math.isnan(spread_of([{"status": "error", "score": None}] * 4))


def test_chance_chooses_the_task_and_the_seeds() -> None:
    methods = ("reference", "my-leaky")
    specs = {f"{t}{m}{s}": RunSpec(t, m, "quick", s) for t in "abc" for m in methods for s in range(4)}
    drawn = [draw(specs, False, random.Random(i)) for i in range(60)]
    assert {task for ((task, _),) in drawn} == {"a", "b", "c"}
    assert len({tuple(seeds) for ((_, seeds),) in drawn}) > 12
    assert [task for task, _ in draw(specs, True, random.Random(0))] == ["a", "b", "c"]
