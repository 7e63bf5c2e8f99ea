"""Bundles changed by somebody who knows the format."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

from suite.store.files import decode, table_bytes
from suite.trust.bundle import MANIFEST, ROWS

Files = dict[str, bytes]


def rebuilt(bundle: bytes, change: Callable[[Files], Any], rehash: bool = True) -> bytes:
    """The bundle with some files changed and, unless told otherwise, its hashes set right again."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    if rehash:
        manifest = json.loads(files[MANIFEST])
        if isinstance(manifest, dict):
            stated = {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()}
            manifest["files"] = {n: facts for n, facts in stated.items() if n != MANIFEST}
            files[MANIFEST] = json.dumps(manifest).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_rows(bundle: bytes, change: Callable[[dict[str, Any]], dict[str, Any]], name: str = ROWS) -> bytes:
    """The bundle with every row of the method, or of the reference, changed."""

    def forge(files: Files) -> None:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            rows = decode(archive.read(name)).to_pylist()
        files[name] = table_bytes([change(row) for row in rows])

    return rebuilt(bundle, forge)


def with_manifest(bundle: bytes, **changes: Any) -> bytes:
    """The bundle with some fields of the manifest changed."""

    def forge(files: Files) -> None:
        files[MANIFEST] = json.dumps({**json.loads(files[MANIFEST]), **changes}).encode()

    return rebuilt(bundle, forge)
