"""Charts as small SVG text: themed by the page's CSS, deterministic, no library at view time.

A general plotting library takes a tenth of a second and tens of kilobytes a
chart; a board has hundreds. These are the few shapes that it needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from leaderboard.text import MINUS

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 116, 36, 40
LABEL_STEP = 14  # least distance between two end labels
Box = tuple[float, float, float, float]  # left, top, right, bottom
CHARACTER = 6.6  # widest usual width of a label's character
WHISKER_WIDTH, WHISKER_HEIGHT = 104, 18


class Series(NamedTuple):
    """One line of a chart.

    Attributes
    ----------
    name : text of its label.
    x, y : points, in the order of x.
    low, high : band around the line, or empty.
    kind : CSS class: "a", "b", ... or "reference".
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    kind: str = "a"


class Point(NamedTuple):
    """One point of a scatter plot with the ends of its whiskers; `front` marks the Pareto front."""

    name: str
    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    kind: str = "a"
    front: bool = False


class Mark(NamedTuple):
    """A horizontal line across a chart: a value and what it is, "" where that is named already."""

    value: float
    label: str


class Scale:
    """Values to pixels along one axis, linear or logarithmic, with its ticks.

    Parameters
    ----------
    values : finite values that must be inside.
    start, end : pixels of the lowest and the highest value.
    log : logarithmic; needs positive values and is ignored where there are others.
    zero : begin at 0.
    """

    def __init__(
        self, values: Sequence[float], start: float, end: float, log: bool = False, zero: bool = False
    ) -> None:
        low, high = min(values), max(values)
        self.log = log and low > 0
        self.start, self.end = start, end
        if self.log:
            low, high = math.log10(low), math.log10(high)
        margin = 0.04 * (high - low) or (0.05 if self.log else 0.05 * max(abs(low), 1e-9))
        self.low = 0.0 if zero and not self.log and low >= 0 else low - margin
        self.high = max(high + (0.0 if zero else margin), self.low + 1e-9)

    def __call__(self, value: float) -> float:
        place = math.log10(value) if self.log and value > 0 else self.low if self.log else value
        return self.start + (place - self.low) / (self.high - self.low) * (self.end - self.start)

    def all(self, values: Sequence[float]) -> list[float]:
        """Pixels of many values; nan where a value is none."""
        slope = (self.end - self.start) / (self.high - self.low)
        origin = self.start - self.low * slope
        if self.log:
            return [origin + math.log10(v) * slope if v > 0 else math.nan if v != v else self.start for v in values]
        return [origin + v * slope for v in values]

    def has(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        if self.log and value <= 0:
            return False
        place = math.log10(value) if self.log else value
        return self.low <= place <= self.high

    @property
    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between `low` and `high`, about `count` of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= min((1, 2, 5, 10), key=lambda m: abs((high - low) / (m * step) - count))
    first = math.ceil(low / step - 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """1-2-5 numbers between 10**low and 10**high; fewer on a long axis, evenly spaced ones on a short."""
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        powers = range(math.floor(low), math.ceil(high) + 1)
        found = [float(f"{m * 10.0**k:.10g}") for k in powers for m in digits]
        inside = [v for v in found if low - 1e-9 <= math.log10(v) <= high + 1e-9]
        if len(inside) >= (3 if len(digits) < 6 else 4):
            return inside[:: math.ceil(len(inside) / most)]
    return linear_ticks(10**low, 10**high)


def tick_text(value: float) -> str:
    """A tick's label: plain digits, k and M for thousands and millions."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and (size == 1e6 or value % size == 0)):
            return f"{value / size:g}{letter}".replace("-", MINUS)
    text = f"{value:.10f}".rstrip("0").rstrip(".") if 1e-5 < abs(value) < 1e6 else f"{value:g}"
    return text.replace("-", MINUS)


def line_chart(
    series: Sequence[Series], x_label: str, y_label: str, title: str, log_y: bool = False, marks: Sequence[Mark] = ()
) -> str:
    """Lines with bands from x = 0 (or the lowest x below it), each named at its end; an ``<svg>`` element and a legend.

    Points that are not finite are left out. The legend is shown in place of the
    names where the page is narrow.

    Returns
    -------
    "" when no point is finite.
    """
    shown = [s for s in series if _known(s.x, s.y)]
    ys = [v for s in shown for v in (*s.y, *s.low, *s.high) if math.isfinite(v)]
    xs = [v for s in shown for v in s.x if math.isfinite(v)]
    if not ys or not xs:
        return ""
    right = WIDTH - (RIGHT if len(shown) > 1 else 16)
    across = Scale([*xs, 0.0] if min(xs) >= 0 else xs, LEFT, right, zero=min(xs) >= 0)
    up = Scale(ys, HEIGHT - BOTTOM, TOP, log=log_y)
    parts = [_open("chart", title), *_axes(across, up, right, x_label, y_label), *_marks(marks, up, right)]
    ends = []
    for s in shown:
        xs = across.all(s.x)
        points = _known(xs, up.all(s.y))
        parts += [
            _band(s, xs, up),
            f'<path class="line {s.kind}" d="{_path(points)}"><title>{escape(s.name)}</title></path>',
        ]
        if len(points) == 1:
            parts.append(f'<circle class="dot {s.kind}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>')
        ends.append((points[-1], s))
    if len(shown) > 1:
        parts += _end_labels(ends, right)
    legend = "".join(f'<span class="key {s.kind}">{escape(s.name)}</span>' for s in shown)
    return "".join(parts) + "</svg>" + (f'<div class="legend">{legend}</div>' if len(shown) > 1 else "")


def scatter(
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    title: str,
    log_y: bool,
    marks: Sequence[Mark] = (),
    mark_x: float | None = None,
    reach: tuple[float, float] = (-math.inf, math.inf),
) -> str:
    """Points with whiskers, the Pareto front joined; names where there is room, those of the front first.

    Lines go across at `marks` and up at `mark_x`. Points beyond `reach`, the
    ends of the axis up, are arrows at its edge.

    Returns
    -------
    "" when no point is finite.
    """
    shown = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
    if not shown:
        return ""
    right = WIDTH - 16
    xs = [v for p in shown for v in (p.x, p.x_low, p.x_high) if math.isfinite(v)]
    ys = [min(max(v, reach[0]), reach[1]) for p in shown for v in (p.y, p.y_low, p.y_high) if math.isfinite(v)]
    across, scale = Scale(xs, LEFT, right, log=True), Scale(ys, HEIGHT - BOTTOM, TOP, log=log_y)

    def up(value: float) -> float:
        return scale(min(max(value, reach[0]), reach[1]))

    parts = [_open("chart", title), *_axes(across, scale, right, x_label, y_label)]
    parts += _marks(marks, scale, right)
    if mark_x is not None and across.has(mark_x):
        x = across(mark_x)
        parts.append(f'<path class="mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    front = sorted((p for p in shown if p.front), key=lambda p: p.x)
    parts.append(f'<path class="front" d="{_path([(across(p.x), up(p.y)) for p in front])}"/>')
    for p in shown:
        x, y = across(p.x), up(p.y)
        bars = ""
        if math.isfinite(p.x_low):
            bars += f"M{across(p.x_low):.1f} {y:.1f}H{across(p.x_high):.1f}"
        if math.isfinite(p.y_low):
            bars += f"M{x:.1f} {up(p.y_low):.1f}V{up(p.y_high):.1f}"
        parts.append(f'<path class="bar {p.kind}" d="{bars}"/>' if bars else "")
        radius = 4.5 if p.front or p.kind == "reference" else 3.2
        name = f"<title>{escape(p.name)}</title>"
        if reach[0] <= p.y <= reach[1]:
            parts.append(f'<circle class="dot {p.kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{name}</circle>')
        else:
            way = 7 if p.y < reach[0] else -7
            parts.append(f'<path class="dot {p.kind}" d="M{x:.1f} {y + way / 2:.1f}l-4 {-way}h8z">{name}</path>')
    named = [_label_box(m, scale) for m in marks if m.label and scale.has(m.value)]
    parts += _point_labels([(across(p.x), up(p.y), p) for p in shown], right, named)
    return "".join(parts) + "</svg>"


def whisker(value: float, low: float, high: float, extent: float) -> str:
    """A difference and its interval on a common axis from -extent to +extent; an arrow for what lies outside."""
    if not math.isfinite(value) or not extent > 0:
        return ""
    middle = WHISKER_WIDTH / 2

    def px(v: float) -> float:
        return middle + max(-1.0, min(1.0, v / extent)) * (middle - 6)

    parts = ""
    if math.isfinite(low) and px(high) - px(low) > 0.5:
        parts += f'<path class="bar" d="M{px(low):.0f} 9H{px(high):.0f}"/>'
    if abs(value) > extent:
        x, way = (WHISKER_WIDTH - 1, -7) if value > 0 else (1, 7)
        parts += f'<path class="off" d="M{x} 9l{way} -4v8z"/>'
    else:
        parts += f'<circle cx="{px(value):.0f}" cy="9" r="3"/>'
    size = f'viewBox="0 0 {WHISKER_WIDTH} {WHISKER_HEIGHT}"'
    return f'<svg class="whisker" {size} aria-hidden="true"><path class="zero" d="M{middle:.0f} 0V18"/>{parts}</svg>'


def whisker_axis(extent: float, labels: tuple[str, str, str] | None = None) -> str:
    """The common axis of a column of whiskers: zero and both ends, labelled with their values unless with `labels`."""
    if not extent > 0:
        return ""
    middle, label = WHISKER_WIDTH / 2, tick_text(extent)
    low, zero, high = labels or (f"{MINUS}{label}", "0", f"+{label}")
    return (
        f'<svg class="whisker scale" viewBox="0 0 {WHISKER_WIDTH} {WHISKER_HEIGHT}" role="img" '
        f'aria-label="axis from {low} to {high}">'
        f'<path class="zero" d="M{middle:.0f} 12V18M6 12V16M{WHISKER_WIDTH - 6} 12V16M6 12H{WHISKER_WIDTH - 6}"/>'
        f'<text x="0" y="9">{low}</text><text x="{middle:.0f}" y="9" text-anchor="middle">{zero}</text>'
        f'<text x="{WHISKER_WIDTH}" y="9" text-anchor="end">{high}</text></svg>'
    )


def extent(bounds: Sequence[float]) -> float:
    """End of a common axis for differences: a 1-2-5 number, so that a few extreme ones don't flatten the rest.

    Twice the median holds most; the largest where that is smaller.

    Parameters
    ----------
    bounds : largest absolute value of each difference and its interval; those
        that are not finite don't count.
    """
    known = sorted(b for b in bounds if math.isfinite(b) and b > 0)
    if not known:
        return 0.0
    wanted = min(known[-1], 2 * known[len(known) // 2])
    power = 10.0 ** math.floor(math.log10(wanted))
    return float(f"{next(m * power for m in (1, 2, 5, 10) if m * power >= wanted * (1 - 1e-9)):.10g}")


# ---------------------------------------------------------------- parts


def _open(kind: str, title: str) -> str:
    return f'<svg class="{kind}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'


def _axes(across: Scale, up: Scale, right: float, x_label: str, y_label: str) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = [f'<text class="axis" x="0" y="15">{escape(y_label)}</text>']
    for tick in up.ticks:
        y = up(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick_text(tick)}</text>')
    for tick in across.ticks:
        x = across(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{tick_text(tick)}</text>')
    parts.append(f'<path class="base" d="M{LEFT} {bottom}H{right}"/>')
    parts.append(f'<text class="axis" x="{right}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    return parts


def _marks(marks: Sequence[Mark], up: Scale, right: float) -> list[str]:
    parts = []
    for mark in marks:
        if up.has(mark.value):
            y = up(mark.value)
            parts.append(f'<path class="mark" d="M{LEFT} {y:.1f}H{right}"/>')
            if mark.label:
                parts.append(f'<text class="tick" x="{LEFT + 6}" y="{y - 4:.1f}">{escape(mark.label)}</text>')
    return parts


def _known(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]


def _band(s: Series, xs: Sequence[float], up: Scale) -> str:
    if not len(s.low):
        return ""
    rim = _known(xs, up.all(s.high)) + _known(xs, up.all(s.low))[::-1]
    return f'<path class="band {s.kind}" d="{_path(rim)}Z"/>' if len(rim) > 2 else ""


def _end_labels(ends: Sequence[tuple[tuple[float, float], Series]], right: float) -> list[str]:
    """Names beside the ends of the lines, moved apart, each joined to its line."""
    ordered = sorted(ends, key=lambda e: (e[0][1], e[1].name))
    places = spread([point[1] for point, _ in ordered], LABEL_STEP, TOP, HEIGHT - BOTTOM)
    parts = []
    for ((x, y), s), place in zip(ordered, places, strict=True):
        parts.append(f'<path class="lead {s.kind}" d="M{x:.1f} {y:.1f}L{right + 8} {place:.1f}"/>')
        name = s.name if len(s.name) <= 15 else s.name[:14] + "…"
        parts.append(f'<text class="end {s.kind}" x="{right + 11}" y="{place + 4:.1f}">{escape(name)}</text>')
    return parts


def spread(places: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Increasing places moved as little as needed to stand `step` apart in [low, high], closer without room."""
    n = len(places)
    step = min(step, (high - low) / max(n - 1, 1))
    groups: list[list[float]] = []  # [sum of wanted starts, count]
    for i, place in enumerate(places):
        groups.append([place - i * step, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, size = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += size
    starts = [g[0] / g[1] for g in groups for _ in range(int(g[1]))]
    last = high - (n - 1) * step
    return [min(max(start, low), max(last, low)) + i * step for i, start in enumerate(starts)]


def _label_box(mark: Mark, up: Scale) -> Box:
    """Where `_marks` writes a line's label."""
    y = up(mark.value) - 4
    return LEFT + 6, y - 10, LEFT + 6 + CHARACTER * len(mark.label), y + 2


def _point_labels(points: Sequence[tuple[float, float, Point]], right: float, named: Sequence[Box]) -> list[str]:
    """Names of points where they cover no other name, and of those off the front no other point either.

    `named` are the places of the names that are there already.
    """
    dots = [(x - 4, y - 4, x + 4, y + 4) for x, y, _ in points]
    taken: list[Box] = [*named]
    parts = []
    for x, y, p in sorted(points, key=lambda q: (not q[2].front, q[2].kind != "reference", q[0], q[2].name)):
        width = CHARACTER * len(p.name)
        for left, base in ((x + 7, y + 4), (x - 7 - width, y + 4), (x - width / 2, y - 9), (x - width / 2, y + 17)):
            box = (left, base - 10, left + width, base + 2)
            inside = left >= LEFT and box[2] <= right and box[1] >= TOP - 8 and base <= HEIGHT - BOTTOM
            others = [] if p.front else [d for d in dots if not (d[0] <= x <= d[2] and d[1] <= y <= d[3])]
            if inside and not any(_overlap(box, other) for other in (*taken, *others)):
                taken.append(box)
                parts.append(f'<text class="name {p.kind}" x="{left:.1f}" y="{base:.1f}">{escape(p.name)}</text>')
                break
    return parts


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""
