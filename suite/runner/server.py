"""The warm server: imports torch once, then forks a process for every run.

It speaks JSON lines: requests on standard input, events on standard output.
It computes nothing itself. It holds each run's wall-clock and memory limit,
kills the whole process group of a run that passes one, and ends with every
child when its standard input closes, so that a killed launcher leaves no
process behind. Scoring happens in a fork of its own after the training
process is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suite.runner.spec import RunSpec

POLL_SECONDS = 0.005
SCORE_LIMIT = 120.0
WARM = ("suite.runner.cost", "suite.runner.execute", "suite.train.supervised", "suite.store.files")
LOG_LIMIT = 512 * 2**20  # largest file a run may write, bytes


@dataclass
class Child:
    """One forked process: a run in training, a run in scoring, or a cost measurement."""

    kind: str
    request: dict[str, Any]
    folder: Path
    deadline: float
    memory: int
    verdict: str = ""
    checked: float = field(default_factory=time.monotonic)


class Server:
    def __init__(self) -> None:
        self.children: dict[int, Child] = {}
        self.buffer = b""
        self.open = True

    def serve(self) -> None:
        """Serve requests until standard input closes."""
        self._say("ready")
        try:
            while self.open or self.children:
                self._requests()
                self._reap()
                self._limits()
                if not self.open:
                    break
        finally:
            for pid in list(self.children):
                _kill_group(pid)

    def _say(self, event: str, **facts: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()

    def _requests(self) -> None:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS if self.children else 0.2)
        if not ready:
            return
        data = os.read(0, 1 << 20)
        if not data:
            self.open = False
            return
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            self._start(json.loads(line))

    def _start(self, request: dict[str, Any]) -> None:
        kind = request["do"]
        if kind == "import":
            for name in request["modules"]:
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
            return
        if kind == "fail":
            self._fork("score", request, lambda: _write_failure(request), SCORE_LIMIT)
            return
        folder = Path(request["folder"])
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        work = {"run": _train, "cost": _cost}[kind]
        self._fork(kind, request, lambda: work(request), request["limit"])

    def _fork(self, kind: str, request: dict[str, Any], work: Callable[[], None], limit: float) -> None:
        folder = Path(request["folder"])
        memory = int(request.get("memory", 0))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _become_worker(folder, memory, cpu=not str(request.get("device", "cpu")).startswith("cuda"))
                work()
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        self.children[pid] = Child(kind, request, folder, time.monotonic() + limit, memory)
        if kind != "score":
            self._say("started", id=request["id"], pid=pid)

    def _reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self.children.pop(pid, None)
            if child is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # whatever the run left behind
                self._finished(child, os.waitstatus_to_exitcode(status))

    def _finished(self, child: Child, code: int) -> None:
        from suite.runner.execute import OUTCOME

        request = child.request
        if child.kind == "run" and not child.verdict and (child.folder / OUTCOME).exists():
            self._fork("score", request, lambda: _settle(request), SCORE_LIMIT)
        elif child.kind == "run" and child.verdict:
            request |= {"status": child.verdict.split(":")[0], "message": child.verdict.partition(": ")[2]}
            self._fork("score", request, lambda: _write_failure(request), SCORE_LIMIT)
        elif code == 0 and child.kind != "run":
            self._say("done", id=request["id"])
        else:
            tail = _tail(child.folder / "log")
            self._say("lost", id=request["id"], kind=child.kind, code=code, log=tail)

    def _limits(self) -> None:
        now = time.monotonic()
        for pid, child in self.children.items():
            if child.verdict:
                continue
            if now > child.deadline:
                child.verdict = f"timeout: passed its wall-clock limit of {child.request.get('limit', SCORE_LIMIT):g} s"
                _kill_group(pid)
            elif child.memory and now - child.checked > 0.05:
                child.checked = now
                used = _resident(pid)
                if used > child.memory:
                    child.verdict = f"oom: used {used / 2**20:.0f} MiB, its limit is {child.memory / 2**20:.0f} MiB"
                    _kill_group(pid)


def _become_worker(folder: Path, memory: int, cpu: bool) -> None:
    """A process group of its own, output to the run's log, limits set."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the server
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LOG_LIMIT, LOG_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory and cpu and sys.platform == "linux":
        data = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
        ceiling = memory + data  # a single request for too much is refused before the parent has to kill
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))


def _train(request: Mapping[str, Any]) -> None:
    from suite.runner.execute import execute

    kept = (Path(request["checkpoint"]), float(request["every"])) if request.get("checkpoint") else None
    execute(RunSpec.from_json(request["spec"]), Path(request["folder"]), kept)


def _cost(request: Mapping[str, Any]) -> None:
    from suite.runner.cost import measure
    from suite.store.files import write_bytes

    cost = measure(RunSpec.from_json(request["spec"]), request["seconds"], itself=request.get("itself", False))
    write_bytes(Path(request["row"]), json.dumps(cost, sort_keys=True).encode())


def _settle(request: Mapping[str, Any]) -> None:
    from suite.runner.execute import settle

    _store(request, settle(RunSpec.from_json(request["spec"]), Path(request["folder"]), request["extra"]))


def _write_failure(request: Mapping[str, Any]) -> None:
    from suite.runner.execute import failed_row

    spec = RunSpec.from_json(request["spec"])
    _store(request, failed_row(spec, request["status"], request["message"], request["extra"]))


def _store(request: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Write a run's row; a skipped run's goes to a name of its own, so that a later plan tries it again."""
    from suite.runner.pool import row_path
    from suite.store.files import write_rows

    out = Path(request["row"]).parent.parent
    write_rows(row_path(out, row["run_id"], row["status"]), [row])
    if row["status"] != "skipped":
        row_path(out, row["run_id"], "skipped").unlink(missing_ok=True)
    if request.get("checkpoint"):
        Path(request["checkpoint"]).unlink(missing_ok=True)
    shutil.rmtree(request["folder"], ignore_errors=True)


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _resident(pid: int) -> int:
    """Resident bytes of a process; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _tail(path: Path, size: int = 1500) -> str:
    try:
        with open(path, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - size))
            return log.read().decode(errors="replace")
    except OSError:
        return ""


def _warm() -> None:
    """Import and compute once what every forked process would import and compute again."""
    import torch

    for name in WARM:
        importlib.import_module(name)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)  # its first call imports a second's worth of modules
    from suite.fingerprint import commit, engine_hash, environment
    from suite.registry import registry
    from suite.store.files import table_bytes

    table_bytes([])  # pyarrow imports pandas at its first table
    for known in (registry, environment, engine_hash, commit):
        known()


def main() -> None:
    from suite.runner.execute import one_thread

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher decides what Ctrl-C means
    one_thread()
    _warm()
    with contextlib.suppress(BrokenPipeError):  # the launcher is gone
        Server().serve()


if __name__ == "__main__":
    main()
