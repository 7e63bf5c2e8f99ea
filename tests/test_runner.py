"""Runs in processes of their own: every end is a row; nothing is lost, done twice or left behind."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import suite
from suite.fingerprint import method_hash
from suite.runner.lease import STALE_SECONDS, Leases
from suite.runner.pool import Pool, cost_key, prepare
from suite.runner.server import _tail
from suite.runner.spec import RunSpec
from suite.runner.stored import compacted, finished_ids, row_path, single_ids, sources, standing
from suite.store.files import StoreError, compact, read, write_bytes, write_rows

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes through /proc")
PATIENCE = 120.0  # seconds after which something that should happen has not

Environment = Callable[[Path], dict[str, str]]


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def relatives(folder: Path) -> dict[int, tuple[int, str]]:
    """Living processes that were started for `folder`: pid -> (parent, command line)."""
    mark = f"TOY_FOLDER={folder}\0".encode()
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if mark in (process / "environ").read_bytes() + b"\0":
                state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(process.name)] = (int(parent), (process / "cmdline").read_text().replace("\0", " "))
    return found


def trainings(folder: Path) -> list[tuple[str, ...]]:
    """(task, activation, seed) of every training that was begun, in order."""
    log = folder / "log"
    return [tuple(line.split()[:3]) for line in log.read_text().splitlines()] if log.exists() else []


def leftovers(out: Path) -> set[str]:
    return {str(p.relative_to(out)) for p in out.rglob("*") if p.suffix != ".parquet"} - {"runs", ".server.log"}


# ---------------------------------------------------------------- every end is a row


@dataclass
class Outcomes:
    """What one plan full of accidents has left."""

    out: Path
    folder: Path
    ids: list[str]
    rows: dict[tuple[str, str, int], dict[str, Any]]
    progress: Any
    again: Any

    def __getitem__(self, method: str) -> dict[str, Any]:
        (found,) = (r for (_, m, _), r in self.rows.items() if m == method)
        return found


PLAN = [
    *(("toy", method, 0) for method in (
        "reference", "toy-plain", "toy-raises", "toy-missing", "toy-killed-once", "toy-killed", "toy-exits",
        "toy-asks", "toy-grows", "toy-leaves-a-child", "toy-prints",
    )),
    ("toy-long", "toy-nan", 0), ("toy-brief", "toy-sleeps", 0), ("toy-misjudged", "toy-more", 0),
    ("digits-cnn", "reference", 0), ("digits-cnn", "reference", 1), ("digits-cnn", "relu", 0),
]  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, toy_environment: Environment) -> Outcomes:
    folder = tmp_path_factory.mktemp("outcomes")
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in toy_environment(folder).items():
            patch.setenv(name, value)
        specs = [RunSpec(task, method, "smoke", seed) for task, method, seed in PLAN]
        ids = [spec.run_id for spec in specs]
        progress = Pool(out, workers=3, memory=2**30).run(specs)
        again = Pool(out, workers=1, memory=2**30).run([*specs, specs[0]])
        table = read(out).table.to_pylist(maps_as_pydicts="strict")
    rows = {(r["task"], r["method"], r["seed"]): r for r in table}
    return Outcomes(out, folder, ids, rows, progress, again)


SMOKE = [t.name for t in suite.tasks() if "smoke" in t.tiers and not t.data]


@pytest.mark.parametrize("task", [t if t == "add2-offline" else pytest.param(t, marks=pytest.mark.slow) for t in SMOKE])
def test_a_task_that_has_another_name_gives_the_same_run(task: str, tmp_path: Path) -> None:
    """Streams and shipped files go by the registered name; `check` and `verify` rest on it."""
    spec, rows = RunSpec(task, "reference", "smoke"), []
    for masked in (False, True):
        Pool(tmp_path / str(masked), workers=1, masked=masked).run([spec])
        rows += read(tmp_path / str(masked)).table.to_pylist()
    assert [r["status"] for r in rows] == ["ok", "ok"], [r["message"] for r in rows]
    assert rows[0]["digest"] == rows[1]["digest"]
    assert [r["task"] for r in rows] == [task, task]


def test_every_run_of_a_plan_has_one_row_under_its_id(outcomes: Outcomes) -> None:
    assert sorted(outcomes.rows) == sorted(PLAN)
    files = {p.name.partition(".")[0] for p in (outcomes.out / "runs").iterdir()}
    assert files == {r["run_id"] for r in outcomes.rows.values()} == set(outcomes.ids)


@pytest.mark.parametrize(
    ("method", "status", "attempts", "message"),
    [
        ("toy-plain", "ok", 1, ""),
        ("toy-prints", "ok", 1, ""),
        ("toy-leaves-a-child", "ok", 1, ""),
        ("toy-raises", "error", 1, "ValueError: no line today <b>&amp;</b> \u2192 \U0001f600 (at toy.py:"),
        ("toy-missing", "skipped", 1, "toy-missing needs the package a_package_that_is_not_there: pip install"),
        ("toy-nan", "diverged", 1, "training loss is not finite at step"),
        ("toy-sleeps", "timeout", 1, "passed its wall-clock limit of 2 s"),
        ("toy-asks", "oom", 1, "can't allocate memory"),
        ("toy-grows", "oom", 1, "its limit is 1024 MiB"),
        ("toy-killed-once", "ok", 2, ""),
        ("toy-killed", "error", 3, "the worker was killed by signal 9 in each of 3 attempts"),
        ("toy-exits", "error", 3, "the worker was ended with exit code 0 in each of 3 attempts"),
        ("toy-more", "error", 1, "scoring failed: KeyError: 'other'"),
    ],
)
def test_an_end_is_a_status_with_its_reason(
    method: str, status: str, attempts: int, message: str, outcomes: Outcomes
) -> None:
    row = outcomes[method]
    assert (row["status"], row["attempts"]) == (status, attempts)
    assert message in row["message"]
    assert (row["score"] is None) == (status != "ok")
    assert (row["message"] == "") == (status == "ok")
    assert (row["metrics"] == {}) == (status != "ok")


def test_only_killed_workers_are_started_again(outcomes: Outcomes) -> None:
    begun = Counter(method for _, method, _ in trainings(outcomes.folder))
    assert begun["toy-killed-once"] == 2
    assert begun["toy-killed"] == begun["toy-exits"] == 3
    assert [begun[m] for m in ("toy-raises", "toy-nan", "toy-sleeps", "toy-asks", "toy-grows")] == [1] * 5


def test_a_progress_counts_what_happened(outcomes: Outcomes) -> None:
    statuses = Counter(r["status"] for r in outcomes.rows.values())
    progress = outcomes.progress
    assert (progress.planned, progress.cached, progress.done) == (len(PLAN), 0, len(PLAN))
    assert progress.skipped == statuses["skipped"] == 1
    assert progress.failed == len(PLAN) - statuses["ok"] - 1
    assert progress.retried == 5


def test_finished_runs_stay_as_they_are_and_skipped_ones_are_tried_again(outcomes: Outcomes) -> None:
    again = outcomes.again
    assert (again.planned, again.cached, again.done, again.skipped) == (len(PLAN) + 1, len(PLAN), 1, 1)
    assert Counter(trainings(outcomes.folder))["toy", "toy-plain", "0"] == 2  # reference and toy-plain itself


def test_nothing_is_left_behind(outcomes: Outcomes) -> None:
    assert leftovers(outcomes.out) == set()
    assert {p.name for p in outcomes.out.iterdir()} <= {"runs", ".server.log"}
    eventually(lambda: relatives(outcomes.folder) == {}, "the end of every process")


def test_processes_that_a_run_leaves_behind_end_with_it(outcomes: Outcomes) -> None:
    (pid,) = map(int, (outcomes.folder / "children").read_text().split())
    assert pid not in relatives(outcomes.folder)


def test_a_seed_gives_the_same_bits_in_every_process_and_the_reference_is_its_own_method(outcomes: Outcomes) -> None:
    here = suite.run("digits-cnn", tier="smoke", seed=0).row
    reference, other, relu = (
        outcomes.rows["digits-cnn", m, s] for m, s in (("reference", 0), ("reference", 1), ("relu", 0))
    )
    assert here["run_id"] == reference["run_id"]
    assert here["digest"] == reference["digest"] == relu["digest"] != other["digest"]
    assert here["score"] == reference["score"] == relu["score"]
    assert here["environment_hash"] == reference["environment_hash"]


def test_a_row_states_code_counts_and_times(outcomes: Outcomes) -> None:
    row = outcomes["relu"]
    assert (row["steps"], row["passes"], row["examples"], row["spent"]) == (30, 30, 1920, 30.0)
    assert row["parameters"] == 16 * 9 + 32 * 16 * 9 + 32 * 32 * 9 + 2 * (16 + 32 + 32) + 1290
    assert row["state_bytes"] == 4 * row["parameters"]
    assert row["started_at"] <= row["finished_at"]
    assert row["train_seconds"] > 0
    assert row["peak_bytes"] > 0
    assert row["method_hash"] == method_hash(suite.method("relu"))
    assert json.loads(row["recipe"])["activation"] == {"method": "relu", "hp": {}}
    assert len(row["curve"]) == 4


# ---------------------------------------------------------------- interruptions

RUN = [
    "run",
    "--tasks",
    "toy-slow",
    "--methods",
    "toy-plain",
    "--tier",
    "smoke",
    "--cost",
    "0",
    "--workers",
    "2",
    "--json",
]


SEEDS = 8  # of a plan that is stopped four times


class Launcher:
    """``levelfield run`` in a process of its own."""

    def __init__(self, environment: dict[str, str], out: Path, seeds: int) -> None:
        command = [sys.executable, "-m", "suite.cli.main", *RUN, "--seeds", str(seeds), "--out", str(out)]
        env = {**os.environ, **environment}
        self.process = subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
        )
        self.folder = Path(environment["TOY_FOLDER"])

    def server(self) -> int | None:
        mine = [p for p, (parent, _) in relatives(self.folder).items() if parent == self.process.pid]
        return mine[0] if mine else None

    def end(self, number: int | None = None) -> tuple[int, dict[str, Any], str]:
        """(exit code, JSON summary, standard error) after a signal, or by itself."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, json.loads(out) if out else {}, err


