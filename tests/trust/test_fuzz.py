"""Damaged and forged files: each reader says what is wrong in one sentence or sets the file aside; none runs anything."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import stat
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forge import Files, rebuilt

import suite
from leaderboard.model import build
from suite.api import checked
from suite.claims import ClaimError, read_ledger
from suite.registry import Registry, RegistryError, _Cache
from suite.runner.execute import Outcome, make_row
from suite.runner.lease import Leases
from suite.runner.spec import RunSpec
from suite.store.files import read, table_bytes
from suite.trust.bundle import MANIFEST, REFERENCE_ROWS, ROWS, BadBundle, make, parse
from suite.trust.scoring import Refused, read_cost, read_outcome, read_predictions

POINT = {"spent": 0, "steps": 0, "examples": 0, "seconds": 0.0, "train_loss": 1.5, "metrics": {"ce": 2.5}}
COUNTS = {"steps": 225, "passes": 225, "examples": 14400, "spent": 225.0, "train_seconds": 0.5, "parameters": 9}
OUTCOME = {
    "status": "ok", "message": "", "curve": [POINT, POINT], "counts": COUNTS,
    "exhibits": {"a": {"kind": "activation", "x": [0.0], "y": [0.0], "dy": [1.0]}}, "started": 1.7e9, "finished": 1.7e9,
}  # fmt: skip
COST = {"cost_ratio": 1.25, "cost_low": 1.0, "cost_high": 1.5, "pairs": 10, "precise": True, "flops": 1e9}


def rows(method: str, count: int = 3) -> list[dict[str, Any]]:
    """Result rows as a run leaves them."""
    made = []
    for seed in range(count):
        spec = RunSpec("digits-cnn", method, "quick", seed)
        row = make_row(spec, Outcome(**copy.deepcopy(OUTCOME)), {"logits": np.zeros((500, 10))}, trust="reproduced")
        when = datetime(2026, 1, 2, tzinfo=UTC)
        made.append({**row, "started_at": when, "finished_at": when, "commit": "", "dirty": False})
    return made


@pytest.fixture(scope="module")
def good() -> dict[str, bytes]:
    """One sound file of each kind."""
    mine, reference = rows("golu"), rows("reference")
    return {"table": table_bytes([*mine, *reference]), "bundle": make(suite.method("golu"), mine, reference)}


# ---------------------------------------------------------------- mutations


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Bit flips, truncations, zeroed, repeated, moved and foreign stretches."""
    out = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        i = dice.randrange(len(out))
        j = min(len(out), i + dice.choice([1, 4, 64, 4096]))
        how = dice.randrange(7)
        if how <= 1:
            for _ in range(dice.choice([1, 3, 20])):
                out[dice.randrange(len(out))] ^= 1 << dice.randrange(8)
        elif how == 2:
            del out[i:]
        elif how == 3:
            out[i:j] = bytes(j - i)
        elif how == 4:
            out[i:j] = out[i:j] * 3
        elif how == 5:
            out[i:j] = dice.randbytes(j - i)
        else:
            out[i:i] = out[-(j - i) :]
        if not out:
            break
    return bytes(out)


