"""Writes the site: index, a page a task and a method, failures, coverage; the same bytes every time."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from leaderboard.charts import Series, heat_map, line_chart, whisker
from leaderboard.model import Board, Cell, Sheet, build, entry_of, exhibits, slot_of
from suite.recipe import REFERENCE
from suite.slots import SLOTS
from suite.space import describe
from suite.store.files import Read

STATIC = Path(__file__).parent / "static"
PALETTE = "abcdefgh"
MAX_LINES = 8


def render(read: Read) -> dict[str, bytes]:
    """All files of the site, by relative path; a pure function of the rows and the registry."""
    board = build(read.table, read.problems)
    environment = _environment()
    pages: dict[str, str] = {}

    def page(path: str, template: str, **values: Any) -> None:
        root = "../" * path.count("/")
        pages[path] = environment.get_template(template).render(board=board, root=root, path=path, **values)

    page("index.html", "index.html", overview=[_overview(board, tier) for tier in board.tiers])
    for (tier, task), sheet in sorted(board.sheets.items()):
        page(f"task/{tier}.{task}.html", "task.html", sheet=sheet, charts=_task_charts(board, sheet))
    for method in board.methods:
        cells = board.of_method(method)
        values = {"method": method, "entry": entry_of(method), "cells": cells, "slot": slot_of(board, method)}
        page(f"method/{method}.html", "method.html", portrait=_portrait(cells), curves=_method_charts(board, cells), **values)
    page("failures.html", "failures.html", failures=[r for r in board.rows if r["status"] != "ok"])
    files = {path: text.encode() for path, text in pages.items()}
    files |= {f"static/{f.name}": f.read_bytes() for f in sorted(STATIC.iterdir())}
    files["runs.csv"] = _csv(board.rows).encode()
    files["LEADERBOARD.md"] = environment.get_template("leaderboard.md").render(
        board=board, overview=[_overview(board, tier) for tier in board.tiers]
    ).encode()
    return files


def write(read: Read, out: Path) -> list[str]:
    """Write the site into `out`, replacing what an earlier build left there.

    Raises
    ------
    ValueError : `out` holds files that are not a site of ours.
    """
    files = render(read)
    if out.exists() and any(out.iterdir()) and not (out / "static" / "board.js").exists():
        raise ValueError(f"{out} holds other files; choose an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    for path, data in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    fresh.chmod(0o755)
    old = fresh.with_name(fresh.name + "-old")
    if out.exists():
        os.rename(out, old)
    os.rename(fresh, out)
    shutil.rmtree(old, ignore_errors=True)
    return sorted(files)


def differences(read: Read, out: Path) -> list[str]:
    """Paths of a committed site that a rebuild would change, add or remove."""
    wanted = render(read)
    found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()} if out.exists() else {}
    return sorted(p for p in wanted.keys() | found.keys() if wanted.get(p) != found.get(p))


def top_lines(read: Read, count: int = 3) -> list[str]:
    """The best methods of each task, for a terminal."""
    board = build(read.table, read.problems)
    lines = []
    for (tier, task), sheet in sorted(board.sheets.items()):
        best = [c for c in sheet.ranked if c.method != REFERENCE and c.n][:count]
        shown = ", ".join(f"{c.method} {number(c.score.value)}{_plus_minus(c)}" for c in best)
        base = sheet.reference
        held = f" (reference {number(base.score.value)})" if base and base.n else ""
        lines.append(f"{task} [{tier}], {sheet.metric}, {_better(sheet)}: {shown}{held}")
    return lines


def _plus_minus(cell: Cell) -> str:
    half = (cell.score.high - cell.score.low) / 2
    return "" if math.isnan(half) else f" ± {number(half)}"


def _better(sheet: Sheet) -> str:
    return "lower is better" if sheet.direction == "min" else "higher is better"


# ---------------------------------------------------------------- overview


def _overview(board: Board, tier: str) -> dict[str, Any]:
    """One tier: for each slot a table of methods by tasks."""
    sheets = board.of_tier(tier)
    slots = []
    for slot in [*SLOTS, *sorted({slot_of(board, m) for m in board.methods} - set(SLOTS))]:
        methods = [m for m in board.methods if slot_of(board, m) == slot and any(m in s.cells for s in sheets)]
        shown = [s for s in sheets if any(m in s.cells for m in methods)]
        if methods:
            rows = sorted((_overview_row(m, shown) for m in methods), key=lambda r: (-r["gain"], r["method"]))
            slots.append({"slot": slot, "sheets": shown, "rows": rows, "summary": getattr(SLOTS.get(slot), "summary", "")})
    runs = [r for s in sheets for c in s.cells.values() for r in c.rows]
    counts = {"runs": len(runs), "failed": sum(r["status"] != "ok" for r in runs), "tasks": len(sheets)}
    methods_here = {m for s in sheets for m in s.cells if m != REFERENCE}
    return {"tier": tier, "slots": slots, **counts, "methods": len(methods_here), "stale": sum(s.stale for s in sheets)}


def _overview_row(method: str, sheets: Sequence[Sheet]) -> dict[str, Any]:
    """A method's cells and its mean standardised gain, for the order of the rows.

    The gain is the paired difference to the reference in seed standard
    deviations of the reference, clipped to +-6; a failed cell counts -6. It
    depends on no other method.
    """
    cells = [(s, s.cells.get(method)) for s in sheets]
    gains = [standard_gain(s, c) for s, c in cells if c is not None]
    known = [g for g in gains if math.isfinite(g)]
    verdicts = [c.verdict for _, c in cells if c is not None]
    return {
        "method": method,
        "cells": cells,
        "gain": sum(known) / len(known) if known else -7.0,
        "counted": len(known),
        "better": verdicts.count("better"),
        "tied": verdicts.count("tied") + verdicts.count("open"),
        "worse": verdicts.count("worse") + verdicts.count("failed"),
    }


def standard_gain(sheet: Sheet, cell: Cell) -> float:
    """The cell's paired difference in seed standard deviations, clipped to +-6; -6 when every run failed."""
    if not cell.n:
        return -6.0
    if not sheet.sd > 0 or math.isnan(cell.gain.value):
        return math.nan
    return max(-6.0, min(6.0, cell.gain.value / sheet.sd))


