"""Charts as small SVG text: themed by the page's CSS, deterministic, no library at view time.

A general plotting library takes a tenth of a second and tens of kilobytes a
chart; a board has hundreds. These are the few shapes that it needs.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 34


class Series(NamedTuple):
    """One line of a chart.

    Attributes
    ----------
    name : legend text.
    x, y : points.
    low, high : band around the line, or empty.
    kind : CSS class: "a", "b", ... or "reference".
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    kind: str = "a"


def line_chart(series: Sequence[Series], x_label: str, y_label: str, title: str, log_y: bool = False) -> str:
    """Lines with bands, axes with ticks and a legend, as an ``<svg>`` element.

    Points that are not finite are left out; `log_y` needs positive values and
    is ignored where there are others.
    """
    lows = [v for s in series for v in (*s.y, *s.low) if math.isfinite(v)]
    highs = [v for s in series for v in (*s.y, *s.high) if math.isfinite(v)]
    xs = [v for s in series for v in s.x]
    if not lows or not xs:
        return ""
    log_y = log_y and min(lows) > 0
    y_low, y_high = _range(min(lows), max(highs), log_y)
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1

    def px(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        value = math.log10(max(y, 10**y_low)) if log_y else y
        return TOP + (y_high - value) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]
    for tick in _ticks(y_low, y_high):
        label = f"1e{tick:g}" if log_y else f"{tick:g}"
        y = py(10**tick if log_y else tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick in _ticks(x_low, x_high):
        place = f'x="{px(tick):.1f}" y="{HEIGHT - BOTTOM + 16}"'
        parts.append(f'<text class="tick" {place} text-anchor="middle">{_short(tick)}</text>')
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{escape(x_label)}</text>')
    parts.append(f'<text class="axis" x="{LEFT + 4}" y="{TOP + 9}">{escape(y_label)}</text>')
    for s in series:
        points = [(px(x), py(y)) for x, y in zip(s.x, s.y, strict=True) if math.isfinite(y)]
        if s.low:
            rim = [(px(x), py(v)) for x, v in zip(s.x, s.high, strict=True) if math.isfinite(v)]
            rim += [(px(x), py(v)) for x, v in list(zip(s.x, s.low, strict=True))[::-1] if math.isfinite(v)]
            parts.append(f'<path class="band {s.kind}" d="{_path(rim)}Z"/>' if rim else "")
        parts.append(f'<path class="line {s.kind}" d="{_path(points)}"><title>{escape(s.name)}</title></path>')
    parts.append("</svg>")
    legend = "".join(f'<span class="key {s.kind}">{escape(s.name)}</span>' for s in series)
    return "".join(parts) + f'<div class="legend">{legend}</div>'


def whisker(value: float, low: float, high: float, scale: float, kind: str) -> str:
    """A difference with its interval on a common axis from -scale to +scale, zero in the middle."""
    if not math.isfinite(value) or scale <= 0:
        return ""
    width, middle = 120, 60

    def px(v: float) -> float:
        return middle + max(-1.0, min(1.0, v / scale)) * (middle - 4)

    bar = ""
    if math.isfinite(low):
        bar = f'<path class="bar" d="M{px(low):.1f} 8H{px(high):.1f}"/>'
    label = escape(f"{value:+.3g} [{low:+.3g}, {high:+.3g}]")
    return (
        f'<svg class="whisker {kind}" viewBox="0 0 {width} 16" role="img" aria-label="{label}">'
        f'<path class="zero" d="M{middle} 1V15"/>{bar}<circle cx="{px(value):.1f}" cy="8" r="3.2"/></svg>'
    )


def heat_map(values: Sequence[Sequence[float]], low: float, high: float) -> str:
    """A matrix as a PNG data address, viridis-like from `low` to `high`; rows top to bottom."""
    grid = np.asarray(values, dtype=float)
    share = np.clip((grid - low) / (high - low if high > low else 1.0), 0, 1)
    anchors = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], dtype=float)
    place = np.nan_to_num(share) * (len(anchors) - 1)
    below = np.clip(place.astype(int), 0, len(anchors) - 2)
    mix = (place - below)[..., None]
    pixels = (anchors[below] * (1 - mix) + anchors[below + 1] * mix).astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    size = struct.pack(">IIBBBBB", grid.shape[1], grid.shape[0], 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + _chunk(b"IDAT", zlib.compress(raw, 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(image).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def _range(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        low, high = math.log10(low), math.log10(high)
    margin = 0.04 * (high - low) or max(abs(low), 1.0) * 0.05
    return low - margin, high + margin


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= min((1, 2, 5, 10), key=lambda m: abs((high - low) / (m * step) - count))
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