@dataclass
class Story:
    """One plan, stopped by Ctrl-C, by SIGTERM and by kill -9, its server killed, and finished in the end."""

    out: Path
    folder: Path
    ends: dict[str, tuple[int, dict[str, Any], str]]
    done: dict[str, set[str]]  # run ids with a result after each end
    begun: dict[str, int]  # trainings begun by then
    readable: dict[str, bool]
    gone: dict[str, bool]
    left: dict[str, set[str]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, toy_environment: Environment) -> Story:
    folder = tmp_path_factory.mktemp("story")
    told = Story(folder / "out", folder, {}, {}, {}, {}, {}, {})

    def part(name: str, number: int | None, new: int) -> None:
        """Let so many trainings end, and strike once a later one is under way, however fast the machine."""
        before, begun = len(single_ids(told.out)), len(trainings(folder))
        write_bytes(folder / "allowed", str(begun + new).encode())
        launcher = Launcher(toy_environment(folder), told.out, seeds=SEEDS)

        def under_way() -> bool:
            return len(single_ids(told.out)) >= before + new and len(trainings(folder)) > begun + new

        eventually(under_way, "a result, and a training under way")
        if number is None:
            server = launcher.server()
            assert server is not None
            os.kill(server, signal.SIGKILL)
            (folder / "allowed").unlink()
        told.ends[name] = launcher.end(number)
        eventually(lambda: relatives(folder) == {}, "the end of every process")
        told.done[name] = single_ids(told.out)
        told.begun[name] = len(trainings(folder))
        told.readable[name] = not read(told.out).problems
        told.left[name] = leftovers(told.out)

    part("ctrl-c", signal.SIGINT, 2)
    part("term", signal.SIGTERM, 1)
    part("kill", signal.SIGKILL, 1)
    part("server killed", None, 0)
    return told


