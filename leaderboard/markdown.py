"""Markdown twins of pages, for people on GitHub and in terminals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from leaderboard.changes import EQUAL, Change, score, summary
from leaderboard.claims import Claims, effect_text
from leaderboard.model import Cell, Sheet
from leaderboard.standings import Estimate, Overview, SlotTable, Standing
from leaderboard.text import (
    better,
    bounds_text,
    factor,
    fixed,
    gain_text,
    metric_words,
    plural,
    score_text,
    slot_words,
    tie_text,
    too_few,
    unit_words,
)  # fmt: skip
from suite.recipe import REFERENCE

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_[]|#~"} | {"\n": " ", "\r": " ", "<": "&lt;", ">": "&gt;"})


def escape(text: str) -> str:
    """Text that Markdown shows as it stands, in a table cell too."""
    return text.translate(_SPECIAL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A pipe table; `align` has "l" or "r" for each column (left where it is short)."""
    marks = ["---:" if mark == "r" else "---" for mark in align.ljust(len(head), "l")]
    lines = [head, marks, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def leaderboard(overviews: Iterable[Overview], claims: Claims) -> str:
    """The index and the tested claims as Markdown."""
    parts = [
        "# Leaderboard\n",
        "Each method fills one slot of a frozen reference recipe and trains with the same budget, initial weights and "
        "data order. Numbers are differences to the reference, paired by seed, signed so that **+ is better**, with "
        "their 95% interval; one that holds 0 is a tie. Letters: methods that share one are not separated.\n",
    ]
    for view in overviews:
        parts.append(
            f"## Tier {escape(view.slice.tier)}" + (" (not evidence)" if view.slice.tier == "smoke" else "") + "\n"
        )
        parts.append(
            f"{plural(view.methods, 'method')} on {plural(len(view.sheets), 'task')}, {plural(len(view.runs), 'run')}, "
            f"{view.failed} failed.\n"
        )
        for found in view.tables:
            parts += [f"### {escape(slot_words(found.slot).title)}\n", _slot(found)]
    parts.append(_claims(claims))
    return "\n".join(parts)


def _claims(claims: Claims) -> str:
    """Counts of the claims, and the verdicts of those with runs."""
    among = f" {claims.among}" if claims.among else ""
    text = f"## Claims\n\n{plural(claims.catalogue, 'claim')} of papers: {escape(claims.summary)}.{among}\n"
    if not claims.tested:
        return text
    rows = []
    for found in claims.tested:
        value, bounds = effect_text(found.total)
        effect = f"{value} ({bounds})" if bounds else value
        word = f"{found.word}, by itself" if found.alone else found.word
        rows.append([escape(found.claim.id), escape(found.claim.prediction), word, effect])
    return text + "\n" + table(["claim", "predicted", "verdict", "A - B, seed sd"], rows, "lllr")


def _slot(found: SlotTable) -> str:
    headline = "effective speedup" if found.headline == "speedup" else "mean gain, sd"
    head = ["method", f"{headline} (95% interval over seeds)", "tasks", "rank", "ties"]
    head += [
        f"{escape(s.task)}: {escape(metric_words(s.first.metric))}, {escape(unit_words(s.first.unit))}, "
        f"{better(s.first.direction)}"
        for s in found.sheets
    ]
    rows = [_row(row, found) for row in found.rows]
    few = too_few(found.partial)
    return (f"{few}\n\n" if few else "") + table(head, rows, "lrrrl" + "r" * len(found.sheets))


def _row(row: Standing, found: SlotTable) -> list[str]:
    estimate = row.estimate(found.headline)
    rank = f"{row.rank[1]}–{row.rank[2]}" if row.rank else ""
    cells = [_cell(s, c, fits) for s, c, fits in zip(found.sheets, row.cells, row.fits, strict=True)]
    tasks = f"{estimate.tasks} of {len(found.sheets)}" if estimate else ""
    shown = _headline(estimate, found.headline)
    return [escape(row.method), shown, tasks, rank, tie_text(row.letters, row.rank), *cells]


def _headline(estimate: Estimate | None, kind: str) -> str:
    if estimate is None:
        return ""

    def one(value: float) -> str:
        return factor(value) if kind == "speedup" else fixed(value, 2, sign=True)

    if not math.isfinite(estimate.seeds_low):
        return one(estimate.value)
    return f"{one(estimate.value)} ({one(estimate.seeds_low)} to {one(estimate.seeds_high)})"


def _cell(sheet: Sheet, cell: Cell | None, fits: bool) -> str:
    if cell is None or cell.verdict == "skipped":
        return "not run" if fits else "n/a"
    if not cell.n:
        return f"{cell.failed} failed"
    failed = f", {cell.failed} failed" if cell.failed else ""
    if cell.method == REFERENCE:
        return f"{score_text(cell.score)} ({bounds_text(cell.score)}){failed}"
    if not cell.gain.n:
        return f"{score_text(cell.score)}, no pair{failed}"
    return f"{gain_text(cell.gain)} ({bounds_text(cell.gain, sign=True)}){failed}"


def differences(found: list[Change], old: str, new: str) -> str:
    """What changed between two folders, cells that did not left out."""
    rows = [
        [
            escape(c.slice.key),
            escape(c.task),
            escape(c.method),
            score(c.old),
            score(c.new),
            gain_text(c.difference) if c.difference.n else "",
            bounds_text(c.difference, sign=True) if c.difference.n else "",
            f"{c.failures[0]} → {c.failures[1]}" if any(c.failures) else "",
            c.kind,
        ]
        for c in found
        if c.kind != EQUAL
    ]
    head = [
        "board",
        "task",
        "method",
        "old score",
        "new score",
        "change, + is better",
        "95% interval",
        "failed",
        "verdict",
    ]
    text = f"# Changes from {escape(old)} to {escape(new)}\n\n{plural(len(found), 'cell')}: {summary(found)}.\n"
    return text + ("\n" + table(head, rows, "lllrrrrll") if rows else "")
