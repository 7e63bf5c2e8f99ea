"""The charts of a page, from the stored runs."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from leaderboard.charts import Mark, Point, Series, line_chart, scatter, whisker, whisker_axis
from leaderboard.maps import Map, pde_maps, picture, profile
from leaderboard.model import DAMAGED, Board, Cell, Sheet
from leaderboard.standings import SlotTable, Standing
from leaderboard.text import better, listing, metric_words, slot_words, unit_words
from suite.recipe import REFERENCE
from suite.stats import Interval
from suite.stats.board import SD_CLIP
from suite.stats.ladder import LOG2_CLIP

PALETTE = "abcdefg"
FRONT = "The line joins the methods that no other method beats on both."
CURVES = 7  # methods on a task's learning curves, beside the reference
FloatArray = npt.NDArray[np.float64]


class Figure(NamedTuple):
    """A chart and what it shows."""

    chart: Markup
    caption: str


class Exhibit(NamedTuple):
    """Maps that a run left, or why they could not be drawn."""

    title: str
    maps: list[Map]
    trouble: str = ""


def mean_curve(board: Board, cell: Cell, column: str) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """x, mean, lowest and highest score over the finished seeds, at the evaluations they all have."""
    curves = [(board.curve(r, column), board.curve(r, "score")) for r in cell.runs if r.ok]
    curves = [c for c in curves if len(c[0])]
    if not curves:
        empty = np.empty(0)
        return empty, empty, empty, empty
    length = min(len(x) for x, _ in curves)
    x = np.stack([x[:length] for x, _ in curves])
    y = np.stack([y[:length] for _, y in curves])
    return x.mean(axis=0), y.mean(axis=0), y.min(axis=0), y.max(axis=0)


def _series(board: Board, cell: Cell, column: str, kind: str) -> Series:
    x, y, low, high = (part.tolist() for part in mean_curve(board, cell, column))
    return Series(cell.method, x, y, low, high, kind)


def _reference_series(board: Board, sheet: Sheet) -> list[Series]:
    """The reference's mean curve against the budget, where it finished; once, since every method stands beside it."""
    if sheet.reference is None or not sheet.reference.n:
        return []
    if sheet.path not in board.reference_curves:
        board.reference_curves[sheet.path] = _series(board, sheet.reference, "spent", "reference")
    return [board.reference_curves[sheet.path]]


def _marks(sheet: Sheet) -> list[Mark]:
    """Best possible and chance values, where the task's metric states them."""
    metric = sheet.info.metric if sheet.info else None
    if metric is None:
        return []
    known = ((metric.floor, "best possible"), (metric.chance, "chance"))
    return [Mark(value, label) for value, label in known if value is not None]


def axis_label(sheet: Sheet) -> str:
    run = sheet.first
    return f"{metric_words(run.metric)} ({unit_words(run.unit)}), {better(run.direction)}"


def learning_curves(board: Board, sheet: Sheet) -> list[Figure]:
    """Curves of the reference and the best methods against the budget and against seconds.

    Seconds are those of one machine class, that of most of the reference's runs.
    """
    best = [c for c in sheet.ranked if c.n and c.method != REFERENCE][:CURVES]
    unit = sheet.first.budget_unit or "steps"
    whose = f"the reference and the {len(best)} best methods" if len(best) > 1 else "all methods with a score"
    cells = [(sheet.reference, "reference"), *zip(best, PALETTE, strict=False)]
    known = [(c, kind) for c, kind in cells if c is not None and c.n]
    figures = []
    for column, label, what in (
        ("spent", unit, f"the budget in {unit}"),
        ("seconds", "training seconds", "training time"),
    ):
        drawn = known if column == "spent" else [(own, kind) for c, kind in known if (own := sheet.of_machine(c))]
        series = [_series(board, c, column, kind) for c, kind in drawn]
        title = f"{sheet.task}: {metric_words(sheet.first.metric)} against {label}"
        chart = line_chart(series, label, axis_label(sheet), title, _log(sheet), _marks(sheet))
        caption = f"Validation score of {whose} against {what}: mean over seeds, band from lowest to highest."
        caption += _other_machines([c for c, _ in known], [c for c, _ in drawn])
        if sheet.first.metric == "excess":
            caption += " 0, which this axis never reaches, is the entropy of the source: no model can do better."
        figures.append(Figure(Markup(chart), caption))
    return [f for f in figures if f.chart]