def twisted(value: Any, dice: random.Random) -> Any:
    """A JSON value with one place of it swapped for something of another kind, left out or added."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    value = copy.deepcopy(value)
    walk(value)
    owner, key = dice.choice(places)
    odd = [
        None, True, -1, 0, 1.5, 10**400, -(10**30), 2**63, "", "x" * 5000, "\ud800", "__import__('os')", [], {}, [[]],
        {"": None}, float("nan"), float("inf"), nested(dice.choice([5, 900])), [0] * 1000, "../../etc/passwd",
    ]  # fmt: skip
    how = dice.randrange(4)
    if how == 0 and isinstance(owner, dict):
        del owner[key]
    elif how == 1 and isinstance(owner, dict):
        owner[dice.choice(["odd", "__class__", key * 2])] = dice.choice(odd)
    else:
        owner[key] = dice.choice(odd)
    return value


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def texts(value: Any, count: int, dice: random.Random) -> Iterator[bytes]:
    """Damaged forms of a JSON file: as bytes, and as values."""
    whole = json.dumps(value).encode()
    yield from (b"", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b"\xff\xfe", b"NaN", b'"')
    for i in range(count - 8):
        yield damaged(whole, dice) if i % 2 else json.dumps(twisted(value, dice)).encode()


@pytest.fixture(autouse=True)
def nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader unpickles or starts a process."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a reader ran something")

    for target in ("pickle.loads", "pickle.load", "os.system", "subprocess.Popen.__init__"):
        monkeypatch.setattr(target, refuse)


# ---------------------------------------------------------------- tables and bundles


def test_damaged_tables_are_set_aside_or_read(good: dict[str, bytes], tmp_path: Path) -> None:
    """150 Parquet files; what can still be read makes a board."""
    dice = random.Random(1)
    (tmp_path / "sound.parquet").write_bytes(good["table"])
    aside = 0
    for i in range(150):
        file = tmp_path / "damaged.parquet"
        file.write_bytes(damaged(good["table"], dice))
        found = read(tmp_path)
        aside += len(found.problems)
        assert found.table.num_rows >= 6, i
        assert all("\n" not in p and str(file) in p for p in found.problems), i
        build(found.table, found.problems)
    assert aside > 100


def test_damaged_bundles_are_refused(good: dict[str, bytes]) -> None:
    """100 files: a flipped bit anywhere that matters shows in a hash."""
    dice = random.Random(2)
    sound = parse(good["bundle"])
    told = []
    for _ in range(100):
        try:
            found = parse(damaged(good["bundle"], dice))
        except BadBundle as error:
            told.append(str(error))
        else:  # damage to what nothing reads: times and padding of the archive
            assert found.rows.equals(sound.rows)
            assert found.sources == sound.sources
    assert len(told) > 80
    assert not any("\n" in sentence for sentence in told)


def test_bundles_forged_with_right_hashes_are_refused_or_sound(good: dict[str, bytes]) -> None:
    """100 manifests and tables changed by somebody who knows the format."""
    dice = random.Random(3)
    for i in range(100):

        def change(files: Files, name: str = (MANIFEST, ROWS, REFERENCE_ROWS)[i % 3]) -> None:
            if name == MANIFEST:
                files[name] = json.dumps(twisted(json.loads(files[name]), dice)).encode()
            else:
                files[name] = damaged(files[name], dice)

        with contextlib.suppress(BadBundle):
            parse(rebuilt(good["bundle"], change, rehash=i % 3 > 0))


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("source/../../escaped.py", stat.S_IFREG, "has no place in a bundle"),
        ("/etc/escaped.py", stat.S_IFREG, "has no place in a bundle"),
        ("source/a\\b.py", stat.S_IFREG, "has no place in a bundle"),
        ("source/" + "a/" * 60 + "b.py", stat.S_IFREG, "has no place in a bundle"),
        ("source/link.py", stat.S_IFLNK, "is no ordinary file"),
        ("source/module.so", stat.S_IFREG, "has no place in a bundle"),
        ("results/other.parquet", stat.S_IFREG, "has no place in a bundle"),
        ("source/folder/", stat.S_IFDIR, "has no place in a bundle"),
    ],
)
def test_a_file_that_would_leave_its_folder_is_refused(name: str, kind: int, what: str, good: dict[str, bytes]) -> None:
    buffer = io.BytesIO(good["bundle"])
    with zipfile.ZipFile(buffer, "a") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = (kind | 0o644) << 16
        archive.writestr(member, b"x = 1\n")
    with pytest.raises(BadBundle, match=what):
        parse(buffer.getvalue())


def test_a_bundle_that_would_grow_is_refused_before_it_is_unpacked(good: dict[str, bytes]) -> None:
    buffer = io.BytesIO(good["bundle"])
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("source/bomb.py", b"#" * 2**26)
    assert len(buffer.getvalue()) < 2**20
    with pytest.raises(BadBundle, match=r"source/bomb\.py is compressed; bundles are stored as they are"):
        parse(buffer.getvalue())
    many = io.BytesIO(good["bundle"])
    with zipfile.ZipFile(many, "a") as archive:
        for i in range(200):
            archive.writestr(f"source/a{i}.py", b"")
    with pytest.raises(BadBundle, match="more than 100"):
        parse(many.getvalue())


# ---------------------------------------------------------------- JSON and TOML


def test_damaged_outcomes_costs_and_predictions_are_refused_or_read(tmp_path: Path) -> None:
    dice = random.Random(4)
    file = tmp_path / "file"
    for value, reader in ((OUTCOME, lambda f: read_outcome(f, 2)), (COST, read_cost)):
        for data in texts(value, 50, dice):
            file.write_bytes(data)
            with contextlib.suppress(Refused):
                reader(file)
    np.savez(file.with_suffix(".npz"), a=np.arange(9.0), b=np.zeros((2, 3), np.uint8))
    whole = file.with_suffix(".npz").read_bytes()
    for _ in range(50):
        file.write_bytes(damaged(whole, dice))
        with contextlib.suppress(Refused):
            assert all(array.dtype.kind in "biuf" for array in read_predictions(file).values())


def test_damaged_specifications_are_one_sentence() -> None:
    dice = random.Random(5)
    stated = json.loads(RunSpec("digits-cnn", "adamw", "smoke", 1, {"lr": 0.1}).to_json())
    for data in texts(stated, 50, dice):
        with contextlib.suppress(ValueError, RegistryError):
            checked(RunSpec.from_json(data.decode(errors="replace")))


def test_damaged_leases_and_caches_are_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(6)
    monkeypatch.setenv("LEVELFIELD_CACHE", str(tmp_path / "cache"))
    wanted = sorted(Registry().methods)
    cache, lease = _Cache().file, tmp_path / "leases" / "r"
    whole = json.loads(cache.read_text())
    small = {**whole, "scans": dict(list(whole["scans"].items())[:3])}
    for i, data in enumerate(texts(small, 30, dice)):
        cache.write_bytes(data)
        _Cache()
        if i % 10 == 0:
            assert sorted(Registry().methods) == wanted
    lease.parent.mkdir()
    for data in texts({"host": "here", "pid": os.getpid(), "born": "1"}, 30, dice):
        lease.write_bytes(data)
        Leases(lease.parent).take("r")
        lease.unlink(missing_ok=True)


def test_a_damaged_ledger_of_claims_is_one_sentence(tmp_path: Path) -> None:
    """50 TOML files."""
    dice = random.Random(7)
    whole = (Path(suite.__file__).parent.parent / "baselines" / "claims.toml").read_bytes()[:6000]
    file = tmp_path / "claims.toml"
    for i in range(50):
        text = damaged(whole, dice) if i else b"a = " + b"[" * 20_000
        file.write_bytes(text)
        with contextlib.suppress(ClaimError):
            read_ledger(file)
