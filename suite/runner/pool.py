"""The launcher: hands planned runs to a warm server, as many at once as there are workers.

It imports neither torch nor pandas. The results folder is the whole state
(`suite.runner.stored`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from suite import cache
from suite.fingerprint import digest, task_hash
from suite.registry import module_name
from suite.runner.lease import Leases
from suite.runner.link import Link, events, log_tail
from suite.runner.spec import RunSpec
from suite.runner.stored import finished_ids, read_status, row_path
from suite.store.files import StoreError, is_left_behind, owner, remove_tree, write_bytes
from suite.trust.sandbox import OFF, Sandbox
from suite.trust.scoring import Refused, read_cost

MAX_ATTEMPTS = 3
TRAINS_ONLY, HELD = "--train", "--hold"  # options of the server
COST = "cost.json"  # in the folder of a measurement
DEFAULT_MEMORY = 8 * 2**30
START_LIMIT = 180.0  # seconds a server may take to import torch on a crowded machine


@dataclass
class Progress:
    """Counts that a display shows.

    Attributes
    ----------
    planned, cached : runs in the plan; those already done when it began.
    done : runs finished by this launcher; failed : those of them that ended in an error,
        diverged or passed a limit; skipped : those that lack data or a package here.
    running : names of the runs under way.
    phase : what is going on.
    notes : sentences for whoever reads the results.
    """

    planned: int = 0
    cached: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    retried: int = 0
    elsewhere: int = 0
    phase: str = "starting"
    running: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class ServerDied(ChildProcessError):
    """The warm server ended by itself; its log is in the message."""


class Pool:
    """Runs specifications into a results folder.

    Parameters
    ----------
    out : results folder; made when missing.
    workers : runs at once.
    memory : bytes a run may use.
    limit : seconds a run may take; None takes the tier's.
    checkpoint : seconds between checkpoints inside a run; None keeps none.
    report : called after every change of the progress.
    attempt : which attempt at these runs this is, where another launcher starts lost ones again.
    sandbox : what holds the training processes.
    masked : give tasks other names in the training processes; the runs are the same.
    again : make runs again whose failure is all that the folder's compact files know.
    """

    def __init__(
        self,
        out: Path,
        workers: int = 2,
        memory: int = DEFAULT_MEMORY,
        limit: float | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
        checkpoint: float | None = None,
        attempt: int = 1,
        sandbox: Sandbox = OFF,
        masked: bool = False,
        again: bool = False,
    ) -> None:
        self.checkpoint, self.before, self.sandbox, self.masked = checkpoint, attempt - 1, sandbox, masked
        self.again = again
        self.out = out.resolve() if sandbox else out  # a sandbox has a working folder of its own
        self.workers, self.memory, self.limit, self.report = workers, memory, limit, report
        self.leases = Leases(out / ".leases")
        self.progress = Progress()
        self.attempts: dict[str, int] = {}
        self.scoring: set[str] = set()
        self.trainer: Link | None = None
        self.scorer: Link | None = None  # the trainer itself where there is no sandbox
        self.faults: dict[str, str] = {}  # why a step cost could not be measured

    # ------------------------------------------------------------ public

    def run(self, specs: Sequence[RunSpec], cost_seconds: float = 0.0) -> Progress:
        """Make every run that has no result yet; returns when the plan is done.

        Parameters
        ----------
        specs : the plan.
        cost_seconds : longest measurement of a method's step cost; 0 leaves it out.

        Raises
        ------
        StoreError : the folder cannot be written.
        """
        prepare(self.out)
        done = finished_ids(self.out, specs, self.again)
        todo = [(spec.run_id, spec) for spec in specs]
        progress = self.progress
        progress.planned = len(todo)
        todo = [(i, s) for i, s in todo if i not in done]
        progress.cached = progress.planned - len(todo)
        self.report(progress)
        if not todo:
            return progress
        try:
            self._start_server([s for _, s in todo])
            costs = self._costs([s for _, s in todo], cost_seconds) if cost_seconds else {}
            progress.notes += self._untimed(s for _, s in todo)
            self._runs(todo, costs)
        finally:
            self._stop_server()
            self.leases.release_all()
            self._clear_work()
        return progress

    def charge(self, specs: Sequence[RunSpec], seconds: float) -> list[RunSpec]:
        """The plan at equal device time: each method gets the reference's budget over its cost ratio.

        A method that costs 20% more a step gets 20% fewer steps. The ratio is
        measured once and kept in the folder, so that a resumed plan is the same,
        and the number of steps stands in each row, so that a run can be repeated.
        A ratio that could not be measured to 3% is named in the progress's notes.
        Where a method's step fails, the plan keeps its runs: `run` records why
        in place of making them, as nobody knows how many steps are fair.

        Raises
        ------
        ServerDied : the server that measures ended.
        """
        prepare(self.out)
        try:
            if any(_known_cost(self.out / "costs" / f"{cost_key(s)}.json") is None for s in specs):
                self._start_server(specs)
            costs = self._costs(specs, seconds)
        finally:
            self._stop_server()
            self._clear_work()
        charged, vague = [], {}
        for spec in specs:
            cost = costs.get(cost_key(spec))
            if cost is None and cost_key(spec) not in self.faults:
                raise ServerDied(self._unmeasured(spec, cost_key(spec)))
            units = max(1.0, float(int(spec.given / cost["cost_ratio"]))) if cost else spec.given
            charged.append(replace(spec, budget=units, budget_kind="seconds"))
            if cost and not cost["precise"]:
                vague[cost_key(spec)] = (
                    f"{spec.method} on {spec.task}: a step costs {cost['cost_ratio']:.2f} of the reference's, "
                    f"known only to {cost['cost_low']:.2f} to {cost['cost_high']:.2f}; a longer --cost narrows it"
                )
        self.progress.notes += vague.values()
        return charged

    def measure(self, specs: Sequence[RunSpec], seconds: float, itself: bool = False) -> list[dict[str, Any]]:
        """Fresh step-cost measurements, one a specification, alone on the machine.

        Parameters
        ----------
        seconds : longest measurement of one method.
        itself : measure the reference against itself (the A/A arm) instead.
        """
        prepare(self.out)
        found = []
        try:
            self._start_server(specs)
            for i, spec in enumerate(specs):
                file = self.out / "costs" / f"fresh-{os.getpid()}-{i}.json"
                self._time(file.stem, spec, file, seconds=seconds, itself=itself)
                if not file.exists():
                    raise ServerDied(self._unmeasured(spec, file.stem))
                found.append(json.loads(file.read_text()))
                file.unlink()
        finally:
            self._stop_server()
            self._clear_work()
        return found

    # ------------------------------------------------------------ phases

    def _clear_work(self) -> None:
        for work in (self.out / ".work").glob(f"*={owner()}"):
            remove_tree(work)
        clear(self.out)

    def _costs(self, specs: Iterable[RunSpec], seconds: float) -> dict[str, dict[str, Any]]:
        """Measure each (task, tier, method) once, alone on the machine; kept in ``costs/``."""
        self.progress.phase = "measuring step costs"
        costs: dict[str, dict[str, Any]] = {}
        for key, run in {cost_key(s): replace(s, seed=0) for s in specs}.items():
            file = self.out / "costs" / f"{key}.json"
            if _known_cost(file) is None and key not in self.faults:
                self.progress.running = {key: f"cost of {run.method} on {run.task}"}
                self.report(self.progress)
                self._time(key, run, file, seconds=seconds)
            if (known := _known_cost(file)) is not None:
                costs[key] = known
        self.progress.running = {}
        return costs

    def _time(self, key: str, spec: RunSpec, file: Path, *, seconds: float, itself: bool = False) -> None:
        """Have one step cost measured, while no other launcher of this machine measures.

        `file` is there afterwards, unless that failed.
        """
        assert self.trainer
        request = self._request("cost", spec, key, file)
        with _alone():
            self.trainer.send(request | {"seconds": seconds, "itself": itself, "limit": 60 + 20 * seconds})
            end = self._await_one(key)
        try:
            cost = read_cost(Path(request["folder"]) / COST)
        except Refused as error:
            lines = str(end.get("log", "")).strip().splitlines()
            self.faults[key] = lines[-1] if lines else f"the method {error}"
            return
        write_bytes(file, json.dumps(cost, sort_keys=True).encode())

    def _untimed(self, specs: Iterable[RunSpec]) -> list[str]:
        """A sentence for each method whose runs are made without the step cost that was asked for."""
        found = {}
        for spec in specs:
            key = cost_key(spec)
            fault = self.faults.get(key)
            if fault is not None and spec.budget_kind == "steps" and _without_cost(fault)[0] != "skipped":
                found[key] = self._unmeasured(spec, key)
        return list(found.values())

    def _unmeasured(self, spec: RunSpec, key: str) -> str:
        why = self.faults.get(key, "the worker server ended")
        return f"the step cost of {spec.method} on {spec.task} could not be measured: {why}"

    def _runs(self, todo: list[tuple[str, RunSpec]], costs: dict[str, dict[str, Any]]) -> None:
        self.progress.phase = "running"
        queue = deque(todo)
        flying: dict[str, RunSpec] = {}
        waiting: dict[str, RunSpec] = {}
        self.scoring.clear()
        while queue or flying or waiting:
            while queue and self._free(flying):
                run_id, spec = queue.popleft()
                if not self._done(run_id) and not self.leases.take(run_id):
                    waiting[run_id] = spec
                elif self._done(run_id):  # elsewhere, perhaps a moment before its lease was free
                    self._count(run_id)
                else:
                    flying[run_id] = spec
                    self._send_run(run_id, spec, costs)
            self.progress.running = {i: f"{s.method} on {s.task}, seed {s.seed}" for i, s in flying.items()}
            self.progress.elsewhere = len(waiting)
            self.report(self.progress)
            self.leases.renew()
            if flying:
                self._take_events(flying, costs)
            elif waiting:
                time.sleep(0.3)
                queue.extend(waiting.items())
                waiting.clear()

    def _free(self, flying: dict[str, RunSpec]) -> bool:
        """Whether another run may start: one that only waits for its score holds no place, within bounds."""
        return len(flying) - len(self.scoring) < self.workers and len(flying) < 2 * self.workers

    def _take_events(self, flying: dict[str, RunSpec], costs: dict[str, dict[str, Any]]) -> None:
        assert self.trainer and self.scorer
        for event in events({self.trainer, self.scorer}, timeout=0.5):
            run_id = event.get("id")
            if event["event"] == "gone":
                self._restart(flying, costs)
            elif run_id not in flying:
                continue
            elif event["event"] == "trained":
                self.scoring.add(run_id)
                if "do" in event:
                    request = self._run_request(run_id, flying[run_id], costs)
                    self.scorer.send(request | event["told"] | {"do": event["do"]})
            elif event["event"] == "done" or self._done(run_id):
                del flying[run_id]
                self._count(run_id, event.get("status"))
            elif event["event"] == "lost":
                self._retry(run_id, flying[run_id], costs, event)

    def _count(self, run_id: str, status: str | None = None) -> None:
        """Count a run that has its result, and let go of its lease."""
        self.leases.release(run_id)
        self.scoring.discard(run_id)
        self.progress.done += 1
        status = status or read_status(self.out, run_id)
        self.progress.skipped += status == "skipped"
        self.progress.failed += status not in ("ok", "skipped")

    def _retry(self, run_id: str, spec: RunSpec, costs: dict[str, dict[str, Any]], event: dict[str, Any]) -> None:
        """Start a killed worker's run again, at most twice; then record the failure as its result."""
        code, log = int(event["code"]), str(event.get("log", "")).strip()
        self.scoring.discard(run_id)
        if self.attempts[run_id] < MAX_ATTEMPTS:
            self.progress.retried += 1
            self._send_run(run_id, spec, costs)
            return
        cause = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        message = f"the worker was {cause} in each of {MAX_ATTEMPTS} attempts; last output: {log[-400:] or 'none'}"
        self.attempts[run_id] += 1
        if self.attempts[run_id] > MAX_ATTEMPTS + 2 and code >= 0:
            reason = log.splitlines()[-1] if log else "no output"
            raise StoreError(f"{self._row(run_id)}: the result could not be written: {reason}")
        self._send_failure(run_id, spec, costs, "error", message)

    def _restart(self, flying: dict[str, RunSpec], costs: dict[str, dict[str, Any]]) -> None:
        """The server was killed: start another and send its runs again."""
        self._stop_server()
        self._start_server(list(flying.values()))
        for run_id, spec in list(flying.items()):
            if self._done(run_id):
                del flying[run_id]
                self._count(run_id)
            else:
                self._retry(run_id, spec, costs, {"code": -9})

    # ------------------------------------------------------------ requests

    def _send_run(self, run_id: str, spec: RunSpec, costs: dict[str, dict[str, Any]]) -> None:
        assert self.trainer
        self.attempts[run_id] = self.attempts.get(run_id, self.before) + 1
        fault = self.faults.get(cost_key(spec)) if spec.budget_kind == "seconds" else None
        if fault is not None:
            self._send_failure(run_id, spec, costs, *_without_cost(fault))
        else:
            self.trainer.send(self._run_request(run_id, spec, costs))

    def _send_failure(
        self, run_id: str, spec: RunSpec, costs: dict[str, dict[str, Any]], status: str, message: str
    ) -> None:
        assert self.scorer
        request = self._request("fail", spec, run_id, self._row(run_id)) | {"status": status, "message": message}
        self.scorer.send(request | {"extra": self._extra(run_id, spec, costs)})

    def _run_request(self, run_id: str, spec: RunSpec, costs: dict[str, dict[str, Any]]) -> dict[str, Any]:
        request = self._request("run", spec, run_id, self._row(run_id))
        return request | {"extra": self._extra(run_id, spec, costs), "masked": self.masked}

    def _extra(self, run_id: str, spec: RunSpec, costs: dict[str, dict[str, Any]]) -> dict[str, Any]:
        cost = costs.get(cost_key(spec), {})
        kept = {k: k for k in ("cost_ratio", "cost_low", "cost_high", "flops", "elementwise", "saved_bytes")}
        kept["cost_precise"] = "precise"
        known = {column: cost[fact] for column, fact in kept.items() if fact in cost}
        return {"attempts": min(self.attempts[run_id], MAX_ATTEMPTS), **known}

    def _request(self, do: str, spec: RunSpec, key: str, target: Path) -> dict[str, Any]:
        return {
            "do": do,
            "id": key,
            "spec": spec.to_json(),
            "folder": str(self.out / ".work" / f"{key}={owner()}"),
            "row": str(target),
            "limit": self.limit or spec.limit,
            "memory": self.memory,
            "device": spec.device,
            **self._checkpointing(do, key),
        }

    def _checkpointing(self, do: str, key: str) -> dict[str, Any]:
        if self.checkpoint is None or do == "cost":
            return {}
        folder = self.out / "checkpoints" / key
        folder.mkdir(parents=True, exist_ok=True)
        return {"checkpoint": str(folder / "state.pt"), "every": self.checkpoint}

    def _row(self, run_id: str) -> Path:
        return row_path(self.out, run_id, "ok")

    def _done(self, run_id: str) -> bool:
        return self._row(run_id).exists()

    # ------------------------------------------------------------ the server

    def _start_server(self, specs: Sequence[RunSpec]) -> None:
        self.progress.phase = "starting"
        self.report(self.progress)
        self.log = open(self.out / ".server.log", "ab")  # noqa: SIM115 (lives as long as the servers)
        self.trainer = self._link(self.sandbox)
        self.scorer = self._link(OFF) if self.sandbox else self.trainer
        for link in {self.trainer, self.scorer}:
            if not any(e["event"] == "ready" for e in events([link], timeout=START_LIMIT, wait_for="ready")):
                tail = log_tail(self.out / ".server.log")
                self._stop_server()
                code = link.process.returncode
                raise ServerDied(f"the worker server did not start (exit code {code}): {tail or 'no output'}")
        modules = {name for spec in specs for name in _heavy(spec)}
        if modules:
            for link in {self.trainer, self.scorer}:
                link.send({"do": "import", "modules": sorted(modules)})

    def _link(self, sandbox: Sandbox) -> Link:
        """Start a server: a whole one, or one that only trains, in a sandbox."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment = {**os.environ, **threads, "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-m", "suite.runner.server"]
        if sandbox:
            command += [TRAINS_ONLY, *([HELD] if sandbox.landlock else [])]
        writable = [self.out / ".work", self.out / "checkpoints"] if sandbox else []
        for folder in writable:
            folder.mkdir(exist_ok=True)
        return Link(sandbox.command(command, writable, [self.out]), sandbox.environment(environment), self.log)

    def _stop_server(self) -> None:
        if self.trainer is None:
            return
        links = {self.trainer, self.scorer}
        self.trainer = self.scorer = None
        for link in links:
            if link is not None:
                link.stop()
        self.log.close()
        with contextlib.suppress(OSError):
            if not (self.out / ".server.log").stat().st_size:
                (self.out / ".server.log").unlink()

    def _await_one(self, key: str) -> dict[str, Any]:
        """The event that a measurement has ended with; empty when its server ended."""
        while True:
            assert self.trainer
            for event in events([self.trainer], timeout=1.0):
                if event["event"] == "gone":
                    self._stop_server()
                    self._start_server([])
                    return {}
                if event.get("id") == key and event["event"] in ("done", "lost"):
                    return event
            self.report(self.progress)


# ---------------------------------------------------------------- helpers


def prepare(out: Path) -> None:
    """Check that a results folder takes files, and `clear` it.

    Raises
    ------
    StoreError : it cannot be written.
    """
    probe = out / f".probe-{os.getpid()}"
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
    except OSError as error:
        raise StoreError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    clear(out)


def clear(out: Path) -> None:
    """Remove what processes that were killed have left in a results folder."""
    for folder in (out / "runs", out / "costs", *(out / "checkpoints").glob("*")):
        for leftover in folder.glob(".tmp=*"):
            if is_left_behind(leftover.name.split("=")[1], leftover):
                leftover.unlink(missing_ok=True)
    for work in (out / ".work").glob("*=*"):
        if is_left_behind(work.name.rpartition("=")[2], work):
            remove_tree(work)
    with contextlib.suppress(OSError):  # in use, or not there
        (out / ".work").rmdir()


def cost_key(spec: RunSpec) -> str:
    """Names the (task, tier, method, hyper-parameters, code) whose step cost is one."""
    scope = digest([task_hash(spec.info, spec.tier), spec.code, dict(spec.hp), spec.device], 12)
    return f"{spec.task}.{spec.tier}.{spec.method}.{scope}"


def _without_cost(fault: str) -> tuple[str, str]:
    """Status and message of a run whose steps cannot be counted, from the last line that the measurement said."""
    kind, _, reason = fault.partition(": ")
    if kind.rpartition(".")[2] in ("DoesNotApply", "DataUnavailable", "Skipped"):
        return "skipped", reason
    return "error", f"its step cost could not be measured: {fault}"


def _known_cost(file: Path) -> dict[str, Any] | None:
    """A step cost that was measured before; None where there is none, or a damaged one."""
    try:
        return read_cost(file)
    except Refused:
        return None


def write_spec(spec: RunSpec, path: Path) -> None:
    """Write a specification for ``levelfield run-one``."""
    write_bytes(path, spec.to_json().encode())


def _heavy(spec: RunSpec) -> set[str]:
    """Modules worth importing before forking: the task's own file and what it names; never a method's."""
    own = module_name(Path(spec.info.path))
    return {*spec.info.imports, *([own] if own.startswith("tasks.") else [])}


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One measurement of time at a time on this machine, as far as its cache folder is one."""
    lock = None
    with contextlib.suppress(OSError):
        cache.folder().mkdir(parents=True, exist_ok=True)
        lock = open(cache.folder() / "timing.lock", "a")  # noqa: SIM115 (held for the measurement)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if lock:
            lock.close()
