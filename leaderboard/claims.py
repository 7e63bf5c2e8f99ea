"""What papers claim against what the rows say: verdicts with the runs behind them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
from markupsafe import Markup

from leaderboard.charts import extent, whisker, whisker_axis
from leaderboard.model import Board
from leaderboard.text import VERDICT_WORDS, bounds_text, command, gain_text, listing, number, seed_words
from suite.claims import Claim, ClaimRun, Judged, TaskVerdict, judge, ledger, ledger_words
from suite.stats import Interval

PAGE = "claims.html"
ORDER = ("holds", "opposite", "does not separate", "not tested")
WORDS = {  # verdict -> of one claim, of several
    "holds": ("holds", "hold"),
    "opposite": ("comes out opposite", "come out opposite"),
    "does not separate": ("does not separate", "do not separate"),
}
CLASSES = {"holds": "better", "opposite": "worse", "does not separate": "tied", "not tested": "none"}


@dataclass(frozen=True)
class Claims:
    """Every claim of the ledger, judged.

    Attributes
    ----------
    judged : in the ledger's order.
    shown : page of each run of the board, by id.
    """

    judged: tuple[Judged, ...]
    shown: dict[str, str]

    @cached_property
    def tested(self) -> list[Judged]:
        """Comparisons with a verdict, those that separate first."""
        found = [j for j in self.judged if j.word != "not tested"]
        return sorted(found, key=lambda j: ORDER.index(j.word))

    @cached_property
    def waiting(self) -> list[Judged]:
        """Comparisons that lack runs."""
        return [j for j in self.judged if j.claim.arms and j.word == "not tested"]

    @cached_property
    def untested(self) -> list[Judged]:
        """Claims that no task can test."""
        return [j for j in self.judged if not j.claim.arms]

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(str(j.word) for j in self.tested)

    @property
    def summary(self) -> str:
        """Counts of the verdicts, in words."""
        words = [f"{count} {WORDS[verdict][count > 1]}" for verdict in WORDS if (count := self.counts[verdict])]
        return ", ".join(words) or "no comparison has its runs yet"

    @cached_property
    def among(self) -> str:
        """How many of them stand among all, as a sentence; "" where none names a better side."""
        words = ledger_words(self.judged)
        return f"{words}." if words else ""

    @cached_property
    def catalogue(self) -> int:
        """Claims, their variants counted once."""
        return len({j.claim.id.partition("/")[0] for j in self.judged})

    @cached_property
    def reach(self) -> float:
        """End of the common axis of the effects, in seed standard deviations."""
        ends = [max(abs(j.total.low), abs(j.total.high)) for j in self.tested]
        return extent(ends)

    @cached_property
    def _of_methods(self) -> dict[str, list[Judged]]:
        found: dict[str, list[Judged]] = {}
        for j in self.judged:
            whole = {arm.method for arm in j.claim.arms.values()}
            for method in j.claim.methods | whole:
                found.setdefault(method, []).append(j)
        return found

    def of_method(self, method: str) -> list[Judged]:
        """Comparisons with the method on a side, alone or in a combination."""
        return self._of_methods.get(method, [])

    def own_runs(self) -> list[tuple[Claim, ClaimRun]]:
        """Runs with hyper-parameters that a claim set: they are on no other page. Each once, by id."""
        found = {r.run_id: (j.claim, r) for j in self.judged for r in j.runs if r.run_id not in self.shown}
        return [found[name] for name in sorted(found)]


def claims(board: Board, table: pa.Table) -> Claims:
    """The ledger judged by the board's rows."""
    return Claims(tuple(judge(ledger(), table)), board.addresses)


def effect(verdict: TaskVerdict) -> Interval:
    """A verdict's difference A - B with its interval."""
    return Interval(verdict.difference, verdict.low, verdict.high, verdict.n, "t")


def effect_text(verdict: TaskVerdict) -> tuple[str, str]:
    """(difference, interval) as text; the interval is "" where failures or runs without spread leave none."""
    found = effect(verdict)
    if math.isnan(verdict.low):
        return ("by failures" if any(verdict.failed) else "no spread") if verdict.word != "not tested" else "", ""
    return gain_text(found), VERDICT_WORDS["same"] if found.low == found.high == 0 else bounds_text(found, sign=True)


def failed_text(verdict: TaskVerdict) -> str:
    """``failed: A 0, B 5``."""
    return f"failed: A {verdict.failed[0]}, B {verdict.failed[1]}" if any(verdict.failed) else ""


def aside(judged: Judged) -> str:
    """What a verdict needs beside it: that it does not stand among all, why no side is better, where none learned."""
    alone = f"by itself; not among all comparisons, q {number(judged.q, 2)}" if judged.alone else ""
    blind = f"neither side beats chance on {listing(judged.unlearned)}" if judged.claim.ordered else ""
    return "; ".join(filter(None, (alone, _why_none(judged), blind if judged.unlearned else "")))


def _why_none(judged: Judged) -> str:
    """Why a comparison does not separate; "" where it does."""
    total = judged.total
    if judged.word != "does not separate":
        return ""
    if total.idle:
        return (
            f"neither side beats chance on {listing(t.task for t in judged.tasks if t.idle)}: alike says nothing there"
        )
    better = judged.claim.ordered
    if better and (total.low > 0 or total.high < 0):
        words = {task.word for task in judged.tasks}
        return (
            "its tasks contradict each other" if {"holds", "opposite"} & words else "the better side failed more often"
        )
    if not total.detectable < math.inf:
        return ""
    size = number(total.detectable, 2)
    if better:
        return f"a true difference of {size} sd would show (80% power)"
    return f"these runs show a margin of {size} noise sd, 1 is wanted"


def mark(judged: Judged, reach: float) -> Markup:
    """The effect on the page's common axis."""
    return Markup(whisker(judged.total.difference, judged.total.low, judged.total.high, reach))


def axis(reach: float) -> Markup:
    return Markup(whisker_axis(reach))


def sides(judged: Judged, task: str) -> Iterator[tuple[str, Sequence[ClaimRun]]]:
    """(side's label, its runs) on a task."""
    for name, arm in judged.claim.arms.items():
        yield arm.label, [r for r in judged.runs if r.task == task and r.side == name]


def command_line(judged: Judged) -> str:
    """The command that makes a comparison's runs again."""
    seeds = seed_words({r.seed for r in judged.runs})
    return command(["levelfield", "claims", "--run", "--ids", judged.claim.id, "--seeds", seeds])
