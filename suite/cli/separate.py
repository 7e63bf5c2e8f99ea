"""``levelfield run --until-separated``: seeds where the order against the reference is still open."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.cli.show import print_table
from suite.recipe import REFERENCE

if TYPE_CHECKING:
    import pandas as pd

    from suite.runner.pool import Progress
    from suite.runner.spec import RunSpec

Train = Callable[[list["RunSpec"]], tuple["Progress", list["RunSpec"]]]


@dataclass(frozen=True)
class Plan:
    """What is compared with the reference, and how far.

    Attributes
    ----------
    methods, tasks, tier, hp, device : as of `suite.runner.spec.plan`.
    max_seeds : most seeds a cell gets.
    alpha : chance per cell of declaring a difference that is not there, over all looks.
    """

    methods: Sequence[str]
    tasks: Sequence[str]
    tier: str
    max_seeds: int
    alpha: float
    hp: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"--alpha lies between 0 and 1, got {self.alpha}")

    def first(self) -> list[RunSpec]:
        """Every cell at the first look."""
        from suite.runner.spec import plan
        from suite.stats.adaptive import default_looks

        seeds = range(default_looks(self.max_seeds)[0])
        return plan(self.tasks, self.methods, self.tier, seeds, hp=self.hp, device=self.device)[0]

    def more(self, cells: pd.DataFrame) -> list[RunSpec]:
        """Runs that cells (columns task, method, target) have at their targets, with the reference's."""
        from suite.runner.spec import plan

        specs: list[RunSpec] = []
        for task, method, target in zip(cells["task"], cells["method"], cells["target"], strict=True):
            specs += plan([task], [method], self.tier, range(int(target)), hp=self.hp, device=self.device)[0]
        return specs


@dataclass(frozen=True)
class Outcome:
    """Where a sequential comparison ended.

    Attributes
    ----------
    progress : counts over all rounds.
    states : state of every cell (`suite.stats.cell_states`).
    runs : attempted runs, the reference's among them; full : what `max_seeds` for every cell would take.
    planned : the planned runs.
    """

    progress: Progress
    states: pd.DataFrame | None
    runs: int
    full: int
    planned: list[RunSpec]

    @property
    def saved(self) -> float:
        """Share of runs saved against the same number of seeds for every cell."""
        return 1.0 - self.runs / self.full if self.full else 0.0


def separate(wanted: Plan, train: Train, out: Path) -> Outcome:
    """Train look by look, each time the cells that are still open, until none is.

    What to run next is a function of the results alone, so that an interrupted
    comparison goes on where it ended.

    Parameters
    ----------
    train : makes the runs of a plan that are missing, and returns its counts and the plan as it was run.
    out : results folder.
    """
    from suite.stats import cell_states, next_cells

    specs = {spec.run_id: spec for spec in wanted.first()}
    rounds: list[Progress] = []
    while True:
        progress, ran = train(list(specs.values()))
        rounds.append(progress)
        table = _attempted(out, ran)
        if progress.phase == "stopped" or table.empty:
            break
        more = wanted.more(next_cells(table, wanted.alpha, wanted.max_seeds))
        fresh = {spec.run_id: spec for spec in sorted(more, key=lambda s: s.seed) if spec.run_id not in specs}
        if not fresh:
            break
        specs |= fresh
    states = None if table.empty else cell_states(table, wanted.alpha, wanted.max_seeds)
    cells = table[["task", "method"]].drop_duplicates()
    return Outcome(_together(rounds), states, len(table), len(cells) * wanted.max_seeds, ran)


def _attempted(out: Path, planned: list[RunSpec]) -> pd.DataFrame:
    from suite.runner.stored import load_plan

    frame = load_plan(out, planned)
    return frame[frame["status"] != "skipped"]


def _together(rounds: Sequence[Progress]) -> Progress:
    """Counts over all rounds: what was there at the start, and what each round added."""
    from dataclasses import replace

    added = {name: sum(getattr(r, name) for r in rounds) for name in ("done", "failed", "retried")}
    return replace(rounds[-1], cached=rounds[-1].cached - sum(r.done for r in rounds[:-1]), **added)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The cells' states and what was saved."""
    states = [] if outcome.states is None else outcome.states.to_dict("records")
    return {"cells": states, "runs": outcome.runs, "fixed_runs": outcome.full, "saved": round(outcome.saved, 4)}


def report(outcome: Outcome, wanted: Plan) -> None:
    """Print each cell's decision, what it cost and the error rate behind it."""
    if outcome.states is None:
        return
    columns = {
        "task": "task", "method": "method", "decision": f"than {REFERENCE}", "seeds": "seeds", "p": "p",
        "level": "level of the look",
    }  # fmt: skip
    print_table(outcome.states.to_dict("records"), columns)
    sys.stdout.write(
        f"\n{outcome.runs} runs where {wanted.max_seeds} seeds for every cell take {outcome.full}: "
        f"{100 * outcome.saved:.0f}% saved\n"
        f"A difference is declared where there is none in at most {100 * wanted.alpha:g}% of the cells, over all looks "
        "together; exhausted: none was shown by the last.\n"
    )
