"""The warm server: imports torch once, then forks a process for every run.

It speaks JSON lines: requests on standard input, events on standard output.
It computes nothing itself. It owns each run's clock and holds its wall-clock
and memory limit, kills the whole process group of a run that passes one and
whatever a run leaves behind, and ends with every child when its standard input
closes, so that a killed launcher leaves no process behind. Scoring happens in a
fork of its own after the training process is gone.

``--train`` makes it a server for a sandbox: it trains and tells what came of
it; a second server, outside, is then asked to ``score`` or to ``fail`` the run.
``--hold`` holds each run to writing into its own folder (Landlock).
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

from suite.runner.pool import COST, HELD, TRAINS_ONLY
from suite.runner.spec import RunSpec
from suite.trust.traps import seals

POLL_SECONDS = 0.005
SCORE_LIMIT = 120.0
WARM = ("suite.runner.cost", "suite.runner.execute", "suite.train.supervised", "suite.store.files")
PR_SET_CHILD_SUBREAPER = 36  # orphans of runs become children of the server
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
    started: float = field(default_factory=time.monotonic)
    checked: float = field(default_factory=time.monotonic)


class Server:
    """Forks a process for each request.

    Parameters
    ----------
    trains_only : leave scoring to another server.
    held : hold each run to its folder.
    """

    def __init__(self, trains_only: bool = False, held: bool = False) -> None:
        self.trains_only, self.held = trains_only, held
        self.children: dict[int, Child] = {}
        self.buffer = b""
        self.open = True
        self.swept = time.monotonic()

    def serve(self) -> None:
        """Serve requests until standard input closes."""
        self._say("ready")
        try:
            while self.open or self.children:
                self._requests()
                self._reap()
                self._sweep()
                self._limits()
                if not self.open:
                    break
        finally:
            for pid in list(self.children):
                _kill_group(pid)
            for _ in range(20):
                if not _kill_adopted(set()):
                    break
                time.sleep(0.005)

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
            seals.cache_clear()
            seals()
            return
        if kind in ("fail", "score"):
            self._fork("score", request, lambda: (_settle if kind == "score" else _write_failure)(request), SCORE_LIMIT)
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
                device = str(request.get("device", "cpu"))
                _become_worker(folder, memory, cpu=not device.startswith("cuda"))
                if self.held and kind != "score":
                    _hold(request, device)
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
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self.children.pop(pid, None)
            if child is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # whatever the run left behind
                if child.kind == "run":
                    wall = time.monotonic() - child.started
                    clock = {"wall_seconds": wall, "cpu_seconds": usage.ru_utime + usage.ru_stime}
                    child.request |= {"clock": clock}
                self._finished(child, os.waitstatus_to_exitcode(status))

    def _sweep(self) -> None:
        """Kill the processes that runs have left behind by leaving their group, once a second."""
        if time.monotonic() - self.swept > 1.0:
            self.swept = time.monotonic()
            _kill_adopted(set(self.children))

    def _finished(self, child: Child, code: int) -> None:
        from suite.runner.execute import OUTCOME

        request = child.request
        if child.kind == "run" and child.verdict:
            request |= {"status": child.verdict.split(":")[0], "message": child.verdict.partition(": ")[2]}
            self._hand_on(request, "fail")
        elif child.kind == "run" and os.path.lexists(child.folder / OUTCOME):
            self._hand_on(request, "score")
        elif code == 0 and child.kind != "run":
            self._say("done", id=request["id"])
        else:
            tail = _tail(child.folder / "log")
            self._say("lost", id=request["id"], kind=child.kind, code=code, log=tail)

    def _hand_on(self, request: dict[str, Any], do: str) -> None:
        """Have a run that has ended settled: here, or by the server outside."""
        if self.trains_only:
            told = {k: request[k] for k in ("clock", "status", "message") if k in request}
            self._say("trained", id=request["id"], do=do, told=told)
        else:
            self._start(request | {"do": do})

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


def _hold(request: Mapping[str, Any], device: str) -> None:
    """Hold this process to its run's folder and checkpoint."""
    from suite.trust import sandbox

    own = [Path(request["folder"])]
    if request.get("checkpoint"):
        own.append(Path(request["checkpoint"]).parent)
    os.environ["TMPDIR"] = str(own[0])
    sandbox.hold(own, device)


def _train(request: dict[str, Any]) -> None:
    from suite.runner.execute import execute

    kept = (Path(request["checkpoint"]), float(request["every"])) if request.get("checkpoint") else None
    folder, masked = Path(request["folder"]), bool(request.get("masked"))
    execute(RunSpec.from_json(request.pop("spec")), folder, kept, masked)  # a masked name is not left lying about


def _cost(request: Mapping[str, Any]) -> None:
    from suite.runner.cost import guarded_measure
    from suite.store.files import write_bytes

    cost = guarded_measure(RunSpec.from_json(request["spec"]), request["seconds"], request.get("itself", False))
    write_bytes(Path(request["folder"]) / COST, json.dumps(cost, sort_keys=True).encode())


def _settle(request: Mapping[str, Any]) -> None:
    from suite.runner.execute import settle
    from suite.trust.scoring import Clock

    spec, clock = RunSpec.from_json(request["spec"]), Clock(**request["clock"])
    resumed = bool(request.get("checkpoint"))
    _store(request, settle(spec, Path(request["folder"]), request["extra"], clock, resumed))


def _write_failure(request: Mapping[str, Any]) -> None:
    from suite.runner.execute import failed_row

    spec = RunSpec.from_json(request["spec"])
    known = {**request.get("clock", {}), **request["extra"]}
    _store(request, failed_row(spec, request["status"], request["message"], known))


def _store(request: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Write a run's row; a skipped run's goes to a name of its own, so that a later plan tries it again."""
    from suite.runner.pool import row_path
    from suite.store.files import write_rows

    out = Path(request["row"]).parent.parent
    write_rows(row_path(out, row["run_id"], row["status"]), [row])
    if row["status"] != "skipped":
        row_path(out, row["run_id"], "skipped").unlink(missing_ok=True)
    if request.get("checkpoint"):
        shutil.rmtree(Path(request["checkpoint"]).parent, ignore_errors=True)
    shutil.rmtree(request["folder"], ignore_errors=True)


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _kill_adopted(known: set[int]) -> bool:
    """Kill this process's children that it did not start: a run's that left its process group and lost its parent."""
    orphans = _children(os.getpid()) - known if sys.platform == "linux" else set()
    for pid in orphans:
        _kill_group(pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return bool(orphans)


def _children(parent: int) -> set[int]:
    """Processes whose parent this is."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                facts = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(facts[1]) == parent:
                    found.add(int(entry.name))
    return found


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
    for known in (registry, environment, engine_hash, commit, seals):
        known()


def main(options: list[str]) -> None:
    from suite.runner.execute import one_thread
    from suite.trust import sandbox

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher decides what Ctrl-C means
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
    trains_only, held = TRAINS_ONLY in options, HELD in options
    if trains_only:
        sandbox.shut()
    one_thread()
    _warm()
    with contextlib.suppress(BrokenPipeError):  # the launcher is gone
        Server(trains_only, held).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