def _log(sheet: Sheet) -> bool:
    """Losses are read on a logarithmic axis; shares and logarithms are not."""
    return sheet.first.direction == "min" and not sheet.first.unit.startswith("log")


def cost_quality(sheet: Sheet) -> Figure | None:
    """Every method's score against its cost, with the methods that no other beats on both.

    The cost is the measured time of a step relative to the reference's; where
    no step was timed, the training seconds of the runs, which nothing held still.
    """
    cells = [c for c in sheet.cells.values() if c.n and math.isfinite(c.cost.value)]
    timed, left = len(cells) > 1, ""
    if not timed:
        known = [c for c in sheet.cells.values() if any(r.ok and r.train_seconds > 0 for r in c.runs)]
        cells = [own for c in known if (own := sheet.of_machine(c)) and own.seconds > 0]
        left = _other_machines(known, cells)
    if len(cells) < 2:
        return None
    costs = [c.cost if timed else _seconds(c) for c in cells]
    sign = 1 if sheet.first.direction == "min" else -1
    front = pareto([(cost.value, sign * c.score.value) for c, cost in zip(cells, costs, strict=True)])
    points = [
        Point(
            c.method, cost.value, c.score.value, cost.low, cost.high, c.score.low, c.score.high,
            "reference" if c.method == REFERENCE else c.verdict, on_front,
        )
        for c, cost, on_front in zip(cells, costs, front, strict=True)
    ]  # fmt: skip
    title = f"{sheet.task}: score against {'step cost' if timed else 'training seconds'}"
    label = "time of a step, reference = 1" if timed else "training seconds"
    ends = _ends(sheet)
    mark = 1.0 if timed else None
    chart = scatter(points, label, axis_label(sheet), title, _log(sheet), _marks(sheet), mark, ends)
    what = "the time of one training step, with 95% intervals" if timed else (
        "the seconds that training took, from the fastest to the slowest seed; nothing else on the machine was "
        "held still, so that small differences in seconds mean nothing"
    )  # fmt: skip
    far = " Arrows stand for scores beyond the axis." if any(not ends[0] <= p.y <= ends[1] for p in points) else ""
    return Figure(Markup(chart), f"Cost and quality: test score against {what}. {FRONT}{far}{left}")


def _ends(sheet: Sheet) -> tuple[float, float]:
    """Ends of an axis of scores: as far from the reference's as the axis of the differences to it goes."""
    if sheet.reference is None or not sheet.reference.n or not sheet.reach > 0:
        return -math.inf, math.inf
    return sheet.reference.score.value - sheet.reach, sheet.reference.score.value + sheet.reach


def _other_machines(known: Sequence[Cell], drawn: Sequence[Cell]) -> str:
    """What a chart of seconds leaves out, as a sentence for its caption; "" where it is nothing."""
    if sum(c.n for c in known) == sum(c.n for c in drawn):
        return ""
    absent = sorted({c.method for c in known} - {c.method for c in drawn})
    names = f"; all of {listing(absent, 8)}" if absent else ""
    return f" Runs on other machines than most of the reference's are left out{names}."


def _seconds(cell: Cell) -> Interval:
    """Mean training seconds of the finished runs, from the fastest to the slowest."""
    times = [r.train_seconds for r in cell.runs if r.ok and r.train_seconds > 0]
    return Interval(cell.seconds, min(times), max(times), len(times), "range")


