"""Writes the site: index, boards, a page a task and a method, coverage, failures; the same bytes every time."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from leaderboard import changes as comparison
from leaderboard import claims as stated
from leaderboard import coverage as covered
from leaderboard import downloads, figures, markdown, text
from leaderboard import runs as cell_runs
from leaderboard.aggregates import Aggregates, aggregates, describe, legend, pairing
from leaderboard.beside import beside, room_beside
from leaderboard.claims import Claims
from leaderboard.commands import cell_command, cell_commands, task_command
from leaderboard.model import NOT_RUN, Board, Run, Sheet, Slice, build, entry_of
from leaderboard.prose import inline, typeset
from leaderboard.standings import Estimate, Overview, SlotTable, Standing, families, overviews, protocols
from leaderboard.tuning import Search, searches
from suite.claims import ClaimRun
from suite.recipe import REFERENCE
from suite.registry import registry
from suite.space import describe as describe_space
from suite.stats import NO_VALUES, Interval, t_interval
from suite.store.files import Read
from suite.store.schema import SMOKE

STATIC = Path(__file__).parent / "static"
MARKER = "static/board.js"  # a folder that holds it is a site of ours
TWO_PROCESSES = 2000  # rows from which on a second process takes its share; of fewer, forking is most of it


class _Site:
    """What the pages share, computed once; the pages come in two parts, so that two processes can make them."""

    def __init__(self, read: Read, board: Board | None = None) -> None:
        self.board = board or build(read.table, read.problems)
        self.views = overviews(self.board)
        self.tuned = searches(self.board)
        self.claims = stated.claims(self.board, read.table)
        pa.default_memory_pool().release_unused()  # what choosing the claims' rows took, before a second process starts
        self.failures = [r for r in self.board.runs if r.failed]
        self._shared = {
            "board": self.board,
            "failed_runs": len(self.failures),
            "data": _data(self.board),
            "claims": self.claims,
        }

    def _page(self, path: str, template: str, **values: Any) -> tuple[str, bytes]:
        root = "../" * path.count("/")
        html = environment().get_template(template).render(root=root, path=path, **self._shared, **values)
        return path, html.encode()

    def summary(self) -> Iterator[tuple[str, bytes]]:
        """Downloads, boards, tasks and all other pages but those of `methods`."""
        board, views = self.board, self.views
        yield "runs.csv", downloads.csv_bytes(downloads.runs(board.runs))
        yield "runs.json", downloads.json_bytes(downloads.runs(board.runs))
        yield "runs.parquet", downloads.parquet_bytes(board)
        tables = {
            "cells": downloads.cells(board),
            "standings": downloads.standings(views),
            "claims": downloads.claims(self.claims.judged),
        }
        for name, table in tables.items():
            yield f"{name}.csv", downloads.csv_bytes(table)
            yield f"{name}.json", downloads.json_bytes(table)
            yield f"{name}.parquet", downloads.table_bytes(table)
        main = [v for v in views if v.slice.main and not v.family]
        everything = [s for part in board.slices if part.main for s in board.of_slice(part)]
        paired = {v.slice.key: pairing(v.sheets) for v in main}
        others = _other_boards(board)
        boards = protocols(views)
        yield self._page(
            "index.html", "index.html", overviews=main, others=others, sheets=everything, pairing=paired, beside=boards
        )
        for view in (v for v in views if v.family or not v.slice.main):
            yield self._page(board_path(view.slice, view.family), "board.html", view=view, others=others)
        for sheet in board.sheets.values():
            yield self._page(sheet.path, "task.html", **_task(board, sheet, self.tuned))
        yield self._page("overall.html", "overall.html", overviews=main, costs=_costs(main), beside=boards)
        yield self._page("aggregates.html", "aggregates.html", groups=_aggregates(main))
        skipped = [r for r in board.runs if r.status == NOT_RUN]
        yield self._page(stated.PAGE, "claims.html")
        yield self._page("failures.html", "failures.html", failures=self.failures, skipped=skipped)
        yield self._page("coverage.html", "coverage.html", **_coverage(board))
        yield "LEADERBOARD.md", markdown.leaderboard(main, self.claims).encode()
        for file in sorted(STATIC.iterdir()):
            yield f"static/{file.name}", file.read_bytes()

    def methods(self) -> Iterator[tuple[str, bytes]]:
        """A page a method and a page a cell of it."""
        board = self.board
        standings = _standings(self.views)
        for method in (REFERENCE, *board.methods):
            searched = self.tuned.get(method, [])
            shown = _method(board, method)
            rows = standings.get(method, [])
            yield self._page(method_path(method), "method.html", searches=searched, standings=rows, **shown)
            for sheet, cell in shown["cells"]:
                path = sheet.cell_path(method)
                if board.cell_path(cell) == path:
                    curve = shown["curves"].get(sheet.path)
                    yield self._page(path, "run.html", **cell_runs.cell_page(board, sheet, cell, curve))


def pages(read: Read, board: Board | None = None) -> Iterator[tuple[str, bytes]]:
    """Path and content of every file of the site; a pure function of the rows, in any order, and the registry.

    Parameters
    ----------
    board : the rows' board, where it is built already.
    """
    site = _Site(read, board)
    yield from site.summary()
    yield from site.methods()


def render(read: Read) -> dict[str, bytes]:
    """All files of the site by path."""
    return dict(pages(read))


def write(read: Read, out: Path, board: Board | None = None) -> list[str]:
    """Write the site into `out`, replacing what an earlier build left there, whole or not at all.

    Raises
    ------
    ValueError : `out` holds files that are not a site of ours.
    """
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise ValueError(f"{out} holds other files; choose an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with _no_collector():
            written = _write_all(_Site(read, board), fresh)
        fresh.chmod(0o755)
        _replace(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return sorted(written)


def _write_all(site: _Site, folder: Path) -> list[str]:
    """Write every page into a folder, a large site's with two processes; the paths, unsorted."""
    if len(site.board.runs) < TWO_PROCESSES or not room_beside():
        return [*_save(site.summary(), folder), *_save(site.methods(), folder)]
    with beside(lambda: _save(site.methods(), folder)) as others:
        return [*_save(site.summary(), folder), *others()]