@pytest.mark.parametrize("name", ["ctrl-c", "term"])
def test_a_signal_stops_a_plan_with_code_130_and_a_folder_that_goes_on(name: str, story: Story) -> None:
    code, summary, err = story.ends[name]
    assert code == 130
    assert summary["stopped"] is True
    assert "Traceback" not in err
    assert 0 < len(story.done[name]) < 2 * SEEDS
    assert story.left[name] == set()


@pytest.mark.parametrize("name", ["ctrl-c", "term", "kill", "server killed"])
def test_at_no_moment_is_there_half_a_file(name: str, story: Story) -> None:
    assert story.readable[name]


def test_a_killed_launcher_loses_only_the_runs_under_way(story: Story) -> None:
    assert story.ends["kill"][0] == -signal.SIGKILL
    assert story.done["term"] <= story.done["kill"]


def test_the_next_launcher_finishes_the_plan_and_clears_up(story: Story) -> None:
    code, summary, _ = story.ends["server killed"]
    assert code == 0
    assert len(story.done["server killed"]) == 2 * SEEDS
    assert summary["cached"] == len(story.done["kill"])
    assert summary["done"] == 2 * SEEDS - summary["cached"]
    assert summary["retried"] >= 1  # its server was killed under way
    assert story.left["server killed"] == set()


