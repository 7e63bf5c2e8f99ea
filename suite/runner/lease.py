"""Lease files: two launchers can share a results folder, and a dead one's runs are taken over."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path

STALE_SECONDS = 120.0  # a launcher elsewhere that has not renewed for this long is taken for dead


class Leases:
    """The leases this launcher holds in a results folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[str, float] = {}
        self.owner = {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())}

    def take(self, run_id: str) -> bool:
        """Claim a run; False while a living launcher holds it."""
        path = self.folder / run_id
        for _ in range(4):
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileNotFoundError:  # no folder yet, or another launcher has just cleared it away
                self.folder.mkdir(parents=True, exist_ok=True)
                continue
            except FileExistsError:
                if not self._stale(path) or not self._bury(path):
                    return False
                continue
            with os.fdopen(handle, "w") as file:
                json.dump(self.owner, file)
            self.held[run_id] = time.monotonic()
            return True
        return False

    def renew(self) -> None:
        """Show that this launcher lives, at most every ten seconds a lease."""
        now = time.monotonic()
        for run_id, last in self.held.items():
            if now - last > 10:
                self.held[run_id] = now
                with contextlib.suppress(FileNotFoundError):
                    os.utime(self.folder / run_id)

    def release(self, run_id: str) -> None:
        if self.held.pop(run_id, None) is not None:
            (self.folder / run_id).unlink(missing_ok=True)

    def release_all(self) -> None:
        """Let go of everything, and clear away the leases of the dead."""
        for run_id in list(self.held):
            self.release(run_id)
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():  # what launchers that were killed have left
                if self._stale(path):
                    self._bury(path)
            self.folder.rmdir()

    def _bury(self, path: Path) -> bool:
        """Remove a dead launcher's lease; False where another launcher has taken the run over meanwhile.

        One launcher at a time looks again and removes, so that none removes the lease of the next holder.
        """
        try:
            handle = os.open(self.folder, os.O_RDONLY)
        except FileNotFoundError:  # cleared away with all that was in it
            return True
        try:
            with contextlib.suppress(OSError):  # some network file systems cannot lock a folder
                fcntl.flock(handle, fcntl.LOCK_EX)
            dead = self._dead(path)
            if dead:
                path.unlink(missing_ok=True)
            return dead
        except FileNotFoundError:  # buried or released meanwhile; a new one may come at any moment
            return True
        finally:
            os.close(handle)

    def _stale(self, path: Path) -> bool:
        try:
            return self._dead(path)
        except FileNotFoundError:
            return True

    def _dead(self, path: Path) -> bool:
        """Whether a lease's holder has ended; raises FileNotFoundError where there is no lease."""
        try:
            owner = json.loads(path.read_text())
            host, pid, born = str(owner["host"]), int(owner["pid"]), owner["born"]
            if not 0 < pid < 2**31:
                raise ValueError(f"no process has the number {pid}")
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # cut off while being written
            return time.time() - path.stat().st_mtime > 5
        age = time.time() - path.stat().st_mtime
        if host == self.owner["host"]:
            return _born(pid) != born
        return age > STALE_SECONDS


def _born(pid: int) -> str:
    """Start time of a process, "" when it is gone: a recycled pid is not the same process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter when it ends while being read
        if os.path.isdir("/proc/self"):
            return ""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "alive"
    state, *_rest = stat.rpartition(")")[2].split()
    return "" if state == "Z" else stat.rpartition(")")[2].split()[19]
