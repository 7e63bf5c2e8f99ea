"""A submission as one file: source, result rows and the hashes of both, written the same way every time.

A bundle is an uncompressed ``.zip``::

    manifest.json               what the other files are, with their hashes
    source/...                  the method's file and what it imports from the project
    results/method.parquet      its result rows
    results/reference.parquet   the reference's rows that they are paired with

Reading one trusts nothing in it: sizes, names, types and hashes are checked
before anything is decoded, nothing is unpickled, no source is run.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from suite import __version__
from suite.facts import Paper
from suite.fingerprint import files_hash, method_hash, sources
from suite.registry import Method, module_name
from suite.store.files import decode, table_bytes, write_bytes
from suite.store.schema import SCHEMA_VERSION, SELF_REPORTED, SMOKE, SchemaError
from suite.trust.scoring import Refused, open_plain

FORMAT = 1
BUNDLE_LIMIT = 64 * 2**20
FILES_LIMIT = 100
SOURCE_LIMIT = 2**20
MANIFEST, ROWS, REFERENCE_ROWS = "manifest.json", "results/method.parquet", "results/reference.parquet"
_NAME = re.compile(r"source/([A-Za-z0-9_-]+/){0,8}[A-Za-z0-9_-]+\.py")
_TEXT = ("levelfield", "method", "slot", "method_hash", "entry", "tier", "author", "licence", "summary")
_FIELDS = {*_TEXT, "format", "schema_version", "tasks", "seeds", "files", "environments", "commits", "paper"}
_BROKEN = (zipfile.BadZipFile, ValueError, EOFError, OSError, KeyError, NotImplementedError, RuntimeError)


class BadBundle(ValueError):
    """Not a bundle that can be used; the message says what is wrong with it."""


@dataclass(frozen=True)
class Bundle:
    """A submission.

    Attributes
    ----------
    manifest : what it states about itself.
    sources : relative path below ``source/`` -> a Python file.
    rows, reference : result rows of the method, and of the reference on the same tasks and seeds.
    """

    manifest: Mapping[str, Any]
    sources: Mapping[str, bytes]
    rows: pa.Table
    reference: pa.Table

    @property
    def method(self) -> str:
        return self.manifest["method"]


# ---------------------------------------------------------------- writing


def source_files(method: Method) -> dict[str, bytes]:
    """A method's file and every project file it imports: path (package/folder/file.py, or the bare name) -> content."""
    return {_place(file): file.read_bytes() for file in sources(method.path)}


def _place(file: Path) -> str:
    name = module_name(file)
    if name.startswith("levelfield_entry_"):
        return file.name
    return f"{name.replace('.', '/')}{'/__init__' if file.name == '__init__.py' else ''}.py"


def make(
    method: Method,
    rows: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]],
    author: str = "",
    licence: str = "",
) -> bytes:
    """A bundle's bytes; the same rows and source give the same bytes.

    Parameters
    ----------
    method : the submitted method.
    rows, reference : result rows of the method, and of the reference it is compared with.
    author, licence : whom to credit, and the terms of the source.
    """
    files = {f"source/{path}": data for path, data in source_files(method).items()}
    odd = [name for name in files if not _NAME.fullmatch(name)]
    if odd:
        raise BadBundle(f"{odd[0]}: name the file with letters, digits, '_' and '-' alone")
    files |= {ROWS: table_bytes(_as_reported(rows)), REFERENCE_ROWS: table_bytes(_as_reported(reference))}
    everything = [*rows, *reference]
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "levelfield": __version__,
        "method": method.name,
        "slot": method.slot,
        "method_hash": method_hash(method),
        "entry": f"source/{_place(Path(method.path))}",
        "tier": rows[0]["tier"],
        "tasks": {r["task"]: {"version": r["task_version"], "hash": r["task_hash"]} for r in rows},
        "seeds": sorted({r["seed"] for r in rows}),
        "environments": {r["environment_hash"]: json.loads(r["environment"]) for r in everything},
        "commits": sorted({f"{r['commit']}{' with changes' if r['dirty'] else ''}" for r in everything}),
        "author": author,
        "licence": licence,
        "summary": method.summary,
        "paper": _paper(method.paper),
        "files": {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in sorted(files.items())},
    }
    text = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    return _archive({MANIFEST: text, **dict(sorted(files.items()))})


def _as_reported(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows that leave the machine that made them: a word to be taken, until somebody runs them again."""
    ordered = sorted(rows, key=lambda r: (r["task"], r["seed"], r["run_id"]))
    return [{**r, "trust": r["trust"] if r["trust"] == SMOKE else SELF_REPORTED} for r in ordered]


def _paper(paper: Paper | None) -> dict[str, Any]:
    return {k: v for k, v in vars(paper).items() if v} if paper else {}


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, data)
    return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- reading


def read(path: Path) -> Bundle:
    """A bundle, every file of it checked against the manifest.

    Raises
    ------
    BadBundle : too large, damaged, not a bundle, or not what its manifest says.
    """
    try:
        with open_plain(path, BUNDLE_LIMIT) as file:
            data = file.read()
        return parse(data)
    except Refused as error:
        raise BadBundle(f"{path}: {str(error).removeprefix('left ')}") from None
    except BadBundle as error:
        raise BadBundle(f"{path}: {error}") from None


def parse(data: bytes) -> Bundle:
    """A bundle from its bytes; see `read`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive.infolist())
            files = {member.filename: archive.read(member) for member in archive.infolist()}
    except BadBundle:
        raise
    except _BROKEN as error:
        raise BadBundle(f"damaged, or not a bundle of `levelfield submit` ({type(error).__name__})") from None
    manifest = _manifest(files.pop(MANIFEST))
    stated = manifest["files"]
    if set(stated) != set(files):
        odd = sorted(set(stated) ^ set(files))
        raise BadBundle(f"its manifest and its content differ in {', '.join(odd[:5])!r}")
    for name, content in files.items():
        if stated[name] != {"bytes": len(content), "sha256": _sha256(content)}:
            raise BadBundle(
                f"{name} is not the file that the manifest states: it was changed after `levelfield submit`"
            )
    found = {n.removeprefix("source/"): content for n, content in files.items() if n.startswith("source/")}
    if manifest["entry"].removeprefix("source/") not in found:
        raise BadBundle("the source of the method is not in it")
    try:
        rows, reference = (decode(files[name], name) for name in (ROWS, REFERENCE_ROWS))
    except SchemaError as error:
        raise BadBundle(str(error)) from None
    _check_rows(manifest, rows, reference)
    return Bundle(manifest, found, rows, reference)