def test_no_finished_run_is_made_again(story: Story) -> None:
    """The two runs of a seed train alike, so a seed may come again as long as one of them is not finished."""
    seeds = {r["run_id"]: str(r["seed"]) for r in read(story.out).table.to_pylist()}
    begun = trainings(story.folder)
    for earlier, later in itertools.pairwise(story.ends):
        finished = Counter(seeds[run_id] for run_id in story.done[earlier])
        made = {seed for _, _, seed in begun[story.begun[earlier] : story.begun[later]]}
        assert made
        assert {seed for seed in made if finished[seed] == 2} == set()


@pytest.mark.slow
def test_two_launchers_share_a_folder_and_make_each_run_once(tmp_path: Path, toy_environment: Environment) -> None:
    out = tmp_path / "out"
    launchers = [Launcher(toy_environment(tmp_path), out, seeds=5) for _ in range(2)]
    ends = [launcher.end() for launcher in launchers]
    assert [code for code, _, _ in ends] == [0, 0], ends
    rows = read(out).table.to_pylist()
    assert Counter(r["status"] for r in rows) == {"ok": 10}
    assert {r["attempts"] for r in rows} == {1}
    assert sorted(trainings(tmp_path)) == sorted(("toy-slow", "toy-plain", str(s)) for s in range(5) for _ in range(2))
    assert leftovers(out) == set()