def _save(files: Iterable[tuple[str, bytes]], folder: Path) -> list[str]:
    """Write files below a folder; their paths."""
    written = []
    for path, content in files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        written.append(path)
        del content  # not held while the next one is made
    return written


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """No garbage collection: a site leaves next to no cycles, and looking for some takes a twentieth of its time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _replace(fresh: Path, out: Path) -> None:
    old = fresh.with_name(fresh.name + "-old")
    if out.exists():
        os.rename(out, old)
    os.rename(fresh, out)
    shutil.rmtree(old, ignore_errors=True)


def differences(read: Read, out: Path) -> list[str]:
    """Paths of a committed site that a rebuild would change, add or remove."""
    found = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()} if out.exists() else {}
    changed = []
    for path, content in pages(read):
        file = found.pop(path, None)
        if file is None or not _same(path, content, file.read_bytes()):
            changed.append(path)
    return sorted([*changed, *found])


def _same(path: str, wanted: bytes, found: bytes) -> bool:
    """Equal bytes; of a Parquet file, which names the library that wrote it, equal rows."""
    if wanted == found:
        return True
    if not path.endswith(".parquet"):
        return False
    try:
        return bool(pq.read_table(pa.BufferReader(found)).equals(pq.read_table(pa.BufferReader(wanted))))
    except (pa.ArrowException, OSError):
        return False


def compare(old: Read, new: Read, names: tuple[str, str]) -> tuple[str, bytes]:
    """What changed between two result folders, as Markdown and as a page that stands alone."""
    found = comparison.changes(build(old.table, old.problems), build(new.table, new.problems))
    values = {"found": found, "names": names, "summary": comparison.summary(found)}
    style = (STATIC / "board.css").read_text()
    page = environment().get_template("changes.html").render(style=style, **values)
    return markdown.differences(found, *names), page.encode()


def top_lines(board: Board, count: int = 3) -> list[str]:
    """The best methods of each task, for a terminal."""
    lines = []
    for sheet in board.sheets.values():
        best = [c for c in sheet.ranked if c.method != REFERENCE and c.n][:count]
        shown = ", ".join(f"{c.method} {text.score_text(c.score)} ({text.bounds_text(c.score)})" for c in best)
        base = sheet.reference
        held = f"reference {text.score_text(base.score)}" if base and base.n else ""
        run = sheet.first
        what = f"{sheet.task} [{sheet.slice.key}], {text.metric_words(run.metric)}, {text.better(run.direction)}"
        nothing = "" if held else "no finished run"
        lines.append(f"{what}: {'; '.join(part for part in (shown or nothing, held) if part)}")
    return lines


# ---------------------------------------------------------------- paths


def board_path(part: Slice, family: str = "") -> str:
    """Page of one slice's board, or of one family of it."""
    name = text.slug(part.key) + (f".{text.slug(family)}" if family else "")
    return f"board/{name}.html"


def method_path(method: str) -> str:
    return f"method/{text.slug(method)}.html"


def sheet_path(board: Board, tier: str, task: str) -> str:
    """Page of a task at equal steps; of all tasks where it has none."""
    sheet = board.sheets.get((Slice(tier), task))
    return sheet.path if sheet else "index.html#tasks"


