"""What tuning buys a method: expected best of k trials, and how wide the good region of its search space is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from markupsafe import Markup

from leaderboard.charts import Mark, Series, line_chart
from leaderboard.figures import Figure
from leaderboard.model import Board, Run, Sheet, Slice
from leaderboard.text import better, metric_words, unit_words
from suite.stats import NO_VALUES, Interval, best_of_k, sensitivity

KS = (1, 2, 5, 10, 20)


class Best(NamedTuple):
    """Expected test score of the trial that validation picks out of `k`, with its interval."""

    k: int
    score: Interval


@dataclass(frozen=True)
class Search:
    """The trials of one method on one task.

    Attributes
    ----------
    sheet : the task's sheet of default hyper-parameters; None where it has none.
    runs : one run a trial, by trial.
    """

    tier: str
    task: str
    method: str
    sheet: Sheet | None
    runs: tuple[Run, ...]

    @property
    def failed(self) -> int:
        return sum(not self._scored(r) for r in self.runs)

    @staticmethod
    def _scored(run: Run) -> bool:
        return run.ok and math.isfinite(run.val_score)

    def expected(self, ks: Iterable[int]) -> list[Best]:
        """Expected best of `k` trials for the ks that there are trials for."""
        validation = [r.val_score if self._scored(r) else math.nan for r in self.runs]
        test = [r.score if self._scored(r) else math.nan for r in self.runs]
        table = best_of_k(validation, test, self.runs[0].direction, sorted(ks))
        rows = zip(table["k"], table["expected"], table["low"], table["high"], strict=True)
        return [Best(int(k), Interval(e, low, high, len(self.runs), "jackknife")) for k, e, low, high in rows]

    @cached_property
    def best(self) -> list[Best]:
        """Expected best of a few k."""
        return self.expected({*KS, len(self.runs)})

    @property
    def default(self) -> Interval:
        """Score of the default hyper-parameters."""
        cell = self.sheet.cells.get(self.method) if self.sheet else None
        return cell.score if cell and cell.n else NO_VALUES

    @property
    def good(self) -> Interval:
        """Share of the trials within one noise sd of the best one."""
        sd = self.sheet.noise[0] if self.sheet else math.nan
        if not sd > 0:
            return NO_VALUES
        scores = [r.score if self._scored(r) else math.nan for r in self.runs]
        return sensitivity(scores, sd, self.runs[0].direction)

    @property
    def figure(self) -> Figure:
        """Expected best of k against k, with the score of the default hyper-parameters."""
        found, run = self.expected(range(1, len(self.runs) + 1)), self.runs[0]
        x, y = [float(b.k) for b in found], [b.score.value for b in found]
        low, high = ([getattr(b.score, end) for b in found] for end in ("low", "high"))
        marks = [Mark(self.default.value, "default")] if self.default.n else []
        label = f"{metric_words(run.metric)} ({unit_words(run.unit)}), {better(run.direction)}"
        title = f"{self.method} on {self.task} ({self.tier}): expected best of k trials"
        chart = line_chart([Series(self.method, x, y, low, high)], "trials k", label, title, marks=marks)
        return Figure(Markup(chart), f"{self.task}, tier {self.tier}: expected best of k of {len(self.runs)} trials")


def searches(board: Board) -> dict[str, list[Search]]:
    """Method -> its searches of two trials or more of which one finished; the latest code's trials."""
    groups: dict[tuple[str, str, str, int], list[Run]] = {}
    for run in board.trials:
        groups.setdefault((run.method, run.tier, run.task, run.trials), []).append(run)
    found: dict[str, list[Search]] = {}
    for (method, tier, task, _), runs in sorted(groups.items()):
        newest = max(runs, key=lambda r: (r.finished, r.run_id))
        current = [r for r in runs if (r.task_hash, r.method_hash) == (newest.task_hash, newest.method_hash)]
        by_trial = {r.trial: r for r in sorted(current, key=lambda r: (r.finished, r.run_id))}
        search = Search(
            tier, task, method, board.sheets.get((Slice(tier), task)), tuple(by_trial[i] for i in sorted(by_trial))
        )
        if 1 < len(search.runs) > search.failed:
            found.setdefault(method, []).append(search)
    return found