@pytest.mark.slow
def test_a_plan_survives_a_companion_that_kills_at_random(tmp_path: Path, toy_environment: Environment) -> None:
    """200 runs; workers, server and launcher are killed with -9 the whole time, and the launcher is started again."""
    out, draw, killed, launches, seen = tmp_path / "out", random.Random(0), Counter(), 0, 0
    deadline = time.monotonic() + 3600
    while True:
        launcher = Launcher(toy_environment(tmp_path), out, seeds=100)
        launches += 1
        while launcher.process.poll() is None:
            assert time.monotonic() < deadline
            if (count := len(single_ids(out))) == seen:  # one blow a result, however slow the machine
                time.sleep(0.02)
                continue
            seen = count
            time.sleep(draw.uniform(0.0, 0.4))
            family = relatives(tmp_path)
            server = launcher.server()
            workers = [pid for pid, (parent, _) in family.items() if parent == server and server is not None]
            victims = {"worker": workers, "server": [server] if workers and server else [], "launcher": []}
            if launches < 10:
                victims["launcher"] = [launcher.process.pid]
            (kind,) = draw.choices(["worker", "server", "launcher", "nobody"], [10, 1, 1, 6])
            if victims.get(kind):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draw.choice(victims[kind]), signal.SIGKILL)
                    killed[kind] += 1
        code, _, err = launcher.end()
        assert code in (0, 1, -signal.SIGKILL), err
        if code != -signal.SIGKILL:
            break
    assert killed["worker"] > 40
    assert killed["server"] > 0
    assert killed["launcher"] > 0
    eventually(lambda: relatives(tmp_path) == {}, "the end of every process")
    files = list((out / "runs").iterdir())
    assert len(files) == 200
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    assert Counter((r["method"], r["seed"]) for r in rows) == {
        (m, s): 1 for m in ("reference", "toy-plain") for s in range(100)
    }
    assert all(r["status"] == "ok" or (r["status"] == "error" and r["attempts"] == 3) for r in rows)
    assert sum(r["status"] == "ok" for r in rows) >= 160
    assert leftovers(out) == set()


# ---------------------------------------------------------------- going on inside a run


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("checkpoint", "steps"), [(0.0, 59 + 50), pytest.param(None, 59 + 100, marks=pytest.mark.slow)]
)
def test_a_run_killed_at_its_60th_step_ends_bit_for_bit_where_it_would_have(
    checkpoint: float | None, steps: int, tmp_path: Path
) -> None:
    """Evaluations, and with them checkpoints, come every 25 steps: step 51 is the first that is made again."""
    out, spec = tmp_path / "out", RunSpec("toy-long", "toy-killed-late", "smoke", 3)
    progress = Pool(out, workers=1, checkpoint=checkpoint).run([spec])
    assert (progress.done, progress.failed, progress.retried) == (1, 0, 1)
    (row,) = read(out).table.to_pylist()
    assert (row["status"], row["attempts"], row["steps"], len(row["curve"])) == ("ok", 2, 100, 5)
    assert row["digest"] == suite.run("toy-long", "toy-plain", tier="smoke", seed=3).row["digest"]
    assert len((tmp_path / "steps").read_text().splitlines()) == steps
    assert not list(out.glob("checkpoints/*"))


# ---------------------------------------------------------------- budgets of device time


@pytest.mark.usefixtures("toy")
def test_a_budget_of_seconds_is_a_recorded_number_of_steps_that_can_be_run_again(tmp_path: Path) -> None:
    """The cost ratio is planted: a method a quarter dearer gets four fifths of the steps, its schedule stretched."""
    out = tmp_path / "out"
    reference, dear = (RunSpec("toy-long", m, "smoke", 0) for m in ("reference", "toy-more"))
    costs = {
        cost_key(reference): {"cost_ratio": 1.0, "cost_low": 1.0, "cost_high": 1.0, "precise": True},
        cost_key(dear): {"cost_ratio": 1.25, "cost_low": 1.0, "cost_high": 1.5, "precise": False},
    }
    for key, cost in costs.items():
        write_bytes(out / "costs" / f"{key}.json", json.dumps(cost).encode())
    pool = Pool(out, workers=2)
    charged = pool.charge([reference, dear], seconds=1.0)
    assert [(s.budget, s.budget_kind) for s in charged] == [(100.0, "seconds"), (80.0, "seconds")]
    assert pool.progress.notes == [
        "toy-more on toy-long: a step costs 1.25 of the reference's, known only to 1.00 to 1.50; "
        "a longer --cost narrows it"
    ]
    pool.run(charged, cost_seconds=1.0)
    rows = {r["method"]: r for r in read(out).table.to_pylist()}
    assert [rows[m]["steps"] for m in ("reference", "toy-more")] == [100, 80]
    kept = {k: rows["toy-more"][k] for k in ("cost_ratio", "cost_low", "cost_high", "cost_precise", "budget_kind")}
    assert kept == {
        "cost_ratio": 1.25, "cost_low": 1.0, "cost_high": 1.5, "cost_precise": False, "budget_kind": "seconds",
    }  # fmt: skip
    again = suite.run("toy-long", "toy-more", tier="smoke", budget=rows["toy-more"]["budget"])
    assert again.row["digest"] == rows["toy-more"]["digest"]
    assert Pool(out).charge([reference, dear], seconds=1.0) == charged


