"""What a training process leaves is read as data that somebody may have forged."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import suite
from suite.runner.execute import OUTCOME, PREDICTIONS, settle
from suite.runner.spec import RunSpec
from suite.trust.scoring import (
    Clock,
    Refused,
    contradiction,
    open_plain,
    read_cost,
    read_outcome,
    read_predictions,
    without_value,
)

POINT = {"spent": 0, "steps": 0, "examples": 0, "seconds": 0.0, "train_loss": math.nan, "metrics": {"ce": 2.5}}
GOOD = {
    "status": "ok",
    "message": "",
    "curve": [POINT, POINT],
    "counts": {"steps": 3, "spent": 3.0, "train_seconds": 0.5, "setup_seconds": 0.25},
    "exhibits": {},
    "started": 1.7e9,
    "finished": 1.7e9,
}


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.mark), "w")


def written(folder: Path, outcome: Any, name: str = OUTCOME) -> Path:
    (folder / name).write_text(outcome if isinstance(outcome, str) else json.dumps(outcome))
    return folder / name


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """The good outcome with one value replaced."""
    outcome = copy.deepcopy(GOOD)
    inner: Any = outcome
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = to
    return outcome


def test_a_good_outcome_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = read_outcome(written(tmp_path, GOOD), points=2)
    assert json.dumps(found) == json.dumps(GOOD)


@pytest.mark.parametrize(
    ("outcome", "what"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("{}", "no outcome"),
        ([], "no outcome"),
        ({**GOOD, "score": 0.0}, "no outcome"),
        (changed("status", to="perfect"), "status"),
        (changed("status", to="timeout"), "status"),
        (changed("status", to=["ok"]), "status"),
        (changed("message", to=5), "message"),
        (changed("finished", to=1e300), "finished"),
        (changed("curve", to=[POINT] * 3), "curve of more than 2 points"),
        (changed("curve", to="long"), "curve"),
        (changed("curve", to=[]), "without its counts"),
        (changed("curve", 0, to={"steps": 1}), "curve"),
        (changed("curve", 0, "metrics", "ce", to="0"), "curve"),
        (changed("curve", 0, "steps", to=1.5), "curve"),
        (changed("counts", "steps", to=10**400), "counts"),
        (changed("counts", "steps", to=True), "counts"),
        (changed("counts", "steps", to=-1), "counts"),
        (changed("counts", "train_seconds", to=-1.0), "counts"),
        (changed("counts", "train_seconds", to=math.nan), "counts"),
        (changed("counts", "wall_seconds", to=1.0), "counts"),
        (changed("counts", to={}), "without its counts"),
        (changed("exhibits", to=[1]), "exhibits"),
    ],
)
def test_an_outcome_of_another_form_is_refused(outcome: Any, what: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=what):
        read_outcome(written(tmp_path, outcome), points=2)


def test_files_that_are_none_are_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.symlink("/etc/passwd", tmp_path / "link")
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name in ("pipe", "link", "folder", "large", "none"):
        with pytest.raises(Refused, match=f"left (a|no readable) {name}"):
            open_plain(tmp_path / name, 10)


# ---------------------------------------------------------------- predictions


def npz(path: Path, compress: int = zipfile.ZIP_STORED, **members: bytes | np.ndarray) -> Path:
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in members.items():
            if isinstance(content, np.ndarray):
                buffer = io.BytesIO()
                np.save(buffer, content, allow_pickle=True)
                content = buffer.getvalue()
            archive.writestr(f"{name}.npy", content)
    return path


def lying(shape: tuple[int, ...], payload: bytes, dtype: str = "<f4") -> bytes:
    """An array whose header states `shape` whatever its payload."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + payload


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    arrays = {
        "c": np.arange(12.0, dtype=np.float32).reshape(3, 4),
        "f": np.asfortranarray(np.arange(12).reshape(3, 4)),
        "scalar": np.asarray(2.5),
        "empty": np.zeros((0, 3), dtype=np.uint8),
        "bool": np.array([True, False]),
    }
    np.savez(tmp_path / "p.npz", **arrays)
    found = read_predictions(tmp_path / "p.npz")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_objects_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "exploded"
    for i, content in enumerate((np.array([Bomb(mark)], dtype=object), pickle.dumps(Bomb(mark)))):
        with pytest.raises(Refused, match=r"of type object|cannot be read"):
            read_predictions(npz(tmp_path / f"{i}.npz", y=content))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(Refused, match="cannot be read"):
        read_predictions(tmp_path / "bare.npz")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (np.array(["a"]), "of type <U1; they are numbers"),
        (np.array([1j]), "of type complex128"),
        (np.zeros(2, dtype="f4,f4"), "they are numbers"),
        (lying((10**12,), b"1234"), "header does not fit"),
        (lying((1,), b"12345678"), "header does not fit"),
        (lying((-1, -1), b"1234"), "header does not fit"),
        (lying((2**40, 2**40, 0), b""), "cannot be read"),
        (b"", "cannot be read"),
        (b"\x93NUMPY\x09\x00", "unknown format|cannot be read"),
        (b"\x93NUMPY\x01\x00\x10\x00__import__('os')", "cannot be read"),
    ],
)
def test_predictions_that_are_no_plain_numbers_are_refused(content: Any, what: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=what):
        read_predictions(npz(tmp_path / "p.npz", y=content))