# ---------------------------------------------------------------- charts


def _curve(board: Board, rows: Sequence[Mapping[str, Any]], x: str) -> tuple[list[float], list[float], list, list]:
    """Mean and range over seeds at the evaluations that all finished seeds share."""
    runs = [board.curves[r["run_id"]] for r in rows if r["status"] == "ok" and board.curves.get(r["run_id"])]
    if not runs:
        return [], [], [], []
    length = min(map(len, runs))
    xs = [_mean([run[i][x] for run in runs]) for i in range(length)]
    scores = [[_number(run[i]["score"]) for run in runs] for i in range(length)]
    return xs, [_mean(s) for s in scores], [min(s) for s in scores], [max(s) for s in scores]


def _task_charts(board: Board, sheet: Sheet) -> list[tuple[str, Markup]]:
    """Learning curves of the best methods and the reference, against budget and against seconds."""
    shown = [c for c in sheet.ranked if c.n and c.method != REFERENCE][: MAX_LINES - 1]
    cells = [*([sheet.reference] if sheet.reference and sheet.reference.n else []), *shown]
    charts = []
    for x, label in (("spent", str(sheet.first["budget_unit"])), ("seconds", "training seconds on one core")):
        series = [_series(board, cell, i, x) for i, cell in enumerate(cells)]
        caption = f"{sheet.metric} on validation against {label}; band: range over seeds"
        charts.append((caption, Markup(line_chart(series, label, f"{sheet.metric} ({sheet.unit})", caption, log_y=True))))
    return [c for c in charts if c[1]]


def _series(board: Board, cell: Cell, i: int, x: str, skip: int = 1) -> Series:
    xs, ys, low, high = (values[skip:] for values in _curve(board, cell.rows, x))
    kind = "reference" if cell.method == REFERENCE else PALETTE[(i - 1) % len(PALETTE)]
    return Series(cell.method, xs, ys, low, high, kind)


