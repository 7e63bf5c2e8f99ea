"""Landlock: a process gives up, for itself and its children, writing anywhere but in given places.

It also gives up TCP (Linux 6.7), signals to other processes (6.12) and, since
the first version, looking into processes that have not given up the same. It
needs no privilege and no program; the kernel's interface is
https://docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # system calls, the same on every architecture
_VERSION, _PATH_BENEATH = 1, 1
_NO_NEW_PRIVILEGES = 38

_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_CHANGES = sum(1 << bit for bit in range(4, 13))  # remove and make files, folders, links, pipes, sockets, devices
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract sockets, signals


@functools.cache
def version() -> int:
    """Version of the kernel's Landlock; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    found = _call(_CREATE, None, 0, _VERSION)
    return max(found, 0)


def restrict(folders: Iterable[Path], files: Iterable[Path] = ()) -> None:
    """Give up writing, for good, except below `folders` and into existing `files`.

    Raises
    ------
    OSError : the kernel refuses, or has no Landlock.
    """
    known = version()
    if not known:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock")
    writes = _WRITE_FILE | _CHANGES | (_REFER if known >= 2 else 0) | (_TRUNCATE if known >= 3 else 0)
    fields = [writes, *([_TCP] if known >= 4 else []), *([_SCOPES] if known >= 6 else [])]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    rules = _checked(_call(_CREATE, attributes, len(attributes), 0))
    try:
        for path in folders:
            _allow(rules, path, writes)
        for path in files:
            _allow(rules, path, writes & (_WRITE_FILE | _TRUNCATE))
        _checked(_libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        _checked(_call(_RESTRICT, rules, 0))
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, access: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _checked(_call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", access, handle), 0))
    finally:
        os.close(handle)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: bytes | int | None) -> int:
    plain = [a if isinstance(a, bytes) or a is None else ctypes.c_long(a) for a in arguments]
    return _libc().syscall(ctypes.c_long(number), *plain)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
