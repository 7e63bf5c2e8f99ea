"""Maps of functions of two variables as small images with their axes and colour bar."""

from __future__ import annotations

import base64
import functools
import struct
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from leaderboard.text import number

LEVELS = 128  # colours of a map; one more index stands for values that are no number
SIDE, LEFT, TOP, WIDTH, HEIGHT = 200, 40, 6, 312, 226

# anchors of viridis (Smith and van der Walt 2015) and of a blue-white-red scale for signed errors
SEQUENTIAL = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
DIVERGING = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
NOT_A_NUMBER = (160, 160, 160)


class Map(NamedTuple):
    """A drawn map: ``<svg>`` text and a caption."""

    svg: str
    caption: str


def pde_maps(shown: Mapping[str, Any], parts: Sequence[str]) -> list[Map]:
    """The maps of one stored exhibit, the solution and the prediction on one colour scale.

    Parameters
    ----------
    shown : "solution", "prediction" and "error" as nested lists (first axis,
        second axis) with None where there is no number, with "axes", "lows",
        "highs" of the two axes and the "function" shown.
    parts : which of them.
    """
    grids = {part: _grid(shown[part]) for part in ("solution", "prediction", "error") if part in shown}
    common = [g[np.isfinite(g)] for part, g in grids.items() if part != "error"]
    values = np.concatenate(common) if common else np.empty(0)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    function = str(shown.get("function", "u"))
    found = []
    for part in parts:
        if part not in grids or grids[part].shape[1] < 2:
            continue
        grid = grids[part]
        if part == "error":
            known = np.abs(grid[np.isfinite(grid)])
            reach = float(known.max()) if known.size else 1.0
            found.append(Map(draw(grid, -reach, reach, DIVERGING, shown, part), f"{function}: prediction − solution"))
        else:
            found.append(Map(draw(grid, low, high, SEQUENTIAL, shown, part), f"{function}: {part}"))
    return found


def profile(shown: Mapping[str, Any]) -> tuple[list[float], list[float], list[float]] | None:
    """x, solution and prediction of an exhibit over one coordinate; None where there are two."""
    if "solution" not in shown or "prediction" not in shown:
        return None
    truth, guess = _grid(shown["solution"]), _grid(shown["prediction"])
    if truth.shape[1] != 1:
        return None
    lows, highs = shown.get("lows") or [0.0], shown.get("highs") or [1.0]
    x = np.linspace(float(lows[0]), float(highs[0]), len(truth))
    return x.tolist(), truth[:, 0].tolist(), guess[:, 0].tolist()


def draw(
    grid: npt.NDArray[np.float64],
    low: float,
    high: float,
    colours: Sequence[tuple[int, int, int]],
    facts: Mapping[str, Any],
    part: str,
) -> str:
    """A grid (first axis, second axis) with the first axis upwards, the second to the right, and a colour bar."""
    names = [escape(str(n)) for n in facts.get("axes") or ("first", "second")]
    lows, highs = facts.get("lows") or (0, 0), facts.get("highs") or (1, 1)
    right, bottom, text = (
        LEFT + SIDE,
        TOP + SIDE,
        '<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>',
    )
    labels = [
        (LEFT - 5, bottom, "end", number(float(lows[0]), 3)),
        (LEFT - 5, TOP + 10, "end", number(float(highs[0]), 3)),
        (LEFT - 5, TOP + SIDE / 2 + 4, "end", names[0]),
        (LEFT, bottom + 15, "start", number(float(lows[1]), 3)),
        (right, bottom + 15, "end", number(float(highs[1]), 3)),
        (LEFT + SIDE / 2, bottom + 15, "middle", names[1]),
        (right + 26, TOP + 10, "start", number(high, 2)),
        (right + 26, bottom, "start", number(low, 2)),
    ]
    image = '<image x="{}" y="{}" width="{}" height="{}" preserveAspectRatio="none" href="{}"/>'
    return (
        f'<svg class="map" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(part)}, '
        f'{number(low, 2)} to {number(high, 2)}">'
        + image.format(LEFT, TOP, SIDE, SIDE, png(grid[::-1], low, high, colours))
        + image.format(right + 10, TOP, 12, SIDE, colour_bar(tuple(colours), high > low))
        + "".join(text.format(f"{x:g}", f"{y:g}", anchor, label) for x, y, anchor, label in labels)
        + "</svg>"
    )


@functools.lru_cache(maxsize=4)
def colour_bar(colours: tuple[tuple[int, int, int], ...], several: bool) -> str:
    """The colours from the highest value down to the lowest, or the lowest's where the map has one value only."""
    return png(np.linspace(1.0 if several else 0.0, 0.0, 64)[:, None], 0.0, 1.0, colours)


def png(values: npt.NDArray[np.float64], low: float, high: float, colours: Sequence[tuple[int, int, int]]) -> str:
    """A matrix as a PNG data address, `low` to `high` along the colours; grey where a value is no number.

    The image is stored without compression, so that its bytes don't depend on the zlib at hand.
    """
    with np.errstate(invalid="ignore"):
        share = np.clip((values - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    index = np.where(np.isfinite(values), np.rint(np.nan_to_num(share) * (LEVELS - 1)), LEVELS).astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in index)
    size = struct.pack(">IIBBBBB", index.shape[1], index.shape[0], 8, 3, 0, 0, 0)
    body = _chunk(b"IHDR", size) + _chunk(b"PLTE", palette(tuple(colours))) + _chunk(b"IDAT", _stored(raw))
    return _address(body)


@functools.lru_cache(maxsize=4)
def palette(colours: tuple[tuple[int, int, int], ...]) -> bytes:
    """`LEVELS` colours along the anchors, then the one of missing values."""
    anchors = np.array(colours, dtype=np.float64)
    place = np.linspace(0, len(anchors) - 1, LEVELS)
    mixed = np.stack([np.interp(place, np.arange(len(anchors)), anchors[:, c]) for c in range(3)], axis=1)
    return np.rint(mixed).astype(np.uint8).tobytes() + bytes(NOT_A_NUMBER)


def picture(pixels: npt.NDArray[np.uint8]) -> str:
    """(height, width, channels) pixels, grey (1) or colour (3), as a PNG data address."""
    height, width, channels = pixels.shape
    raw = b"".join(b"\0" + np.ascontiguousarray(row).tobytes() for row in pixels)
    size = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return _address(_chunk(b"IHDR", size) + _chunk(b"IDAT", _stored(raw)))


def _address(body: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body + _chunk(b"IEND", b"")).decode()


def _stored(raw: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1950 and 1951)."""
    blocks = [raw[i : i + 65535] for i in range(0, len(raw), 65535)] or [b""]
    out = b"\x78\x01"
    for i, block in enumerate(blocks):
        out += struct.pack("<BHH", i == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
    return out + struct.pack(">I", zlib.adler32(raw))


def _grid(values: Any) -> npt.NDArray[np.float64]:
    grid = np.array(values, dtype=np.float64)  # None becomes nan
    if grid.ndim != 2:
        raise ValueError(f"a map is a table of numbers, got shape {grid.shape}")
    return grid


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
