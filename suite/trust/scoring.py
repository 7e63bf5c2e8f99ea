"""Reading what a training process left behind: as hostile data, never unpickled, timed by the parent's clock."""

from __future__ import annotations

import json
import math
import os
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

OUTCOME_LIMIT = 16 * 2**20  # bytes of JSON
PREDICTIONS_LIMIT = 512 * 2**20  # bytes of arrays
ARRAYS_LIMIT = 64
MESSAGE_LIMIT = 2000
_WHOLE = 2**62
_UNREADABLE = (
    zipfile.BadZipFile, ValueError, EOFError, OSError, KeyError, NotImplementedError, RuntimeError, SyntaxError,
)  # fmt: skip

_STATUSES = ("ok", "diverged", "error", "oom", "skipped")  # a time limit is the parent's to state
_POINT = {"spent": False, "steps": True, "examples": True, "seconds": False, "train_loss": False}  # name -> whole
_COUNTS = {
    **dict.fromkeys(("steps", "passes", "examples", "parameters", "state_bytes", "peak_bytes"), True),
    **dict.fromkeys(("spent", "train_seconds", "eval_seconds", "setup_seconds", "predict_seconds"), False),
}
_COST = ("cost_ratio", "cost_low", "cost_high", "step_seconds", "flops", "elementwise")


class Refused(ValueError):
    """What a training process left behind is not what it may leave; the message says what is wrong."""


# ---------------------------------------------------------------- files


def open_plain(path: Path, limit: int) -> IO[bytes]:
    """An ordinary file of at most `limit` bytes, opened to read; links, pipes and devices are refused."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"left no readable {path.name} ({error.strerror})") from None
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > limit:
        os.close(handle)
        size = f"of {facts.st_size / 2**20:.0f} MiB, more than {limit / 2**20:g} MiB"
        raise Refused(f"left a {path.name} {size if stat.S_ISREG(facts.st_mode) else 'that is no ordinary file'}")
    return os.fdopen(handle, "rb")


def read_json(path: Path, limit: int = OUTCOME_LIMIT) -> Any:
    """A JSON file, with its size and nesting held."""
    with open_plain(path, limit) as file:
        data = file.read()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused(f"left a {path.name} that is no JSON ({type(error).__name__})") from None


# ---------------------------------------------------------------- outcomes


def read_outcome(path: Path, points: int) -> dict[str, Any]:
    """The outcome a training process wrote, every field of the type it must have.

    Parameters
    ----------
    points : longest curve that the run can have.

    Raises
    ------
    Refused : it is something else.
    """
    outcome = read_json(path)
    wanted = {"status", "message", "curve", "counts", "exhibits", "started", "finished"}
    _need(isinstance(outcome, dict) and set(outcome) == wanted, "no outcome")
    _need(outcome["status"] in _STATUSES, f"status {str(outcome['status'])[:40]!r}")
    _need(isinstance(outcome["message"], str), "message")
    outcome["message"] = outcome["message"].encode(errors="replace").decode()[:MESSAGE_LIMIT]
    for name in ("started", "finished"):
        _need(_number(outcome[name]) and 0 <= outcome[name] < 4e9, name)
    counts, curve, exhibits = outcome["counts"], outcome["curve"], outcome["exhibits"]
    _need(isinstance(counts, dict) and set(counts) <= set(_COUNTS), "counts")
    _need(all(_number(v, _COUNTS[k]) and v >= 0 for k, v in counts.items()), "counts")
    _need(isinstance(exhibits, dict), "exhibits")
    _need(isinstance(curve, list) and len(curve) <= points, f"curve of more than {points} points")
    _need(all(_is_point(point) for point in curve), "curve")
    if outcome["status"] == "ok":
        _need(bool(curve) and {"steps", "train_seconds", "spent"} <= set(counts), "finished run without its counts")
    return outcome


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, dict)
        and set(point) == {*_POINT, "metrics"}
        and all(_number(point[name], whole) for name, whole in _POINT.items())
        and isinstance(point["metrics"], dict)
        and all(_number(value) for value in point["metrics"].values())
    )


def _number(value: Any, whole: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return not isinstance(value, int) or abs(value) < _WHOLE


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise Refused(f"left an outcome that cannot be one: {what}")


def read_cost(path: Path) -> dict[str, Any]:
    """A step-cost measurement that a process with the method in it wrote.

    Raises
    ------
    Refused : it is something else.
    """
    cost = read_json(path)
    if not isinstance(cost, dict) or any(not _number(v) and not isinstance(v, bool) for v in cost.values()):
        raise Refused("left a step cost that cannot be one")
    numbers = [cost.get(name, 1.0) for name in _COST]
    if "cost_ratio" not in cost or not all(math.isfinite(v) and v >= 0 for v in numbers) or cost["cost_ratio"] <= 0:
        raise Refused("left a step cost that cannot be one: its numbers are not finite and positive")
    return cost


# ---------------------------------------------------------------- predictions


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an uncompressed ``.npz`` of plain numbers; nothing in it is unpickled.

    Raises
    ------
    Refused : compressed or too large, objects or text, or a header that belies its size.
    """
    with open_plain(path, PREDICTIONS_LIMIT + 2**20) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _arrays(archive)
        except Refused:
            raise
        except _UNREADABLE as error:
            raise Refused(f"left predictions that cannot be read ({type(error).__name__})") from None


