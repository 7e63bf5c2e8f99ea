"""The warm server: imports torch once, then forks a process for every run.

It speaks JSON lines: requests on standard input, events on standard output.
It computes nothing itself. It owns each run's clock and holds its wall-clock
and memory limit, kills the whole process group of a run that passes one and
whatever a run leaves behind, and ends with every child when its standard input
closes, so that a killed launcher leaves no process behind. Scoring happens in
other processes after the training process is gone.

``--train`` makes it a server for a sandbox: it trains and tells what came of
it; a second server, outside, is then asked to ``score`` or to ``fail`` the run.
``--hold`` holds each run to writing into its own folder (Landlock).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suite.runner.pool import HELD, TRAINS_ONLY
from suite.runner.spec import RunSpec
from suite.runner.worker import LOG_LIMIT, fork, many_scorings, one_job
from suite.store.files import remove_tree
from suite.trust.scoring import Refused, open_plain
from suite.trust.traps import seals

WATCH_SECONDS = 0.05  # between looks at limits
SCORE_LIMIT = 120.0
PR_SET_CHILD_SUBREAPER = 36  # orphans of runs become children of the server
SCORINGS = 64  # a scoring process ends after so many, and with it whatever they have left in memory
WARM = (
    "suite.data",
    "suite.portrait",
    "suite.runner.cost",
    "suite.runner.execute",
    "suite.runner.pool",
    "suite.store.files",
    "suite.train.supervised",
)


@dataclass
class Job:
    """What a process is at: a run in training, a cost measurement, or a run in scoring."""

    kind: str
    request: dict[str, Any]
    limit: float
    verdict: str = ""
    started: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        return Path(self.request["folder"])


@dataclass
class Worker:
    """A forked process.

    Attributes
    ----------
    pid : its process and group.
    pipe : takes its requests.
    reply : gives its answers; -1 for a process that does one job and ends.
    job : what it is at; None while it waits.
    jobs : how many it has been given.
    """

    pid: int
    pipe: int
    reply: int = -1
    job: Job | None = None
    jobs: int = 0
    buffer: bytes = b""

    @property
    def descriptors(self) -> list[int]:
        return [self.pipe, *([self.reply] if self.reply >= 0 else [])]


class Server:
    """Hands each request to a forked process.

    Parameters
    ----------
    trains_only : leave scoring to another server.
    held : hold each run to its folder.
    """

    def __init__(self, trains_only: bool = False, held: bool = False) -> None:
        self.trains_only, self.held = trains_only, held
        self.swept = time.monotonic()
        self.workers: dict[int, Worker] = {}
        self.buffer = b""
        self.open = True
        self.wake, self.bell = os.pipe()  # the end of a child rings
        for end in (self.wake, self.bell):
            os.set_blocking(end, False)

    def serve(self) -> None:
        """Serve requests until standard input closes."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.bell, warn_on_full_buffer=False)
        self._say("ready")
        try:
            while self.open:
                self._wait()
                self._reap()
                self._sweep()
                self._limits()
        finally:
            for pid in self.workers:
                _kill_group(pid)
            for _ in range(20):
                if not _kill_adopted(set()):
                    break
                time.sleep(0.005)

    def _say(self, event: str, **facts: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()

    def _wait(self) -> None:
        """Until there is a request, an answer, an ended child, or limits to look at; take what there is."""
        scorers = {w.reply: w for w in self.workers.values() if w.reply >= 0}
        patience = WATCH_SECONDS if any(w.job for w in self.workers.values()) else 1.0
        ready, _, _ = select.select([0, self.wake, *scorers], [], [], patience)
        if self.wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 4096)
        for reply in ready:
            if reply in scorers:
                self._answer(scorers[reply])
        if 0 in ready:
            self._requests()

    def _requests(self) -> None:
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
            self._import(request["modules"])
        elif kind in ("fail", "score"):
            self._score(request)
        else:
            folder = Path(request["folder"])
            remove_tree(folder)
            folder.mkdir(parents=True)
            self._give(self._idle(scorer=False), Job(kind, request, request["limit"]))
            if kind == "run":
                if not request.get("masked"):  # what the server remembers, the next run's process holds
                    _remember(request["spec"])
                self._idle(scorer=False)  # the next run finds its process forked

    def _import(self, modules: Iterable[str]) -> None:
        for name in modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        seals.cache_clear()
        seals()
        gc.collect()
        gc.freeze()  # a collection in a forked process would copy every page that holds an object
        for worker in [w for w in self.workers.values() if not w.job]:  # forked without them
            self._end(worker)

    # ------------------------------------------------------------ processes

    def _idle(self, scorer: bool) -> Worker:
        """A process that waits for work, forked when there is none."""
        for worker in self.workers.values():
            if worker.job is None and (worker.reply >= 0) is scorer:
                return worker
        take, give = os.pipe()
        answers, reply = os.pipe() if scorer else (-1, -1)
        serve = functools.partial(many_scorings, take, reply) if scorer else functools.partial(one_job, take, self.held)
        mine = [self.wake, self.bell, give, *([answers] if scorer else [])]
        pid = fork(serve, [*mine, *(d for w in self.workers.values() for d in w.descriptors)])
        os.close(take)
        if scorer:
            os.close(reply)
        self.workers[pid] = Worker(pid, give, answers)
        return self.workers[pid]

    def _give(self, worker: Worker, job: Job) -> None:
        worker.job = job
        worker.jobs += 1
        with contextlib.suppress(BrokenPipeError):  # killed while it waited: its end is a lost job
            os.write(worker.pipe, json.dumps(job.request).encode() + b"\n")

    def _score(self, request: dict[str, Any]) -> None:
        self._give(self._idle(scorer=True), Job("score", request, SCORE_LIMIT))

    def _answer(self, worker: Worker) -> None:
        """Take what a scoring process answers."""
        worker.buffer += os.read(worker.reply, 1 << 16)
        line, newline, rest = worker.buffer.partition(b"\n")
        if newline and worker.job:
            job, worker.job, worker.buffer = worker.job, None, rest
            if worker.jobs >= SCORINGS:
                self._end(worker)
            self._scored(job, json.loads(line))

    def _end(self, worker: Worker) -> None:
        del self.workers[worker.pid]
        _kill_group(worker.pid)
        os.waitpid(worker.pid, 0)
        for descriptor in worker.descriptors:
            os.close(descriptor)

    def _reap(self) -> None:
        while self.workers:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            worker = self.workers.pop(pid, None)
            if worker is None:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # whatever the run left behind
            for descriptor in worker.descriptors:
                os.close(descriptor)
            if worker.job:
                wall = time.monotonic() - worker.job.started
                clock = {"wall_seconds": wall, "cpu_seconds": usage.ru_utime + usage.ru_stime}
                worker.job.request |= {"clock": clock}
                self._finished(worker.job, os.waitstatus_to_exitcode(status))

    def _sweep(self) -> None:
        """Kill the processes that runs have left behind by leaving their group, once a second."""
        if time.monotonic() - self.swept > 1.0:
            self.swept = time.monotonic()
            _kill_adopted(set(self.workers))

    # ------------------------------------------------------------ ends of jobs

    def _finished(self, job: Job, code: int) -> None:
        """What follows the end of the process that had the job."""
        from suite.runner.execute import OUTCOME

        request = job.request
        if job.kind == "run" and job.verdict:
            status, _, message = job.verdict.partition(": ")
            self._hand_on(request | {"status": status, "message": message}, "fail")
        elif job.kind == "run" and os.path.lexists(job.folder / OUTCOME):
            self._hand_on(request, "score")
        elif job.kind == "cost" and code == 0:
            self._say("done", id=request["id"])
        else:
            self._say("lost", id=request["id"], code=code, log=_tail(job.folder / "log"))

    def _hand_on(self, request: dict[str, Any], do: str) -> None:
        """Have a run that has ended settled: here, or by the server outside."""
        if self.trains_only:
            told = {k: request[k] for k in ("clock", "status", "message") if k in request}
            self._say("trained", id=request["id"], do=do, told=told)
        else:
            self._say("trained", id=request["id"])
            self._score(request | {"do": do})

    def _scored(self, job: Job, answer: dict[str, Any]) -> None:
        if "status" in answer:
            self._say("done", id=job.request["id"], status=answer["status"])
        else:
            self._say("lost", id=job.request["id"], code=1, log=answer["log"])

    def _limits(self) -> None:
        now = time.monotonic()
        for pid, worker in self.workers.items():
            job = worker.job
            if job is None or job.verdict:
                continue
            memory = int(job.request.get("memory", 0))
            if now > job.started + job.limit:
                job.verdict = f"timeout: passed its wall-clock limit of {job.limit:g} s"
            elif memory and (used := _resident(pid)) > memory:
                job.verdict = f"oom: used {used / 2**20:.0f} MiB, its limit is {memory / 2**20:.0f} MiB"
            if job.verdict:
                _kill_group(pid)


def _remember(spec: str) -> None:
    """Compute the hashes of a run's sources once here, where every process forked later has them."""
    with contextlib.suppress(Exception):  # the run itself reports what is wrong with it
        RunSpec.from_json(spec).run_id  # noqa: B018


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
    """End of a run's log, which the run may have put something else in the place of."""
    if not os.path.lexists(path):
        return ""
    try:
        with open_plain(path, LOG_LIMIT) as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - size))
            return log.read().decode(errors="replace")
    except (OSError, Refused) as error:
        return f"it {error}" if isinstance(error, Refused) else ""


def _warm() -> None:
    """Import and compute once what every forked process would import and compute again."""
    import torch

    for name in WARM:
        importlib.import_module(name)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)  # its first call imports a second's worth of modules
    from suite.fingerprint import commit, engine_hash, environment
    from suite.registry import packages, registry
    from suite.store.files import table_bytes

    table_bytes([])  # pyarrow imports pandas at its first table
    for known in (registry, packages, environment, engine_hash, commit, seals):
        known()
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)
    optimizer.zero_grad()
    optimizer.step()  # an optimizer's first step imports the compiler
    gc.collect()
    gc.freeze()


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
