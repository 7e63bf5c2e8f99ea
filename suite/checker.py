"""What ``levelfield check`` finds before any run: the source's static checks, then the slot's contracts.

The contracts run in a process of their own: ``python -m suite.checker NAME``
prints a JSON line before and after each, so that the parent knows which one a
process hung or died in.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from suite.registry import Method, registry
from suite.trust.sandbox import OFF, Sandbox, hold
from suite.trust.static import FORBIDDEN, NETWORK, check_method

TIME_LIMIT = 40.0
MEMORY_LIMIT = 4 * 2**30
OUTPUT_LIMIT = 64 * 2**20
_TOO_MUCH = f"asked for more than {MEMORY_LIMIT / 2**30:g} GiB of memory"
_TOO_LONG = f"wrote more than {OUTPUT_LIMIT / 2**20:g} MiB of output; does it print in every call?"


@dataclass(frozen=True)
class Finding:
    """One contract's outcome.

    Attributes
    ----------
    name : the contract.
    verdict : "passed"; "timeout", "memory", "output" or "crashed"; "clock", "network" or "forbidden"
        (see `suite.trust.static`); or the kind of a `suite.contract.ContractError`.
    message : what is wrong; "" when passed.
    """

    name: str
    verdict: str
    message: str = ""


def check_source(method: Method) -> list[Finding]:
    """What a method's source contains that it may not; nothing of it is run."""
    found = check_method(method)
    return [Finding("source", o.kind, str(o)) for o in found] or [Finding("source", "passed")]


def check_contracts(method: str, seconds: float = TIME_LIMIT, sandbox: Sandbox = OFF) -> list[Finding]:
    """Run a method's contracts under a time and a memory limit, in a sandbox where there is one.

    A method that hangs, dies or takes all memory gives a finding; the caller
    is not harmed.
    """
    from suite.store.files import remove_tree  # which needs pyarrow; the process that checks does not

    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = [sys.executable, "-m", "suite.checker", method, *([own] if sandbox.landlock else [])]
        process = subprocess.Popen(
            sandbox.command(command, [Path(own)]),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**sandbox.environment({**os.environ, "OMP_NUM_THREADS": "1"}), "TMPDIR": own},
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill(process)
            remove_tree(Path(own))
        out.seek(0)
        events = [json.loads(line) for line in out if line.endswith(b"\n")]
        size = err.seek(0, os.SEEK_END)
        err.seek(max(0, size - 600))
        tail = err.read().decode(errors="replace").strip()
    findings = [Finding(e["name"], e["verdict"], e["message"]) for e in events if "verdict" in e]
    last = events[-1] if events else {"name": "import"}
    if "end" not in last:
        full = size >= OUTPUT_LIMIT or code == -signal.SIGXFSZ
        findings.append(_stopped(last["name"], code, "File too large" if full else tail, seconds))
    return findings


def _stopped(name: str, code: int | None, tail: str, seconds: float) -> Finding:
    if "File too large" in tail:
        return Finding(name, "output", _TOO_LONG)
    if code is None:
        return Finding(name, "timeout", f"did not finish within {seconds:g} s; does it loop or wait for something?")
    if "MemoryError" in tail or "can't allocate memory" in tail:
        return Finding(name, "memory", _TOO_MUCH)
    cause = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Finding(name, "crashed", f"ended the process with {cause}: {tail.splitlines()[-1] if tail else 'no output'}")


def _kill(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcomes(name: str, say: Callable[..., None]) -> Iterator[Finding]:
    import torch

    from suite.contract import ContractError, contracts

    torch.set_num_threads(1)
    method = registry().method(name)
    watch = Watch(method.path)
    sys.addaudithook(watch)
    for contract in contracts(method):
        say(name=contract.__name__)
        try:
            contract(method)
        except ContractError as error:
            yield watch.finding(contract.__name__) or Finding(contract.__name__, error.kind, str(error))
        except MemoryError:
            yield Finding(contract.__name__, "memory", _TOO_MUCH)
        except Exception as error:
            if seen := watch.finding(contract.__name__):
                yield seen
                continue
            if isinstance(error, OSError) and error.errno == errno.EFBIG:
                yield Finding(contract.__name__, "output", _TOO_LONG)
                continue
            memory = "can't allocate memory" in str(error)
            message = f"raises {type(error).__name__}: {error}" if not memory else _TOO_MUCH
            yield Finding(contract.__name__, "memory" if memory else "broken", message[:600])
        else:
            yield watch.finding(contract.__name__) or Finding(contract.__name__, "passed")


_WATCHED = {
    **dict.fromkeys(("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo"), NETWORK),
    **dict.fromkeys(("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn"), FORBIDDEN),
    **dict.fromkeys(("gc.get_objects", "gc.get_referrers", "gc.get_referents", "ctypes.dlopen"), FORBIDDEN),
    **dict.fromkeys(("os.putenv", "os.unsetenv", "os.remove", "os.rename", "os.mkdir", "open"), FORBIDDEN),
}
_STANDARD = (os.path.dirname(os.__file__) + os.sep, "<frozen ")


class Watch:
    """An audit hook that stops what a method's own file may not do, however its source hides it.

    What a library does on the method's behalf is the library's.

    Parameters
    ----------
    path : the method's file.
    """

    def __init__(self, path: str) -> None:
        self.path, self.seen = path, ("", "")

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        kind = _WATCHED.get(event)
        if kind is None or (event == "open" and not _writes(arguments)) or not self._mine(sys._getframe(1)):
            return
        self.seen = (kind, f"{'opens a socket' if kind == NETWORK else 'reaches out of the method'} ({event})")
        raise PermissionError(self.seen[1])

    def _mine(self, frame: FrameType | None) -> bool:
        """Whether the nearest caller outside the standard library is the method."""
        while frame is not None:
            name = frame.f_code.co_filename
            if name == self.path:
                return True
            if "site-packages" in name or not name.startswith(_STANDARD):
                return False
            frame = frame.f_back
        return False

    def finding(self, name: str) -> Finding | None:
        """What was stopped since the last call."""
        (kind, message), self.seen = self.seen, ("", "")
        return Finding(name, kind, message) if kind else None


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = (*arguments, None, None, None)[:3]
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def main(name: str, folder: str = "") -> None:
    """Run the contracts of one method; may write below `folder` alone, where one is given."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_LIMIT, OUTPUT_LIMIT))
    sys.dont_write_bytecode = True  # what an import leaves on disk is not the method's doing
    if folder:
        hold([Path(folder)])
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the method prints does not mix with the findings

    def say(**facts: Any) -> None:
        events.write(json.dumps(facts) + "\n")
        events.flush()

    say(name="import")
    for finding in _outcomes(name, say):
        say(name=finding.name, verdict=finding.verdict, message=finding.message)
    say(name="end", end=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