def _check_members(members: Sequence[zipfile.ZipInfo]) -> None:
    names = [m.filename for m in members]
    if len(names) > FILES_LIMIT or len(set(names)) < len(names):
        raise BadBundle(f"{len(names)} files, more than {FILES_LIMIT} or two of one name")
    missing = [name for name in (MANIFEST, ROWS, REFERENCE_ROWS) if name not in names]
    if missing:
        raise BadBundle(f"no {', '.join(missing)} in it: not a bundle of `levelfield submit`")
    for member in members:
        name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        if name not in (MANIFEST, ROWS, REFERENCE_ROWS) and not _NAME.fullmatch(name):
            raise BadBundle(f"{name[:80]!r} has no place in a bundle")
        if kind not in (0, stat.S_IFREG) or member.flag_bits & 1:
            raise BadBundle(f"{name} is no ordinary file")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise BadBundle(f"{name} is compressed; bundles are stored as they are")
        if name.endswith(".py") and member.file_size > SOURCE_LIMIT:
            raise BadBundle(f"{name} has {member.file_size} bytes; a source file has at most {SOURCE_LIMIT}")
    if sum(m.file_size for m in members) > BUNDLE_LIMIT:
        raise BadBundle(f"more than {BUNDLE_LIMIT // 2**20} MiB")


def _manifest(data: bytes) -> dict[str, Any]:
    """The manifest, every field of the type it must have."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise BadBundle("its manifest is no JSON") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        stated = found.get("format") if isinstance(found, dict) else None
        raise BadBundle(f"format {str(stated)[:20]}; this release reads format {FORMAT}")
    typed = (
        set(found) == _FIELDS
        and all(isinstance(found[name], str) and len(found[name]) < 4000 for name in _TEXT)
        and found["schema_version"] == SCHEMA_VERSION
        and _is_list(found["seeds"], int)
        and _is_list(found["commits"], str)
        and all(isinstance(found[name], dict) for name in ("environments", "paper"))
        and _is_table(found["tasks"], {"version": int, "hash": str})
        and _is_table(found["files"], {"bytes": int, "sha256": str})
    )
    if not typed:
        raise BadBundle("its manifest is not one of this release: a field is missing, unknown or of a wrong type")
    return found


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _is_table(value: Any, kinds: Mapping[str, type]) -> bool:
    return isinstance(value, dict) and all(
        isinstance(row, dict) and set(row) == set(kinds) and all(type(row[k]) is kind for k, kind in kinds.items())
        for row in value.values()
    )


def _check_rows(manifest: Mapping[str, Any], rows: pa.Table, reference: pa.Table) -> None:
    """The rows are those of the method and of the tasks that the manifest states."""
    if not rows.num_rows:
        raise BadBundle("it holds no result rows")
    for table, method in ((rows, manifest["method"]), (reference, "reference")):
        for row in table.select(["run_id", "method", "tier", "task", "task_hash"]).to_pylist():
            stated = manifest["tasks"].get(row["task"], {})
            if (row["method"], row["tier"]) != (method, manifest["tier"]) or row["task_hash"] != stated.get("hash"):
                raise BadBundle(f"run {row['run_id'][:40]!r} is not one that the manifest states")
        if len(set(table["run_id"].to_pylist())) < table.num_rows:
            raise BadBundle("it holds a run twice")
    if set(rows["method_hash"].to_pylist()) != {manifest["method_hash"]}:
        raise BadBundle("a row comes from other source than the manifest states")


# ---------------------------------------------------------------- source


def unpack(bundle: Bundle, folder: Path) -> Path:
    """Write the source files below `folder`; returns the one that registers the method.

    Raises
    ------
    BadBundle : they do not parse, or do not hash to what the rows state.
    """
    for name, content in bundle.sources.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    found = files_hash(folder / name for name in bundle.sources)
    if found != bundle.manifest["method_hash"]:
        raise BadBundle(f"its source hashes to {found}, its rows state {bundle.manifest['method_hash']}")
    return folder / bundle.manifest["entry"].removeprefix("source/")


def keep_source(method: Method, results: Path) -> Path:
    """Keep a method's source beside its results, as ``sources/METHOD@HASH.json``: path -> text."""
    file = results / "sources" / f"{method.name}@{method_hash(method)}.json"
    if not file.exists():
        texts = {path: data.decode(errors="replace") for path, data in sorted(source_files(method).items())}
        write_bytes(file, (json.dumps(texts, indent=1, ensure_ascii=False) + "\n").encode())
    return file