@pytest.mark.usefixtures("toy")
def test_a_step_that_fails_while_it_is_timed_is_a_row_and_the_rest_of_the_plan_is_run(tmp_path: Path) -> None:
    specs = [RunSpec("toy", m, "smoke", 0) for m in ("reference", "toy-raises", "toy-misfit", "toy-missing")]
    pool = Pool(tmp_path, workers=1)
    charged = pool.charge(specs, seconds=0.1)
    pool.run(charged)
    rows = {r["method"]: (r["status"], r["message"], r["budget_kind"]) for r in read(tmp_path).table.to_pylist()}
    assert rows == {
        "reference": ("ok", "", "seconds"),
        "toy-raises": ("error", rows["toy-raises"][1], "seconds"),
        "toy-misfit": ("skipped", "toys have no such thing", "seconds"),
        "toy-missing": ("skipped", rows["toy-missing"][1], "seconds"),
    }
    assert rows["toy-raises"][1].startswith("its step cost could not be measured: ValueError: no line today")
    assert "a_package_that_is_not_there" in rows["toy-missing"][1]
    assert pool.progress.notes == []  # the rows say it
    again = Pool(tmp_path, workers=1)
    assert again.charge(specs, seconds=0.1) == charged
    assert again.run(charged).cached == 2  # what was skipped is tried again
    steps = Pool(tmp_path / "steps", workers=1)
    steps.run(specs[1:3], cost_seconds=0.1)
    (note,) = steps.progress.notes
    assert note.startswith("the step cost of toy-raises on toy could not be measured: ValueError: no line today")


# ---------------------------------------------------------------- folders that cannot be used


def test_a_place_that_cannot_be_a_folder_is_one_sentence_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as refused:
        Pool(tmp_path / "file" / "out").run([RunSpec("digits-cnn", "relu", "smoke")])
    assert str(refused.value) == f"{tmp_path}/file/out: cannot be written (Not a directory); choose another --out"


def test_a_full_disk_is_one_sentence_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\); choose another --out"):
        Pool(tmp_path / "out").run([RunSpec("digits-cnn", "relu", "smoke")])


@pytest.mark.usefixtures("toy")
def test_a_folder_that_stops_taking_files_ends_the_plan_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("TOY_OUT", str(out))
    with pytest.raises(
        StoreError, match=r"the result could not be written: .*cannot be written .*; free space"
    ) as ended:
        Pool(out, workers=1).run([RunSpec("toy-folderless", "reference", "smoke")])
    assert "\n" not in str(ended.value)
    eventually(lambda: relatives(tmp_path) == {}, "the end of every process")
    assert not (out / ".work").exists()
    assert not (out / ".leases").exists()


# ---------------------------------------------------------------- leases