def headline_costs(table: SlotTable) -> Figure | None:
    """Headline of every method of a slot against its step cost, where that was measured."""
    found = [(r, e) for r in table.rows if math.isfinite(r.cost) and (e := r.estimate(table.headline))]
    if len(found) < 2:
        return None
    speedup = table.headline == "speedup"
    front = pareto([(r.cost, -e.value) for r, e in found])
    points = [
        Point(r.method, r.cost, e.value, math.nan, math.nan, e.seeds_low, e.seeds_high, r.verdict(table.headline), on)
        for (r, e), on in zip(found, front, strict=True)
    ]
    label = "effective speedup" if speedup else "mean gain, seed sd"
    title = f"{slot_words(table.slot).title}: {label} against step cost"
    chart = scatter(
        points, "time of a step, reference = 1", f"{label}, higher is better", title, speedup,
        [Mark(1.0 if speedup else 0.0, "")], 1.0,
    )  # fmt: skip
    return Figure(Markup(chart), f"{title}, with 95% intervals over seeds. {FRONT}")


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other point is at least as low in both coordinates as, and lower in one."""
    return [
        not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)
        for x, y in points
    ]  # fmt: skip


def method_curves(board: Board, cells: Sequence[tuple[Sheet, Cell]]) -> dict[str, Figure]:
    """The method's learning curve beside the reference's, one chart a task, by the task's page."""
    figures = {}
    for sheet, cell in cells:
        if not cell.n:
            continue
        series = [] if cell is sheet.reference else _reference_series(board, sheet)
        series.append(_series(board, cell, "spent", "a"))
        unit = sheet.first.budget_unit or "steps"
        title = f"{cell.method} on {sheet.task} ({sheet.slice.key})"
        chart = line_chart(series, unit, axis_label(sheet), title, _log(sheet), _marks(sheet))
        if chart:
            protocol = "" if sheet.slice.main else f": {sheet.slice.protocol}"
            figures[sheet.path] = Figure(Markup(chart), f"{sheet.title}, tier {sheet.slice.tier}{protocol}")
    return figures


def portraits(board: Board, cells: Sequence[tuple[Sheet, Cell]]) -> list[Figure]:
    """Function and derivative of the activations under test, from the values that their runs stored."""
    figures: dict[str, Figure] = {}
    for _, cell in cells:
        for name, shown in board.exhibits(cell).items():
            if shown.get("kind") == "activation" and name not in figures:
                figures[name] = _portrait(name.removeprefix("activation "), shown)
    return list(figures.values())


def _portrait(name: str, shown: Mapping[str, Any]) -> Figure:
    title = f"{name}: function and derivative"
    try:
        x, y, slope = (np.asarray(shown[key], dtype=np.float64).tolist() for key in ("x", "y", "dy"))
        lines = [Series("f(x)", x, y, kind="a"), Series("f′(x)", x, slope, kind="b")]
        chart = line_chart(lines, "x", "f(x) and its derivative f′(x)", title, marks=[Mark(0.0, "")])
    except (TypeError, ValueError, KeyError) as error:
        return Figure(Markup(""), f"{title}: the stored values cannot be drawn ({type(error).__name__}).")
    return Figure(Markup(chart), f"{title}, computed by the code that ran.")


def pde_exhibits(board: Board, sheet: Sheet, cell: Cell, parts: Sequence[str]) -> list[Exhibit]:
    """PDE maps of a cell's run (a line chart where the domain has one coordinate)."""
    return [
        _pde_exhibit(f"{cell.method} on {sheet.title}", shown, parts)
        for shown in board.exhibits(cell).values()
        if shown.get("kind") in ("pde-map", DAMAGED)
    ]


def _pde_exhibit(title: str, shown: Mapping[str, Any], parts: Sequence[str]) -> Exhibit:
    if shown.get("kind") == DAMAGED:
        return Exhibit(title, [], "The exhibits that the run left cannot be read.")
    try:
        line = profile(shown)
        if line is None:
            return Exhibit(title, pde_maps(shown, parts))
        x, truth, guess = line
        axis = str((shown.get("axes") or ["x"])[0])
        series = [Series("solution", x, truth, kind="reference"), Series("prediction", x, guess, kind="a")]
        function = str(shown.get("function", "u"))
        return Exhibit(title, [Map(line_chart(series, axis, function, title), f"{function} along {axis}")])
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        return Exhibit(title, [], f"The stored map cannot be drawn ({type(error).__name__}: {error}).")


def transcripts(board: Board, cell: Cell) -> list[dict[str, Any]]:
    """Prompts with sampled completions and their rewards that the cell's run left."""
    found = []
    for shown in board.exhibits(cell).values():
        items = shown.get("items") if shown.get("kind") == "transcripts" else None
        for item in items if isinstance(items, list) else []:
            if not isinstance(item, Mapping):
                continue
            answers = [c for c in item.get("completions") or [] if isinstance(c, Mapping)]
            found.append({"prompt": str(item.get("prompt", "")), "completions": list(_completions(answers))})
    return found


class Samples(NamedTuple):
    """A few examples of a task's data.

    Attributes
    ----------
    pictures : (PNG data address, what it shows) pairs.
    texts : texts, and `note`, how they are written down.
    trouble : why they could not be drawn.
    """

    pictures: Sequence[tuple[str, str]] = ()
    texts: Sequence[str] = ()
    note: str = ""
    trouble: str = ""

    def __bool__(self) -> bool:
        return bool(self.pictures or self.texts or self.trouble)