def _arrays(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    members = archive.infolist()
    if len(members) > ARRAYS_LIMIT or len({m.filename for m in members}) < len(members):
        raise Refused(f"left predictions of {len(members)} arrays, more than {ARRAYS_LIMIT} or of one name")
    if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
        raise Refused("left compressed predictions; they are stored as they are")
    if sum(m.file_size for m in members) > PREDICTIONS_LIMIT:
        raise Refused(f"left predictions of more than {PREDICTIONS_LIMIT / 2**20:g} MiB")
    found = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        with archive.open(member) as file:
            found[name] = _array(file, name, member.file_size)
    return found


def _array(file: IO[bytes], name: str, size: int) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise Refused(f"left predictions {name!r} of an unknown format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise Refused(f"left predictions {name!r} of type {dtype}; they are numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise Refused(f"left predictions {name!r} whose header does not fit their size")
    data = np.frombuffer(bytearray(file.read()), dtype=dtype)
    return data.reshape(shape[::-1]).T if fortran else data.reshape(shape)


def without_value(predictions: Mapping[str, np.ndarray]) -> str:
    """Names the predictions that hold values that are no numbers; "" when none does.

    Scalars beside the predictions may be; infinite values are for the score to judge.
    """
    for name, array in predictions.items():
        if array.ndim and array.dtype.kind == "f" and (missing := int(np.isnan(array).sum())):
            return f"{missing} of {array.size} predicted values ({name!r}) are no numbers"
    return ""


# ---------------------------------------------------------------- the parent's clock


@dataclass(frozen=True)
class Clock:
    """What the parent measured of a training process.

    Attributes
    ----------
    wall_seconds : from its start to its end.
    cpu_seconds : processor time of it and of what it waited for.
    """

    wall_seconds: float
    cpu_seconds: float


def contradiction(counts: Mapping[str, float], clock: Clock, resumed: bool, accelerated: bool) -> str:
    """How a run's own times and the parent's contradict each other; "" when they do not.

    The seconds that a run states, of set-up, training, evaluation and
    prediction, are its whole life but for its start and the writing of its
    result: they may be neither more than the time that passed nor far less than
    the processor time it used (a process that was stopped for a while used
    none). One thread cannot use more processor time than passed.

    Parameters
    ----------
    counts : the run's own numbers.
    clock : the parent's.
    resumed : the run may have gone on from a checkpoint of an earlier process.
    accelerated : it computed on a device other than the CPU, whose driver has threads of its own.
    """
    wall = clock.wall_seconds
    setup = counts.get("setup_seconds", 0.0)
    stated = setup + sum(counts.get(f"{part}_seconds", 0.0) for part in ("train", "eval", "predict"))
    if not resumed and stated > 1.05 * wall + 0.5:
        return f"states {stated:.1f} s of work; by the parent's clock its process lived {wall:.1f} s"
    used = clock.cpu_seconds
    if not accelerated and used > 1.15 * wall + 1.0 + 4.0 * setup:
        return f"used {used:.1f} s of processor time in {wall:.1f} s; a run is one thread"
    busy = min(used, wall)  # a device driver's threads compute beside the run's own
    if stated < 0.8 * busy - 1.0:
        return f"accounts for {stated:.1f} s; by the parent's clock its process computed for {busy:.1f} s"
    return ""
