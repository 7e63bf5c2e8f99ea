"""Arrays that are expensive to make and depend on nothing but code: made once, kept on disk."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def folder() -> Path:
    """The user's cache folder: ``LEVELFIELD_CACHE``, else ``~/.cache/levelfield``."""
    return Path(os.environ.get("LEVELFIELD_CACHE") or Path.home() / ".cache" / "levelfield")


def arrays(name: str, key: str, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of ``make()``, from disk when they were made before under the same key.

    Parameters
    ----------
    name : readable part of the file's name.
    key : everything the arrays depend on (code hash, sizes, seed), as text.
    make : makes the arrays; called when there is no readable file.

    Notes
    -----
    Files are ``.npz`` without pickled objects, written whole or not at all.
    An unreadable file is made again; an unwritable folder means no caching.
    """
    import numpy as np  # not for whoever asks for the folder alone, as the command line does at its start

    file = folder() / "arrays" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {k: stored[k] for k in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        made = {k: np.asarray(v) for k, v in make().items()}
    _keep(file, lambda temporary: np.savez(temporary, **made))  # type: ignore[arg-type]
    return made


def content(name: str, key: str, make: Callable[[], bytes]) -> bytes:
    """The bytes of ``make()``, from disk when they were made before under the same key.

    Parameters
    ----------
    name, key : as for `arrays`.
    make : makes the bytes; called when there is no file, or a damaged one.

    Notes
    -----
    A file is the sha256 of its content, then the content, written whole or not
    at all. An unwritable folder means no caching.
    """
    file = folder() / "content" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    size = hashlib.sha256().digest_size
    try:
        stored = file.read_bytes()
    except OSError:
        stored = b""
    if stored and hashlib.sha256(stored[size:]).digest() == stored[:size]:
        return stored[size:]
    made = make()
    _keep(file, lambda temporary: temporary.write_bytes(hashlib.sha256(made).digest() + made))
    return made


def _keep(file: Path, write: Callable[[Path], object]) -> None:
    """Have a file written whole or not at all; not at all where the folder cannot be written."""
    temporary = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, file)
    except OSError:
        pass
