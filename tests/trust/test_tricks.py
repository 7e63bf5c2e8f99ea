"""Tricks that have reached first places elsewhere: each is rejected, or changes nothing but the cheater's own score."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tricks import TRICKS, Played, labels, play

from suite.trust import landlock
from suite.trust.sandbox import Sandbox, choose, unavailable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes through /proc")
Tricks = Callable[[str], tuple[Path, str]]

PLAN = [
    *(("digits-cnn", name) for name in (
        "reference", "trick-perf-counter", "trick-cross-entropy", "trick-metrics", "trick-engine", "trick-cached-loss",
        "trick-random-streams", "trick-environment", "trick-threads", "trick-memory-scan", "trick-answers",
    )),
    ("helmholtz", "trick-solution"), ("toy-long", "trick-name"), ("toy-long", "trick-name-twin"),
    *(("toy", name) for name in (
        "trick-forged-outcome", "trick-forged-hours", "trick-nested-outcome", "trick-linked-outcome",
        "trick-huge-predictions", "trick-shape", "trick-not-a-number", "trick-daemon", "trick-pipe-log",
        "trick-linked-log", "trick-deep-folders", "trick-exit",
    )),
]  # fmt: skip


@pytest.fixture(scope="module")
def tricks(tmp_path_factory: pytest.TempPathFactory, toy_file: Path) -> Tricks:
    """Writes the tricks for a test: (the folder of their traces, the value of ``LEVELFIELD_ENTRY``)."""

    def write(name: str) -> tuple[Path, str]:
        place = tmp_path_factory.mktemp(name)
        file = place / "cheats.py"
        file.write_text(TRICKS.replace("PLACE_OF_TRACES", repr(str(place))))
        return place, os.pathsep.join([str(toy_file), str(file)])

    return write


@pytest.fixture(scope="module")
def played(tricks: Tricks) -> Played:
    place, entry = tricks("tricks")
    labels(place)
    return play(place, entry, PLAN)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("trick-perf-counter", "refused: it replaced time.perf_counter"),
        ("trick-cross-entropy", "refused: it replaced torch.nn.functional.cross_entropy"),
        ("trick-metrics", "refused: it replaced suite.train.supervised.classification_metrics"),
        ("trick-engine", "refused: it replaced suite.train.loop.Trainer.step"),
        ("trick-environment", "refused: it changed the environment"),
        ("trick-threads", "refused: it changed the number of threads from 1 to 4"),
        ("trick-answers", "refused: it asked for the task's answers, which no method may see"),
        ("trick-solution", "refused: it asked for the task's reference, which no method may see"),
        ("trick-forged-hours", "refused: it states 9999.0 s of work; by the parent's clock its process lived"),
        ("trick-nested-outcome", "refused: it left a outcome.json that is no JSON (RecursionError)"),
        ("trick-linked-outcome", "refused: it left no readable outcome.json"),
        ("trick-huge-predictions", "File too large"),
        ("trick-shape", "scoring failed: ValueError"),
        ("trick-pipe-log", "exit code 3 in each of 3 attempts; last output: it left a log that is no ordinary file"),
        ("trick-linked-log", "exit code 3 in each of 3 attempts; last output: it left no readable log"),
        ("trick-deep-folders", "RuntimeError: deep enough"),
        ("trick-exit", "SystemExit: 0"),
    ],
)
def test_a_trick_is_rejected_with_its_reason(method: str, message: str, played: Played) -> None:
    row = played[method]
    assert (row["status"], row["score"], row["metrics"]) == ("error", None, {})
    assert message in row["message"]


def test_nothing_that_a_run_leaves_in_its_folder_is_in_the_way(played: Played) -> None:
    """However deep, it is gone with the plan."""
    assert played["trick-deep-folders"]["attempts"] == 1
    assert sorted(path.name for path in played.out.iterdir()) == ["runs"]


def test_the_parent_owns_the_clock(played: Played) -> None:
    row = played["trick-forged-outcome"]
    assert row["status"] == "error"
    assert row["message"].startswith("refused: it accounts for 0.0 s; by the parent's clock its process computed for")
    assert row["wall_seconds"] > 1.0
    assert row["cpu_seconds"] > 1.5


def test_predictions_that_are_no_numbers_are_a_divergence(played: Played) -> None:
    row = played["trick-not-a-number"]
    assert (row["status"], row["score"]) == ("diverged", None)
    assert "predicted values ('y') are no numbers" in row["message"]


def test_random_streams_of_its_own_change_nothing(played: Played) -> None:
    assert played["trick-random-streams"]["digest"] == played["reference"]["digest"]


def test_a_loss_that_lies_hurts_only_the_liar(played: Played) -> None:
    """The curve shows a perfect training loss; the score is the parent's."""
    liar, honest = played["trick-cached-loss"], played["reference"]
    assert liar["status"] == "ok"
    assert liar["curve"][-1]["train_loss"] == 0.0
    assert liar["score"] > 2 * honest["score"]
    assert liar["metrics"]["accuracy"] < honest["metrics"]["accuracy"]