def claim_run_link(claims: Claims, run: ClaimRun) -> str:
    """Address of a run behind a claim: on its cell's page, or on the claims' own."""
    page = claims.shown.get(run.run_id, "")
    return f"{page}#{run.run_id}"


def safe_link(link: str) -> str:
    """`link` where it is an https address, else ""."""
    return link if link.startswith("https://") else ""


# ---------------------------------------------------------------- what the templates show


class Source(NamedTuple):
    """Where runs come from."""

    key: str
    facts: str
    runs: int


def _data(board: Board) -> dict[str, Any]:
    """Provenance of all runs shown: commits, environments, trust, and what is left out."""
    runs = board.runs
    environments: dict[str, list[Run]] = {}
    commits: dict[tuple[str, bool], int] = {}
    trust: dict[str, int] = {}
    for run in runs:
        environments.setdefault(run.environment_hash, []).append(run)
        commits[run.commit, run.dirty] = commits.get((run.commit, run.dirty), 0) + 1
        trust[run.trust] = trust.get(run.trust, 0) + 1
    sources = [
        Source(k, _environment_words(found[0].environment), len(found)) for k, found in sorted(environments.items())
    ]
    return {
        "runs": len(runs),
        "environments": sources,
        "commits": [(commit, dirty, count) for (commit, dirty), count in sorted(commits.items())],
        "trust": sorted(trust.items()),
        "unverified": _unverified(board),
    }


class Unverified(NamedTuple):
    """What somebody reports of a method on a task."""

    tier: str
    task: str
    method: str
    score: Interval
    runs: int


def _unverified(board: Board) -> list[Unverified]:
    """Self-reported results, one row a tier, task and method."""
    cells: dict[tuple[str, str, str], list[Run]] = {}
    for run in board.unverified:
        cells.setdefault((run.tier, run.task, run.method), []).append(run)
    found = []
    for (tier, task, method), runs in sorted(cells.items()):
        scores = [r.score for r in runs if r.ok]
        found.append(Unverified(tier, task, method, t_interval(scores) if scores else NO_VALUES, len(runs)))
    return found


def _coverage(board: Board) -> dict[str, Any]:
    methods = registry().methods
    systems = covered.coverage(methods, board.methods)
    tiers = []
    for part in (part for part in board.slices if part.main and part.tier != SMOKE):
        found = [(s, covered.progress(info, methods, s.cells)) for s in board.of_slice(part) if (info := s.info)]
        if any(progress.total[0] for _, progress in found):
            tiers.append((part.tier, found))
    return {
        "systems": systems,
        "counts": covered.counts(systems),
        "unlisted": covered.unlisted(methods),
        "tiers": tiers,
    }


def _environment_words(environment: str) -> str:
    facts = json.loads(environment or "{}")
    order = ("device", "hardware", "threads", "dtype", "torch", "python", "numpy", "system", "packages")
    named = [(k, facts[k]) for k in order if k in facts] + [(k, v) for k, v in sorted(facts.items()) if k not in order]
    return ", ".join(f"{k} {v}" for k, v in named) or "not stated"


def _other_boards(board: Board) -> dict[str, list[tuple[str, str]]]:
    """Tier -> (label, path) of the boards beside the main one: families, tuned, equal device time."""
    found: dict[str, list[tuple[str, str]]] = {}
    for part in board.slices:
        links = found.setdefault(part.tier, [])
        names = families(board.of_slice(part))
        if part.main:
            links += [(f"{text.FAMILY_WORDS.get(f, f)} only", board_path(part, f)) for f in names if len(names) > 1]
        else:
            links.append((part.protocol, board_path(part)))
    return found


def _task(board: Board, sheet: Sheet, tuned: Mapping[str, Sequence[Search]]) -> dict[str, Any]:
    best = next((c for c in sheet.ranked if c.n and c.verdict not in ("reference", "same")), None)
    shown = [c for c in (sheet.reference, best) if c is not None and c.n]
    metrics = {c.method: board.metrics(c) for c in sheet.ranked if c.n}
    others = board.other_protocols(sheet)
    return {
        "sheet": sheet,
        "curves": figures.learning_curves(board, sheet),
        "scatter": figures.cost_quality(sheet),
        "exhibits": [
            e
            for i, c in enumerate(shown)
            for e in figures.pde_exhibits(board, sheet, c, ("solution", "prediction", "error")[i > 0 :])
        ],
        "transcripts": [(c.method, found) for c in shown if (found := figures.transcripts(board, c))],
        "metrics": metrics,
        "metric_names": sorted({name for found in metrics.values() for name in found} - {sheet.first.metric}),
        "samples": figures.samples(board, sheet.reference) if sheet.reference else None,
        "recipe": board.recipe(sheet.reference) if sheet.reference else {},
        "command": task_command(sheet),
        "others": others,
        "beside": [o for o in others if any(c.method in o.cells for c in sheet.others)],
        "searches": [s for found in tuned.values() for s in found if s.sheet is sheet],
        "runs": [r for c in sheet.cells.values() for r in c.runs],
    }