def samples(board: Board, cell: Cell) -> Samples:
    """Examples of the data that the reference's run left."""
    shown = board.exhibits(cell).get("samples", {})
    try:
        if shown.get("kind") == "pictures":
            raw = base64.b64decode(str(shown["pixels"]), validate=True)
            pixels = np.frombuffer(raw, dtype=np.uint8).reshape([int(n) for n in shown["shape"]])
            return Samples([(picture(p), str(name)) for p, name in zip(pixels, shown["labels"], strict=True)])
        if shown.get("kind") == "texts":
            return Samples(texts=[str(item) for item in shown["items"]], note=str(shown.get("note", "")))
    except (TypeError, ValueError, KeyError) as error:
        return Samples(trouble=f"The stored samples cannot be drawn ({type(error).__name__}: {error}).")
    return Samples()


def _completions(answers: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for answer in answers:
        reward = answer.get("reward")
        yield {
            "text": str(answer.get("text", "")),
            "reward": float(reward) if isinstance(reward, int | float) else math.nan,
            "ended": bool(answer.get("ended", True)),
        }


# ---------------------------------------------------------------- whiskers


def gain_mark(sheet: Sheet, cell: Cell) -> Markup:
    """The cell's difference on the task's common axis; empty for the reference."""
    if cell.method == REFERENCE or not cell.gain.n:
        return Markup("")
    return Markup(whisker(cell.gain.value, cell.gain.low, cell.gain.high, sheet.reach))


def gain_axis(sheet: Sheet) -> Markup:
    """The axis of the task's differences, with zero and end labels."""
    return Markup(whisker_axis(sheet.reach))


def headline_mark(row: Standing, headline: str) -> Markup:
    """A row's headline with its interval over seeds: in octaves of a speedup, in seed sd of a gain; empty without."""
    found = row.estimate(headline)
    if row.method == REFERENCE or found is None:
        return Markup("")
    ends = (found.value, found.seeds_low, found.seeds_high)
    if headline == "speedup":
        value, low, high = (math.log2(v) for v in ends)
        return Markup(whisker(value, low, high, LOG2_CLIP))
    return Markup(whisker(*ends, SD_CLIP))


def headline_axis(headline: str) -> Markup:
    """The axis of headlines, the same on every table."""
    return Markup(whisker_axis(LOG2_CLIP, ("¼×", "1×", "4×")) if headline == "speedup" else whisker_axis(SD_CLIP))


def seed_curves(board: Board, sheet: Sheet, cell: Cell) -> Figure | None:
    """The curve of every seed of a cell beside the reference's mean; None where there are too many to tell apart."""
    shown = [r for r in cell.runs if len(board.curve(r, "spent"))]
    if len(shown) > CURVES:
        return None
    series = [] if cell is sheet.reference else _reference_series(board, sheet)
    series += [
        Series(f"seed {r.seed}", board.curve(r, "spent").tolist(), board.curve(r, "score").tolist(), kind=kind)
        for r, kind in zip(shown, PALETTE, strict=False)
    ]
    title = f"{cell.method} on {sheet.task}: every seed"
    chart = line_chart(series, sheet.first.budget_unit or "steps", axis_label(sheet), title, _log(sheet), _marks(sheet))
    beside = "; dashed: the reference's mean" if cell is not sheet.reference else ""
    return Figure(Markup(chart), f"Validation score, one line a seed{beside}.") if chart else None


def ladder_curves(board: Board, sheet: Sheet) -> Figure | None:
    """The reference's mean curve at each budget of its ladder: what a speedup is read on."""
    rungs = {**sheet.rungs, 1.0: [r for r in sheet.reference.runs if r.ok] if sheet.reference else []}
    if len(rungs) < 2:
        return None
    series = []
    for share, kind in zip(sorted(rungs), PALETTE, strict=False):
        cell = Cell(sheet.task, f"{share:g} × budget", tuple(rungs[share]))
        series.append(_series(board, cell, "spent", "reference" if share == 1 else kind))
    unit = sheet.first.budget_unit or "steps"
    title = f"{sheet.task}: the reference at other budgets"
    chart = line_chart(series, unit, axis_label(sheet), title, _log(sheet), _marks(sheet))
    return Figure(Markup(chart), "The reference's ladder: mean over seeds at each budget, band from lowest to highest.")