def lease(folder: Path, run_id: str = "r", age: float = 0.0, **owner: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / run_id
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_lease_is_held_once_until_it_is_released(tmp_path: Path) -> None:
    mine, other = Leases(tmp_path / "l"), Leases(tmp_path / "l")
    assert mine.take("r")
    assert not other.take("r")
    assert not mine.take("r")
    assert other.take("s")
    mine.release("r")
    assert other.take("r")
    mine.release_all()
    assert sorted(p.name for p in (tmp_path / "l").iterdir()) == ["r", "s"]
    other.release_all()
    assert not (tmp_path / "l").exists()


def test_leases_of_the_dead_are_taken_over_and_those_of_the_living_are_not(tmp_path: Path, dead: int) -> None:
    folder, host = tmp_path / "l", socket.gethostname()
    mine = Leases(folder)
    born = mine.owner["born"]
    cases = {
        "dead": (lease(folder, "dead", host=host, pid=dead, born="123"), True),
        "another process of this number": (lease(folder, "recycled", host=host, pid=os.getpid(), born="1"), True),
        "alive": (lease(folder, "alive", age=9e9, host=host, pid=os.getpid(), born=born), False),
        "elsewhere": (lease(folder, "elsewhere", host="another", pid=dead, born="123"), False),
        "silent": (lease(folder, "silent", age=STALE_SECONDS + 9, host="another", pid=dead, born="123"), True),
    }
    assert {name: mine.take(path.name) for name, (path, _) in cases.items()} == {n: v for n, (_, v) in cases.items()}
    for name, age, free in (("being-written", 0.0, False), ("cut-off", 60.0, True)):
        path = lease(folder, name, age)
        path.write_text('{"host": ')
        os.utime(path, (time.time() - age,) * 2)
        assert mine.take(name) is free


def test_a_lease_that_was_taken_over_meanwhile_is_left_alone(tmp_path: Path) -> None:
    late, quick = Leases(tmp_path / "l"), Leases(tmp_path / "l")
    assert quick.take("r")  # after `late` had judged the old one dead
    before = (tmp_path / "l" / "r").read_text()
    assert not late._bury(tmp_path / "l" / "r")
    assert (tmp_path / "l" / "r").read_text() == before
    assert sorted(p.name for p in (tmp_path / "l").iterdir()) == ["r"]


def test_of_many_launchers_one_takes_over_a_dead_ones_lease(tmp_path: Path, dead: int) -> None:
    for turn in range(12):
        path = lease(tmp_path / "l", f"r{turn}", host=socket.gethostname(), pid=dead, born="123")
        children = []
        go_read, go = os.pipe()
        for _ in range(6):
            answer, told = os.pipe()
            if (pid := os.fork()) == 0:
                os.close(go)
                os.read(go_read, 1)  # until the parent lets all of them go
                os.write(told, b"1" if Leases(path.parent).take(path.name) else b"0")
                time.sleep(60)
                os._exit(0)
            children.append((pid, answer))
            os.close(told)
        os.close(go)
        taken = [os.read(answer, 1) for _, answer in children]
        for pid, answer in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(answer)
        os.close(go_read)
        assert sorted(taken) == [b"0"] * 5 + [b"1"]


def test_a_living_launcher_renews_its_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Leases(tmp_path)
    assert mine.take("r")
    os.utime(tmp_path / "r", (1, 1))
    mine.renew()
    assert (tmp_path / "r").stat().st_mtime == 1  # not so soon
    mine.held["r"] -= 11
    mine.renew()
    assert (tmp_path / "r").stat().st_mtime > 1


# ---------------------------------------------------------------- small parts


def test_a_finished_run_is_known_by_its_file_alone(tmp_path: Path) -> None:
    assert single_ids(tmp_path / "none") == set()
    for name in ("a.parquet", "b.skipped.parquet", ".tmp=1@a=c.parquet", "d.json", ".e.parquet"):
        write_bytes(tmp_path / "runs" / name, b"")
    assert single_ids(tmp_path) == {"a"}
    assert row_path(tmp_path, "a", "ok") == tmp_path / "runs" / "a.parquet"
    assert row_path(tmp_path, "a", "skipped") == tmp_path / "runs" / "a.skipped.parquet"


def test_a_plan_knows_the_rows_that_are_compacted_beside_it(tmp_path: Path) -> None:
    from suite.runner.execute import failed_row

    statuses = {"reference": "ok", "relu": "timeout", "gelu": "skipped", "mish": "ok"}
    specs = {m: RunSpec("digits-cnn", m, "smoke") for m in [*statuses, "silu"]}
    ids = {m: spec.run_id for m, spec in specs.items()}
    rows = [failed_row(specs[m], "error", "") | {"status": status, "score": 0.5} for m, status in statuses.items()]
    rows[3]["trust"] = "self-reported"
    write_rows(tmp_path / "in" / "runs" / "all.parquet", rows)
    compact(tmp_path / "in", tmp_path)
    plan = specs.values()
    assert finished_ids(tmp_path, plan) == {ids["reference"], ids["relu"]}  # others' word is not a run from here
    assert finished_ids(tmp_path, plan, retry=True) == {ids["reference"]}
    assert finished_ids(tmp_path, [specs["relu"], specs["silu"]]) == {ids["relu"]}
    assert finished_ids(tmp_path, [RunSpec("digits-cnn", "relu", "smoke", 1)]) == {ids["relu"]}
    write_rows(row_path(tmp_path, ids["silu"], "ok"), [failed_row(specs["silu"], "error", "")])
    found = standing(tmp_path, plan)
    assert {m: found[i][0] for m, i in ids.items()} == {
        **statuses,
        "gelu": "skipped",
        "mish": "skipped",
        "silu": "error",
    }
    assert found[ids["relu"]][1] == tmp_path / "smoke" / "digits-cnn" / f"relu@{specs['relu'].code}.parquet"
    assert found[ids["silu"]][1] == row_path(tmp_path, ids["silu"], "error")
    assert set(read(sources(tmp_path, plan)).table["run_id"].to_pylist()) == set(ids.values())
    found[ids["relu"]][1].write_bytes(b"half a table")
    with pytest.raises(StoreError, match=r"relu@.*damaged.*restore it, or move it away"):
        compacted(tmp_path, plan)
    assert finished_ids(tmp_path, [specs["reference"]]) == {ids["reference"], ids["silu"]}


def test_temporary_files_of_the_dead_are_cleared_and_those_of_the_living_are_kept(tmp_path: Path, dead: int) -> None:
    here = socket.gethostname()
    owners = {f"{dead}@{here}": 0.0, f"{os.getppid()}@{here}": 9e5, f"{dead}@elsewhere": 0.0, "1@elsewhere": 9e5}
    for name, age in owners.items():
        for file in (tmp_path / "runs" / f".tmp={name}=a.parquet", tmp_path / ".work" / f"a={name}" / "log"):
            write_bytes(file, b"half")
            for path in (file, file.parent):
                os.utime(path, (time.time() - age,) * 2)
    prepare(tmp_path)
    kept = {f"{os.getppid()}@{here}", f"{dead}@elsewhere"}  # another machine's is judged by its age
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {f".tmp={name}=a.parquet" for name in kept}
    assert {p.name for p in (tmp_path / ".work").iterdir()} == {f"a={name}" for name in kept}


def test_a_step_cost_is_shared_by_seeds_and_budgets_but_by_nothing_else() -> None:
    base = RunSpec("digits-cnn", "nesterov", "smoke", 0)
    assert cost_key(base) == cost_key(RunSpec("digits-cnn", "nesterov", "smoke", 5, budget=7))
    others = [
        RunSpec("digits-cnn", "sgd", "smoke"), RunSpec("digits-cnn", "nesterov", "quick"),
        RunSpec("digits-cnn", "nesterov", "smoke", hp={"lr": 0.2}), RunSpec("shapes-cnn", "nesterov", "smoke"),
        RunSpec("digits-cnn", "nesterov", "smoke", device="cuda"),
    ]  # fmt: skip
    assert len({cost_key(spec) for spec in [base, *others]}) == 6


def test_the_end_of_a_log_is_told_whatever_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 5000 + b"\xff\xfe the end")
    assert _tail(tmp_path / "log", 20).endswith("the end")
    assert _tail(tmp_path / "none") == ""


def test_the_launcher_needs_neither_torch_nor_pandas() -> None:
    code = "import sys, suite.runner.pool, suite.cli.main; print(sorted({'torch', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