def test_no_test_label_is_in_the_memory_of_a_training_process(played: Played) -> None:
    """The scan that finds the training labels, in the same process, does not find the test's."""
    assert played["trick-memory-scan"]["status"] == "ok"
    found = [line.split() for line in (played.place / "found").read_text().splitlines()]
    counts = {name: [int(n) for what, n in found if what == name] for name in ("test", "train")}
    assert set(counts["test"]) == {0}
    assert min(counts["train"]) >= 1


def test_what_a_run_changes_in_its_environment_stays_there(played: Played) -> None:
    assert "TRICKED" not in os.environ
    kept = {row["environment_hash"] for row in played.rows.values()}
    assert len(kept) == 1
    assert json.loads(played["trick-environment"]["environment"])["threads"] == 1


def test_a_process_that_left_the_runs_group_does_not_outlive_the_plan(played: Played) -> None:
    assert played["trick-daemon"]["status"] == "ok"
    pid = int((played.place / "daemon").read_text())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _alive(pid):
        time.sleep(0.01)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False


def test_a_method_that_looks_at_the_tasks_name_is_told_from_one_that_does_not(played: Played, tricks: Tricks) -> None:
    """The same run on the same task under another name: equal for an honest method (features, row 26)."""
    place, entry = tricks("masked")
    again = play(place, entry, [(t, m) for t, m in PLAN if "trick-name" in m or m == "reference"], masked=True)
    assert again["reference"]["digest"] == played["reference"]["digest"]
    assert again["reference"]["run_id"] == played["reference"]["run_id"]
    assert again["trick-name-twin"]["digest"] == played["trick-name-twin"]["digest"]
    assert again["trick-name"]["digest"] != played["trick-name"]["digest"]
    assert again["trick-name"]["digest"] == played["trick-name-twin"]["digest"]


# ---------------------------------------------------------------- the sandbox


def outside(tricks: Tricks, name: str, sandbox: Sandbox) -> tuple[dict[str, str], Played]:
    """What the method that tries everything reports, with a listener on this machine to be reached."""
    place, entry = tricks(name)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (place / "port").write_text(str(listener.getsockname()[1]))
        done = play(place, entry, [("digits-cnn", "reference"), ("toy", "trick-outside")], sandbox)
    message = done["trick-outside"]["message"]
    return json.loads(message[message.index("{") : message.rindex("}") + 1]), done


@pytest.mark.slow
def test_without_a_sandbox_a_run_can_do_what_its_user_can(tricks: Tricks) -> None:
    """The control: every attempt that the sandbox is to stop succeeds here."""
    tried, done = outside(tricks, "open", Sandbox())
    stopped = {name for name, how in tried.items() if how != "done"}
    assert stopped == {"secret"}
    assert tried["secret"] == "hidden"
    assert (done.place / "outside").exists()
    assert (done.out / "runs" / "forged.parquet").exists()


@pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "bubblewrap works")
def test_in_the_sandbox_a_run_reaches_nothing_but_its_folder(tricks: Tricks) -> None:
    tried, done = outside(tricks, "sandbox", choose("require"))
    reached = {name for name, how in tried.items() if how == "done"}
    landlocked = {"own"} if landlock.version() else {"own", "neighbour", "signal"}
    assert reached <= landlocked
    assert tried["own"] == "done"
    assert tried["secret"] == ""
    assert not (done.place / "outside").exists()
    assert not (done.out / "runs" / "forged.parquet").exists()
    assert done["reference"]["status"] == "ok"


@pytest.mark.slow
@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_landlock_alone_keeps_writes_and_connections_away(tricks: Tricks) -> None:
    tried, done = outside(tricks, "landlock", Sandbox(landlock=True))
    assert {tried[name] for name in ("place", "results", "neighbour", "project")} == {"PermissionError"}
    assert tried["own"] == "done"
    if landlock.version() >= 4:
        assert tried["network"] == "PermissionError"
    assert not (done.place / "outside").exists()


@pytest.mark.slow
@pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "bubblewrap works")
def test_a_run_is_the_same_in_the_sandbox(played: Played, tricks: Tricks) -> None:
    place, entry = tricks("same")
    again = play(place, entry, [("digits-cnn", "reference"), ("toy", "trick-daemon")], choose("require"))
    assert again["reference"]["digest"] == played["reference"]["digest"]
    assert again["reference"]["environment_hash"] == played["reference"]["environment_hash"]
    assert again["reference"]["trust"] == "smoke"