def _method_charts(board: Board, cells: Sequence[tuple[Sheet, Cell]]) -> list[tuple[str, Markup]]:
    """The method's curve beside the reference's, one chart a task."""
    charts = []
    for sheet, cell in cells:
        if not cell.n:
            continue
        pair = [c for c in (sheet.reference, cell) if c is not None and c.n]
        series = [_series(board, c, 1, "spent") for c in pair]
        caption = f"{sheet.task} ({sheet.tier}): {sheet.metric} against {sheet.first['budget_unit']}"
        charts.append((caption, Markup(line_chart(series, str(sheet.first["budget_unit"]), sheet.metric, caption, True))))
    return charts


def _portrait(cells: Sequence[tuple[Sheet, Cell]]) -> Markup:
    """Function and derivative of an activation, from the values its runs stored."""
    for _, cell in cells:
        for shown in exhibits(cell).values():
            if shown.get("kind") == "activation":
                value = Series("f(x)", shown["x"], shown["y"], kind="a")
                slope = Series("f'(x)", shown["x"], shown["dy"], kind="b")
                return Markup(line_chart([value, slope], "x", "f, f'", f"{cell.method} and its derivative"))
    return Markup("")


# ---------------------------------------------------------------- formatting


def number(value: Any) -> str:
    """Four significant digits, "-" for what is missing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return f"{value:.4g}"


def interval(cell: Cell) -> str:
    """A score's interval in words."""
    low, high = cell.score.low, cell.score.high
    return "one seed" if math.isnan(low) else f"{number(low)} to {number(high)}"


def reproduce(row: Mapping[str, Any]) -> str:
    """The command that makes a row again."""
    words = ["levelfield", "run", "--tasks", row["task"], "--methods", row["method"]]
    words += ["--tier", row["tier"], "--seeds", f"{row['seed']},"]
    return shlex.join(words)


def mark(sheet: Sheet, cell: Cell) -> Markup:
    """Whisker of the paired difference, on the task's common axis."""
    known = [c.gain for c in sheet.cells.values() if c.n]
    ends = [abs(v) for g in known for v in (g.value, g.low, g.high) if math.isfinite(v)]
    scale = min(max(ends, default=0.0), 6 * sheet.sd if sheet.sd > 0 else math.inf)
    return Markup(whisker(cell.gain.value, cell.gain.low, cell.gain.high, scale, cell.verdict))


def maps(cell: Cell) -> list[dict[str, Any]]:
    """PDE maps of a cell as images with captions."""
    found = []
    for name, shown in exhibits(cell).items():
        if shown.get("kind") == "pde-map":
            for part in ("solution", "prediction", "error"):
                if part in shown:
                    values = shown[part]
                    low, high = min(map(min, values)), max(map(max, values))
                    image = Markup(heat_map(values, low, high))
                    found.append({"image": image, "caption": f"{name}: {part}, {number(low)} to {number(high)}"})
    return found


def transcripts(cell: Cell) -> list[dict[str, Any]]:
    """Sampled RLVR transcripts of a cell."""
    return [t for shown in exhibits(cell).values() if shown.get("kind") == "transcripts" for t in shown["transcripts"]]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = (
        "run_id", "tier", "task", "method", "slot", "seed", "status", "metric", "unit", "direction", "score",
        "val_score", "steps", "spent", "budget", "budget_unit", "parameters", "flops", "train_seconds", "cost_ratio",
        "digest", "task_hash", "method_hash", "commit", "message",
    )  # fmt: skip
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _safe(row[k]) for k in columns} for row in rows)
    return out.getvalue()


def _safe(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("leaderboard", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval, "describe": describe}
    environment.globals |= {
        "reproduce": reproduce, "mark": mark, "maps": maps, "transcripts": transcripts, "better": _better,
        "standard_gain": standard_gain, "entry_of": entry_of, "REFERENCE": REFERENCE, "loads": json.loads,
        "isnan": lambda v: isinstance(v, float) and math.isnan(v),
    }  # fmt: skip
    return environment
