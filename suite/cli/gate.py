"""``levelfield gate``: is this code still as good and as fast as the stored results say?"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.cli.run import split
from suite.cli.show import print_json
from suite.recipe import REFERENCE
from suite.registry import UnknownName, registry

if TYPE_CHECKING:
    import pandas as pd

    from suite.gate.quality import Verdict
    from suite.runner.spec import RunSpec

CELL = ["tier", "task", "method"]


def gate(
    against: Annotated[Path, typer.Option(help="Results folder that holds what was.")],
    tasks: Annotated[str, typer.Option(help="Only these tasks, comma-separated.")] = "",
    methods: Annotated[str, typer.Option(help="Only these methods, comma-separated.")] = "",
    tier: Annotated[str, typer.Option(help="Only this tier.")] = "",
    seeds: Annotated[int, typer.Option(help="Stored seeds to rerun at most.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Keep the reruns here; default: a temporary folder.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append the Markdown summary to this file.")] = None,
    workers: Annotated[int, typer.Option(help="Runs at once; default: one a core.")] = 0,
    cost: Annotated[float, typer.Option(help="Seconds to measure a step cost; 0 leaves speed out.")] = 3.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rerun stored seeds with the code as it is and compare.

    Exit codes: 0 PASS, 1 FAIL, 4 INCONCLUSIVE, 2 nothing to compare.
    """
    import suite
    from suite.gate.report import EXIT, as_json, markdown, overall

    base = _chosen(suite.load_results(against), split(tasks), split(methods), tier, seeds)
    notes = [f"set aside: {problem}" for problem in base.attrs.get("problems", [])]
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="levelfield-gate-")))
        judge = Judge(base, folder, workers or os.cpu_count() or 1, cost)
        verdicts = judge.verdicts()
    text = markdown(verdicts, notes)
    if summary is not None:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(text)
    if json:
        print_json(as_json(verdicts))
    else:
        sys.stdout.write(text)
    raise typer.Exit(EXIT[overall(verdicts)])


def _chosen(frame: pd.DataFrame, tasks: list[str], methods: list[str], tier: str, seeds: int) -> pd.DataFrame:
    problems = frame.attrs.get("problems", [])
    frame = frame[(frame["trial"] == -1) & (frame["status"] != "skipped") & (frame["budget_kind"] == "steps")]
    for column, wanted in (("task", tasks), ("method", [*methods, REFERENCE] if methods else [])):
        missing = sorted(set(wanted) - set(frame[column]) - {REFERENCE})
        if missing:
            raise UnknownName(f"the stored results have no {column} {', '.join(missing)}")
        frame = frame[frame[column].isin(wanted)] if wanted else frame
    frame = frame[frame["tier"] == tier] if tier else frame
    if frame.empty:
        raise ValueError("the stored results hold no runs to compare with")
    frame = frame.sort_values("seed").groupby(CELL, sort=False).head(seeds)
    frame.attrs["problems"] = problems
    return frame


@dataclass
class Judge:
    """Reruns the stored cells and holds each against what was.

    Attributes
    ----------
    base : stored rows.
    folder : where the reruns go.
    workers : runs at once.
    seconds : longest measurement of one step cost; 0 leaves speed out.
    """

    base: pd.DataFrame
    folder: Path
    workers: int
    seconds: float

    def verdicts(self) -> list[Verdict]:
        import suite
        from suite.gate.quality import FAIL, Verdict, definition, quality
        from suite.gate.speed import counters
        from suite.runner.pool import Pool

        found: list[Verdict] = []
        specs: dict[str, RunSpec] = {}
        for row in self.base.to_dict("records"):
            try:
                spec = self._spec(row)
                specs[spec.run_id] = spec
            except (UnknownName, ValueError) as error:
                found.append(Verdict(row["task"], row["method"], "quality", FAIL, f"cannot be rerun: {error}"))
        Pool(self.folder, self.workers, report=_tell).run(list(specs.values()), self.seconds)
        head = suite.load_results(self.folder)
        for (tier, task, method), rows in self.base.groupby(CELL):
            now = head[(head["tier"] == tier) & (head["task"] == task) & (head["method"] == method)]
            if now.empty:
                continue  # named above as one that cannot be rerun
            info = registry().task(task)
            found.append(quality(info, tier, method, rows, now))
            found += definition(task, method, rows, now)
            good, fresh = rows[rows["status"] == "ok"], now[now["status"] == "ok"]
            if len(good) and len(fresh):
                found += counters(task, method, good.iloc[0], fresh.iloc[0])
                if self.seconds and method != REFERENCE:
                    found += self._time(good.iloc[0], fresh.iloc[0])
        return found

    @staticmethod
    def _spec(row: dict) -> RunSpec:
        import json

        from suite.api import checked
        from suite.runner.spec import RunSpec

        set_hp = json.loads(row["set_hp"] or "{}")
        budget = float(row["budget"])
        return checked(RunSpec(row["task"], row["method"], row["tier"], int(row["seed"]), set_hp, budget))

    def _time(self, stored: pd.Series, now: pd.Series) -> list[Verdict]:
        """Step-time verdict; a suspicion is measured twice more, with an A/A arm beside it."""
        import math

        import pandas as pd

        from suite.gate.quality import FAIL
        from suite.gate.speed import step_time
        from suite.runner.pool import Pool

        if pd.isna(stored["cost_ratio"]) or pd.isna(now["cost_ratio"]):
            return []
        task, method = str(stored["task"]), str(stored["method"])
        measured = [{k: float(now[k]) for k in ("cost_ratio", "cost_low", "cost_high")}]
        verdict = step_time(task, method, float(stored["cost_ratio"]), measured, 0.0)
        if verdict.verdict == FAIL:
            spec = self._spec(stored.to_dict())
            pool = Pool(self.folder, 1)
            measured += pool.measure([spec, spec], self.seconds)
            noise = abs(math.log(pool.measure([spec], self.seconds, itself=True)[0]["cost_ratio"]))
            verdict = step_time(task, method, float(stored["cost_ratio"]), measured, noise)
        return [verdict]


def _tell(progress: object) -> None:
    """The gate prints its verdicts alone."""