def test_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bomb = npz(tmp_path / "bomb.npz", zipfile.ZIP_DEFLATED, y=np.zeros(2**22))
    assert bomb.stat().st_size < 2**17
    with pytest.raises(Refused, match="compressed"):
        read_predictions(bomb)
    with open(tmp_path / "huge.npz", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(Refused, match="more than 513 MiB"):
        read_predictions(tmp_path / "huge.npz")
    with pytest.raises(Refused, match="65 arrays"):
        read_predictions(npz(tmp_path / "many.npz", **{f"a{i}": np.zeros(1) for i in range(65)}))


def test_values_that_are_no_numbers_are_counted_scalars_left_out() -> None:
    good = {"y": np.array([1.0, np.inf]), "kl": np.asarray(np.nan), "tokens": np.arange(3)}
    assert without_value(good) == ""
    assert without_value({**good, "z": np.array([np.nan, 1.0])}) == "1 of 2 predicted values ('z') are no numbers"


# ---------------------------------------------------------------- settling


def predicted(folder: Path, **arrays: np.ndarray) -> dict[str, Any]:
    np.savez(folder / PREDICTIONS, **arrays)
    written(folder, GOOD)
    return settle(RunSpec("digits-cnn", "reference", "smoke"), folder)


def test_a_run_is_scored_from_its_predictions_alone(tmp_path: Path) -> None:
    """Logits that know the answers score near nothing, whatever the curve says; by the parent's numpy."""
    task = suite.task("digits-cnn")
    truth = task.answers(task.info.tiers["smoke"])
    logits = 20.0 * (np.arange(10)[None, :] == truth[:, None])
    row = predicted(tmp_path, logits=logits.astype(np.float32))
    assert row["status"] == "ok"
    assert row["score"] == pytest.approx(math.log(1 + 9 * math.exp(-20)), rel=1e-5)
    assert row["metrics"] == [("accuracy", 1.0), ("ce", row["score"])]


@pytest.mark.parametrize(
    ("arrays", "status", "message"),
    [
        ({"logits": np.zeros((3, 10))}, "error", "scoring failed: ValueError: predictions of shape"),
        ({"logits": np.zeros((500, 10, 1))}, "error", "scoring failed"),
        ({"logits": np.zeros(())}, "error", "scoring failed"),
        ({"other": np.zeros((500, 10))}, "error", "scoring failed: KeyError: 'logits'"),
        ({"logits": np.zeros((500, 10), dtype=np.complex64)}, "error", "refused: it left predictions 'logits' of type"),
        ({"logits": np.full((500, 10), np.nan)}, "diverged", "5000 of 5000 predicted values"),
        ({"logits": np.full((500, 10), np.inf)}, "diverged", "test ce is nan"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_wrong_predictions_are_a_result(arrays: Any, status: str, message: str, tmp_path: Path) -> None:
    row = predicted(tmp_path, **arrays)
    assert (row["status"], row["score"]) == (status, None)
    assert row["message"].startswith(message)


def test_predictions_of_one_value_do_not_pass_for_all_of_them() -> None:
    """Every embedded task refuses arrays that would only fit its answers by being repeated."""
    for info in suite.tasks():
        if info.data or "smoke" not in info.tiers:
            continue
        task = info.factory(info)
        answers = task.answers(info.tiers["smoke"])
        for shape in ((), (1,), (1, 1), (1, 1, 1)):
            guess = {name: np.zeros(shape) for name in ("logits", "u", "completions", "greedy")}
            with pytest.raises((ValueError, IndexError)):
                task.score(guess, answers)


# ---------------------------------------------------------------- the parent's clock

TIMES = {"setup_seconds": 1.0, "train_seconds": 6.0, "eval_seconds": 2.0, "predict_seconds": 0.5}


@pytest.mark.parametrize(
    ("counts", "clock", "resumed", "accelerated", "what"),
    [
        (TIMES, Clock(10.0, 9.5), False, False, ""),
        (TIMES, Clock(11.0, 11.0), False, False, ""),
        ({**TIMES, "train_seconds": 60.0}, Clock(10.0, 9.5), False, False, "states 63.5 s of work"),
        ({**TIMES, "train_seconds": 60.0}, Clock(10.0, 9.5), True, False, ""),
        ({**TIMES, "train_seconds": 0.06}, Clock(10.0, 9.5), False, False, "accounts for 3.6 s"),
        ({**TIMES, "train_seconds": 0.06}, Clock(10.0, 9.5), True, False, "accounts for 3.6 s"),
        (TIMES, Clock(999.0, 9.5), False, False, ""),
        (TIMES, Clock(10.0, 19.0), False, False, "used 19.0 s of processor time in 10.0 s; a run is one thread"),
        (TIMES, Clock(10.0, 19.0), False, True, ""),
        ({}, Clock(0.2, 0.2), False, False, ""),
    ],
)
def test_a_runs_times_are_held_against_the_parents(
    counts: Any, clock: Clock, resumed: bool, accelerated: bool, what: str
) -> None:
    found = contradiction(counts, clock, resumed, accelerated)
    assert found.startswith(what)
    assert bool(found) == bool(what)


@pytest.mark.parametrize(
    "cost",
    ["", "[]", {}, {"cost_ratio": 0.0}, {"cost_ratio": -1.0}, {"cost_ratio": math.inf}, {"cost_ratio": "1"},
     {"cost_ratio": 1.0, "flops": math.nan}, {"cost_ratio": 1.0, "precise": [1]}],
)  # fmt: skip
def test_a_step_cost_that_cannot_be_one_is_refused(cost: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        read_cost(written(tmp_path, cost, "cost.json"))
    good = {"cost_ratio": 1.25, "cost_low": 1.0, "cost_high": 1.5, "pairs": 10, "precise": True, "flops": 1e9}
    assert read_cost(written(tmp_path, good, "cost.json")) == good
