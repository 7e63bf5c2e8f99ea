"""The sandbox of training processes: bubblewrap around the server, Landlock around every run.

Bubblewrap gives the server that forks the runs namespaces of its own: no
network but an empty loopback, no processes but its own, the file system
read-only with home folders, temporary folders and the results hidden, an
environment of a few variables. Landlock then holds each forked run to its own
folder. Where bubblewrap cannot work (not installed, or user namespaces are
refused) Landlock alone keeps writes and TCP connections away.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from suite import cache
from suite.registry import ENTRY_VARIABLE, package_roots, packages
from suite.trust import landlock

MODES = ("auto", "require", "off")
HELP = (
    "auto, require or off: keep the training processes off network and disk; require fails where bubblewrap cannot work"
)
_HIDDEN = ("/tmp", "/var/tmp", "/home", "/root", "/run", "/mnt", "/media", "/srv")
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES")
_KEPT_BEGINNINGS = ("OMP_", "MKL_", "OPENBLAS_", "LEVELFIELD_", "NVIDIA_", "CUBLAS_")
_NOT_DUMPABLE = 4


@dataclass(frozen=True)
class Sandbox:
    """What holds training processes here.

    Attributes
    ----------
    bubblewrap : path of the program, "" where it is not used.
    landlock : whether every run is held to its folder.
    """

    bubblewrap: str = ""
    landlock: bool = False

    def __bool__(self) -> bool:
        return bool(self.bubblewrap) or self.landlock

    def command(self, command: Sequence[str], writable: Sequence[Path] = (), hidden: Sequence[Path] = ()) -> list[str]:
        """`command` inside bubblewrap; as it is where that is not used.

        Parameters
        ----------
        writable : folders that it may write to; they must exist.
        hidden : folders that are empty inside, but for what is writable or needed in them.
        """
        if not self.bubblewrap:
            return list(command)
        options = [*_FLAGS, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
        covered = [p for p in (*map(Path, _HIDDEN), *(p.resolve() for p in hidden)) if p.is_dir() and p == p.resolve()]
        for folder in _outermost(covered):
            options += ["--tmpfs", str(folder)]
        for path in _outermost(needed()):
            if any(path.is_relative_to(folder) for folder in covered):
                options += ["--ro-bind", str(path), str(path)]
        for path in writable:
            options += ["--bind", str(path.resolve()), str(path.resolve())]
        for device in glob.glob("/dev/nvidia*"):
            options += ["--dev-bind-try", device, device]
        return [self.bubblewrap, *options, "--chdir", "/", "--", *command]

    def environment(self, given: dict[str, str]) -> dict[str, str]:
        """The few of the variables `given` that a run needs; all of them where bubblewrap is not used."""
        if not self.bubblewrap:
            return given
        kept = {k: v for k, v in given.items() if k in _KEPT or k.startswith(_KEPT_BEGINNINGS)}
        found = [str(root.parent) for package in ("suite", *packages()) for root in package_roots(package)]
        return {
            **kept,
            "HOME": "/tmp",
            "TMPDIR": "/tmp",
            "PYTHONUSERBASE": site.getuserbase(),
            "PYTHONPATH": os.pathsep.join(dict.fromkeys([*filter(None, [given.get("PYTHONPATH")]), *found])),
            "LEVELFIELD_CACHE": str(cache.folder()),
        }


OFF = Sandbox()
_FLAGS = (
    "--unshare-user", "--unshare-net", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try",
    "--die-with-parent", "--new-session", "--cap-drop", "ALL",
)  # fmt: skip


def needed() -> list[Path]:
    """What Python, the project and its data are read from, wherever they lie."""
    from suite.data import ROOT_VARIABLE  # which needs numpy

    places = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.realpath(sys.executable)]
    places += [place for place in sys.path if place.endswith(("site-packages", "dist-packages", ".zip", ".egg"))]
    places += [str(root) for package in ("suite", *packages()) for root in package_roots(package)]
    for variable in ("PYTHONPATH", ENTRY_VARIABLE, ROOT_VARIABLE):
        places += os.environ.get(variable, "").split(os.pathsep)
    places.append(str(cache.folder()))
    return sorted(Path(os.path.abspath(place)) for place in places if place and os.path.exists(place))


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths that lie below no other of them."""
    chosen: list[Path] = []
    for path in sorted(paths):
        if not any(path.is_relative_to(other) for other in chosen):
            chosen.append(path)
    return chosen


def choose(mode: str) -> Sandbox:
    """The sandbox of a ``--sandbox`` option.

    ``auto`` takes what this machine has, and says once what is missing.

    Raises
    ------
    ValueError : no such mode, or ``require`` where bubblewrap cannot work.
    """
    if mode not in MODES:
        raise ValueError(f"--sandbox takes {', '.join(MODES)}, got {mode!r}")
    if mode == "off":
        return OFF
    missing = unavailable()
    found = Sandbox("" if missing else shutil.which("bwrap") or "", landlock.version() > 0)
    if missing and mode == "require":
        raise ValueError(f"--sandbox require: {missing}; install or allow it, or take --sandbox auto")
    if missing:
        _say_once(missing, found.landlock)
    return found


@functools.cache
def unavailable() -> str:
    """Why bubblewrap cannot work here, found by trying; "" where it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed (Debian, Ubuntu: apt install bubblewrap)"
    probe = Sandbox(program).command([sys.executable, "-S", "-c", "pass"])
    try:
        tried = subprocess.run(probe, capture_output=True, text=True, timeout=20, env={"PATH": os.defpath})
    except (OSError, subprocess.SubprocessError) as error:
        return f"bubblewrap does not work here ({error})"
    if tried.returncode:
        told = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
        return f"bubblewrap does not work here ({told})"
    return ""


@functools.cache
def _say_once(missing: str, held: bool) -> None:
    rest = "Landlock keeps writes and TCP away" if held else "training processes are not held"
    sys.stderr.write(f"levelfield: no sandbox: {missing}; {rest}\n")


def hold(folders: Iterable[Path], device: str = "cpu") -> None:
    """Hold this process, for good, to writing into `folders` (Landlock)."""
    devices = ["/dev/null", *(glob.glob("/dev/nvidia*") if device.startswith("cuda") else [])]
    files = [Path(path) for path in devices if os.path.exists(path) and not os.path.isdir(path)]
    landlock.restrict(folders, files)


def shut() -> None:
    """Keep this process's memory and open files from the processes it forks (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_NOT_DUMPABLE, 0, 0, 0, 0)