def _method(board: Board, method: str) -> dict[str, Any]:
    cells = board.of_method(method)
    parts = [] if method == REFERENCE else method.split("+")
    return {
        "method": method,
        "slot": board.slot_of(method),
        "entries": [(name, entry_of(name)) for name in parts],
        "cells": cells,
        "curves": figures.method_curves(board, cells),
        "portraits": figures.portraits(board, cells),
        "exhibits": [e for s, c in cells for e in figures.pde_exhibits(board, s, c, ("prediction", "error"))],
        "transcripts": [(s, found) for s, c in cells if (found := figures.transcripts(board, c))],
        "commands": [pair for s, c in cells for pair in cell_commands(s, c)],
    }


def _standings(views: Sequence[Overview]) -> dict[str, list[tuple[Overview, SlotTable, Standing]]]:
    """Method -> its row on every board of all families that is evidence."""
    found: dict[str, list[tuple[Overview, SlotTable, Standing]]] = {}
    for view in (v for v in views if not v.family and v.slice.tier != SMOKE):
        for table in view.tables:
            for row in (r for r in table.rows if r.method != REFERENCE):
                found.setdefault(row.method, []).append((view, table, row))
    return found


def _costs(views: Sequence[Overview]) -> dict[str, list[figures.Figure]]:
    """Slice -> headline against step cost, a figure a slot."""
    return {v.slice.key: [f for t in v.tables if (f := figures.headline_costs(t)) is not None] for v in views}


def _aggregates(views: Sequence[Overview]) -> list[tuple[Overview, list[Aggregates]]]:
    found = [(view, [a for table in view.tables if (a := aggregates(table)) is not None]) for view in views]
    return [(view, tables) for view, tables in found if tables]


def estimate_text(estimate: Estimate | None, kind: str) -> tuple[str, str, str]:
    """A headline's value, its interval over seeds and its interval over tasks ("" for one task), as text."""
    if estimate is None:
        return text.MISSING, text.MISSING, ""

    def one(value: float) -> str:
        return text.factor(value) if kind == "speedup" else text.fixed(value, 2, sign=True)

    def pair(low: float, high: float) -> str:
        if not math.isfinite(low):
            return text.MISSING
        return one(low) if low == high else f"{one(low)} to {one(high)}"

    over_tasks = pair(estimate.low, estimate.high) if math.isfinite(estimate.low) else ""
    return one(estimate.value), pair(estimate.seeds_low, estimate.seeds_high), over_tasks


@functools.cache
def environment() -> Environment:
    """The templates; every value is escaped unless it is `Markup`."""
    made = Environment(
        loader=PackageLoader("leaderboard", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        auto_reload=False,  # thousands of pages: no look at the template's file for each
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": text.number, "count": text.count, "factor": text.factor, "score": text.score_text,
        "gain": text.gain_text, "bounds": text.bounds_text, "metric_words": text.metric_words,
        "unit_words": text.unit_words, "describe": describe_space, "typeset": typeset, "inline": inline,
        "ties": text.tie_text, "safe_link": safe_link, "slug": text.slug,
        "stored_hp": text.hyperparameter_text, "hp": text.hyperparameters, "plain": text.plain_value,
    }  # fmt: skip
    made.globals |= {
        "REFERENCE": REFERENCE, "slot_words": text.slot_words, "tier_words": text.TIER_WORDS, "plural": text.plural,
        "listing": text.listing, "better": text.better, "family_words": text.FAMILY_WORDS,
        "verdicts": text.VERDICT_WORDS, "too_few": text.too_few,
        "gain_mark": figures.gain_mark, "gain_axis": figures.gain_axis,
        "headline_mark": figures.headline_mark, "headline_axis": figures.headline_axis,
        "board_path": board_path, "method_path": method_path, "cell_command": cell_command,
        "estimate": estimate_text, "registered": lambda: registry().methods, "describe_aggregate": describe,
        "claim_axis": stated.axis, "claim_effect": stated.effect_text, "claim_mark": stated.mark,
        "claim_classes": stated.CLASSES, "claim_sides": stated.sides, "claim_command": stated.command_line,
        "claim_run_link": claim_run_link, "verdict_aside": stated.aside, "failed_text": stated.failed_text,
        "sheet_path": sheet_path,
        "legend": legend, "isfinite": math.isfinite, "change_score": comparison.score, "EQUAL": comparison.EQUAL,
    }  # fmt: skip
    return made
