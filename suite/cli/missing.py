"""What a plan of `levelfield run` still lacks, what it will take, and as much of it as some hours allow."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from suite.cli.show import amount_text, print_json, print_table, stored_rows, time_text
from suite.effort import ProcessorTime, Step, steps_of, within
from suite.store.schema import SELF_REPORTED

if TYPE_CHECKING:
    from suite.runner.spec import RunSpec

STORED = Path("results")  # rows that tell what runs take, beside those of the output folder


@dataclass(frozen=True)
class Missing:
    """A plan's runs that are not there yet.

    Attributes
    ----------
    there : runs that a results folder has.
    steps : the others, by task and method, in the order in which they are made.
    times : what runs take.
    """

    there: list[RunSpec]
    steps: list[Step]
    times: ProcessorTime

    @classmethod
    def of(cls, specs: Sequence[RunSpec], out: Path, retry: bool = False) -> Missing:
        """Compare a plan with a results folder, whose rows and the stored ones tell what runs take.

        Parameters
        ----------
        retry : whether failed runs count as missing.
        """
        from suite.runner.stored import is_finished, single_ids

        found = stored_rows([out])
        others = stored_rows([STORED] if STORED.resolve() != out.resolve() else [])
        rows = found.select(["run_id", "status", "trust"]).to_pylist()
        done = {r["run_id"] for r in rows if r["trust"] != SELF_REPORTED and is_finished(r["status"], retry)}
        if not retry:
            done |= single_ids(out)  # also where the file is damaged
        times = ProcessorTime(pa.concat_tables([found, others]))
        there: dict[bool, list[RunSpec]] = {True: [], False: []}
        for spec in specs:
            there[spec.run_id in done].append(spec)
        return cls(there[True], steps_of(there[False], times), times)

    @property
    def specs(self) -> list[RunSpec]:
        return [spec for step in self.steps for spec in step.specs]

    def within(self, hours: float, quiet: bool = False) -> list[RunSpec]:
        """The plan of what is there and of as many methods, all their seeds, as fit into some processor hours."""
        steps = within(self.steps, hours)
        chosen = [spec for step in steps for spec in step.specs]
        if not quiet:
            sys.stderr.write(f"missing: {amount_text(self.specs, self.times)}\n")
            sys.stderr.write(f"within {hours:g} h: {amount_text(chosen, self.times)}\n")
        return [*self.there, *chosen]

    def show(self, json: bool) -> None:
        """Print what is missing of each task, the task first that needs the least."""
        tasks = [self._facts(task, list(steps)) for task, steps in itertools.groupby(self.steps, _task)]
        if json:
            print_json({"tasks": tasks, "already_there": len(self.there)})
            return
        rows = [
            {
                "task": facts["task"],
                "methods": len(facts["methods"]),
                "missing": amount_text(runs, self.times),
                "so_far": "unknown" if math.isnan(facts["so_far"]) else time_text(facts["so_far"]),
            }
            for facts in tasks
            if (runs := [spec for spec in self.specs if spec.task == facts["task"]])
        ]
        if rows:
            print_table(rows, {"task": "task", "methods": "methods", "missing": "missing", "so_far": "all so far"})
        sys.stdout.write(f"missing: {amount_text(self.specs, self.times)}; {len(self.there)} already there\n")

    def _facts(self, task: str, steps: Sequence[Step]) -> dict[str, Any]:
        seconds, unknown = self.times.total(spec for step in steps for spec in step.specs)
        methods = [{"method": step.specs[0].method, "seeds": [s.seed for s in step.specs]} for step in steps]
        return {"task": task, "seconds": seconds, "unknown": unknown, "so_far": steps[-1].seconds, "methods": methods}


def _task(step: Step) -> str:
    return step.specs[0].task
