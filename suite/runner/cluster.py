"""The launcher on a cluster: hands planned runs, a few a job, to a scheduler and watches the results folder.

The folder is the whole state here too; a job is ``levelfield run-one`` on some
of the plan's specifications, with the leases, limits and statuses of any
launcher, so that jobs, launchers and machines may come and go.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suite.runner.backends import Backend, Needs
from suite.runner.pool import MAX_ATTEMPTS, Progress, clear, prepare, write_spec
from suite.runner.spec import RunSpec
from suite.runner.stored import finished_ids, read_status, row_path
from suite.store.files import write_rows

POLL_SECONDS = 0.5
START_SECONDS = 120.0  # for a job to import and to score, beside its runs
MOST_A_JOB = 16
SERVER_MEMORY = 2 * 2**30  # beside what a run may use


@dataclass
class Batch:
    """The runs of one job.

    Attributes
    ----------
    specs : by run id. attempt : which start of these runs it is, from 1.
    job : the scheduler's handle while it is under way.
    """

    specs: dict[str, RunSpec]
    attempt: int = 1
    job: Any = field(default=None, compare=False)


class Cluster:
    """Runs specifications into a results folder through a scheduler.

    Parameters
    ----------
    out : results folder, seen by every machine under this path.
    backend : the scheduler.
    jobs : jobs at once; 0 takes the backend's default.
    memory : bytes a run may use.
    limit : seconds a run may take; None takes the tier's.
    checkpoint : seconds between checkpoints inside a run; None keeps none.
    report : called after every change of the progress.
    again : as of `suite.runner.pool.Pool`.
    """

    def __init__(
        self,
        out: Path,
        backend: Backend,
        jobs: int,
        memory: int,
        limit: float | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
        checkpoint: float | None = None,
        again: bool = False,
    ) -> None:
        self.out, self.backend, self.jobs = out.resolve(), backend, jobs or backend.jobs
        self.memory, self.limit, self.report, self.checkpoint = memory, limit, report, checkpoint
        self.again = again
        self.progress = Progress()
        self.statuses: dict[str, str] = {}

    def run(self, specs: Sequence[RunSpec]) -> Progress:
        """Make every run that has no result yet; returns when the plan is done.

        Raises
        ------
        StoreError : the folder cannot be written.
        """
        prepare(self.out)
        done = finished_ids(self.out, specs, self.again)
        planned = {spec.run_id: spec for spec in specs}
        todo = {run_id: spec for run_id, spec in planned.items() if run_id not in done}
        progress = self.progress
        progress.planned, progress.cached = len(planned), len(planned) - len(todo)
        progress.phase = "running"
        queue, flying = deque(self._batches(todo)), list[Batch]()
        try:
            while queue or flying:
                while queue and len(flying) < self.jobs:
                    flying.append(self._submit(queue.popleft()))
                self._count(flying)
                for batch in [b for b in flying if self.backend.ended(b.job)]:
                    flying.remove(batch)
                    queue.extend(self._again(batch))
                if flying:
                    time.sleep(POLL_SECONDS)
        finally:
            for batch in flying:
                self.backend.cancel(batch.job)
            shutil.rmtree(self.out / ".specs", ignore_errors=True)
            clear(self.out)
        self._count(flying)
        return progress

    def _batches(self, todo: dict[str, RunSpec]) -> list[Batch]:
        """A few runs a job, so that importing torch is shared and every place still has several jobs to come."""
        size = max(1, min(MOST_A_JOB, len(todo) // (4 * self.jobs)))
        ids = list(todo)
        return [Batch({i: todo[i] for i in ids[k : k + size]}) for k in range(0, len(ids), size)]

    def _submit(self, batch: Batch) -> Batch:
        files = []
        for run_id, spec in batch.specs.items():
            files.append(self.out / ".specs" / f"{run_id}.json")
            write_spec(spec, files[-1])
            row_path(self.out, run_id, "skipped").unlink(missing_ok=True)  # of an earlier plan
        command = [sys.executable, "-m", "suite.cli.main", "run-one", *map(str, files), "--out", str(self.out)]
        command += ["--memory", str(self.memory / 2**30), "--attempt", str(batch.attempt)]
        command += ["--limit", str(self.limit)] if self.limit else []
        command += ["--checkpoint", str(self.checkpoint)] if self.checkpoint is not None else []
        batch.job = self.backend.submit(command, self._needs(batch))
        return batch

    def _needs(self, batch: Batch) -> Needs:
        specs = batch.specs.values()
        longest = sum(self.limit or spec.limit for spec in specs)
        gpus = int(any(spec.device.startswith("cuda") for spec in specs))
        return Needs(self.memory + SERVER_MEMORY, START_SECONDS + MAX_ATTEMPTS * longest, gpus)

    def _again(self, batch: Batch) -> list[Batch]:
        """What an ended job has left undone, as a job of its own; after the last attempt, a result that says so."""
        left = {run_id: spec for run_id, spec in batch.specs.items() if not self._known(run_id)}
        if left and batch.attempt < MAX_ATTEMPTS:
            self.progress.retried += len(left)
            return [Batch(left, batch.attempt + 1)]
        for run_id, spec in left.items():
            self._give_up(run_id, spec)
        return []

    def _give_up(self, run_id: str, spec: RunSpec) -> None:
        from suite.runner.execute import failed_row

        message = f"the job that was to make the run ended without a result in each of {MAX_ATTEMPTS} attempts"
        row = failed_row(spec, "error", message, {"attempts": MAX_ATTEMPTS})
        write_rows(row_path(self.out, run_id, "error"), [row])
        self.statuses[run_id] = "error"

    def _known(self, run_id: str) -> bool:
        """Whether the run has a result or was skipped; its status is noted."""
        if run_id not in self.statuses:
            for path in (row_path(self.out, run_id, "ok"), row_path(self.out, run_id, "skipped")):
                if path.exists():
                    self.statuses[run_id] = read_status(self.out, run_id)
        return run_id in self.statuses

    def _count(self, flying: Sequence[Batch]) -> None:
        under_way = [(i, spec) for batch in flying for i, spec in batch.specs.items() if not self._known(i)]
        progress, statuses = self.progress, list(self.statuses.values())
        progress.done, progress.skipped = len(statuses), statuses.count("skipped")
        progress.failed = sum(status not in ("ok", "skipped") for status in statuses)
        progress.running = {i: f"{spec.method} on {spec.task}, seed {spec.seed}" for i, spec in under_way}
        self.report(progress)
