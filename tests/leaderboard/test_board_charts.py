"""Charts, maps, numbers and docstrings as the pages print them."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
import struct
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_board_model import rows_of, table

from leaderboard.charts import (
    Mark,
    Point,
    Scale,
    Series,
    extent,
    line_chart,
    linear_ticks,
    log_ticks,
    scatter,
    spread,
    tick_text,
    whisker,
    whisker_axis,
)  # fmt: skip
from leaderboard.figures import cost_quality, learning_curves, pareto
from leaderboard.maps import LEVELS, SEQUENTIAL, palette, pde_maps, png, profile
from leaderboard.model import build
from leaderboard.prose import inline, scripts, typeset
from leaderboard.text import (
    bounds_text,
    command,
    factor,
    fixed,
    gain_text,
    listing,
    number,
    score_text,
    seed_words,
    slot_words,
    tie_text,
)  # fmt: skip
from suite.registry import registry
from suite.slots import SLOTS
from suite.stats import Interval

NAN = math.nan


def chart_of(source: str) -> ET.Element:
    return ET.fromstring(source[: source.index("</svg>") + 6])


def ticks_of(chart: ET.Element, anchor: str) -> list[str]:
    return [str(t.text) for t in chart.findall("text") if t.get("class") == "tick" and t.get("text-anchor") == anchor]


# ---------------------------------------------------------------- axes


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0.3, 1.1, [0.3, 0.5, 0.7, 1.0]), (0.02, 2.3, [0.03, 0.1, 0.3, 1]), (0.8, 1.3, [0.8, 0.9, 1, 1.1, 1.2, 1.3]), (1e-6, 1, [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1])],
)  # fmt: skip
def test_log_ticks_are_plain_numbers_that_people_count_in(low: float, high: float, wanted: list[float]) -> None:
    assert log_ticks(math.log10(low), math.log10(high)) == wanted


@given(st.floats(-8, 8), st.floats(1e-3, 12))
def test_log_ticks_lie_on_the_axis_and_are_neither_too_few_nor_too_many(low: float, length: float) -> None:
    ticks = log_ticks(low, low + length)
    assert 2 <= len(ticks) <= 12
    assert all(10**low * (1 - 1e-6) <= t <= 10 ** (low + length) * (1 + 1e-6) for t in ticks)
    assert ticks == sorted(set(ticks))


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_linear_ticks_lie_on_the_axis(low: float, length: float) -> None:
    ticks = linear_ticks(low, low + length)
    assert 2 <= len(ticks) <= 12
    assert all(low - 1e-6 * length <= t <= low + length * (1 + 1e-6) for t in ticks)


@pytest.mark.parametrize(
    ("value", "text"), [(0.3, "0.3"), (1.0, "1"), (-0.05, "−0.05"), (1000, "1k"), (1500, "1500"), (20000, "20k"), (1.5e6, "1.5M"), (3e6, "3M"), (1e-7, "1e−07")]
)  # fmt: skip
def test_ticks_are_written_without_powers_where_it_can_be(value: float, text: str) -> None:
    assert tick_text(value) == text


def test_a_chart_of_seconds_starts_at_zero() -> None:
    series = [Series("golu", [3.0, 4.0, 5.0], [0.5, 0.4, 0.3])]
    chart = chart_of(line_chart(series, "training seconds", "loss", "t"))
    assert ticks_of(chart, "middle")[0] == "0"


def test_a_log_axis_is_used_only_where_every_value_is_positive() -> None:
    assert Scale([0.1, 1.0], 0, 1, log=True).log
    assert not Scale([0.0, 1.0], 0, 1, log=True).log


def test_the_label_of_the_vertical_axis_stands_above_the_plot() -> None:
    chart = chart_of(line_chart([Series("a", [0, 1], [1, 2])], "steps", "cross-entropy (nats)", "t"))
    label = next(t for t in chart.findall("text") if t.text == "cross-entropy (nats)")
    drawn = [float(y) for path in chart.findall("path") for y in re.findall(r"M[\d.]+ ([\d.]+)", str(path.get("d")))]
    assert float(str(label.get("y"))) < min(drawn)


def test_every_line_is_named_beside_its_end_and_in_the_legend() -> None:
    names = ["reference", "golu", "mish"]
    source = line_chart([Series(n, [0, 1], [1, 1 + 0.001 * i]) for i, n in enumerate(names)], "steps", "loss", "t")
    ends = [t for t in chart_of(source).findall("text") if t.get("class", "").startswith("end")]
    assert sorted(str(t.text) for t in ends) == sorted(names)
    heights = sorted(float(str(t.get("y"))) for t in ends)
    assert min(np.diff(heights)) >= 13
    assert all(f">{n}</span>" in source for n in names)


def test_values_that_are_no_numbers_are_left_out_of_a_line() -> None:
    source = line_chart([Series("a", [0, 1, 2], [1.0, NAN, 3.0])], "steps", "loss", "t")
    assert "nan" not in source
    assert line_chart([Series("a", [0, 1], [NAN, NAN])], "steps", "loss", "t") == ""
    assert line_chart([Series("a", [NAN, 1], [1.0, NAN])], "steps", "loss", "t") == ""


def test_a_mark_is_drawn_and_named_where_it_lies_on_the_axis() -> None:
    series = [Series("a", [0, 1], [0.1, 1.0])]
    assert "best possible" in line_chart(series, "x", "y", "t", marks=[Mark(0.5, "best possible")])
    assert "best possible" not in line_chart(series, "x", "y", "t", log_y=True, marks=[Mark(0.0, "best possible")])


def test_names_in_charts_are_escaped() -> None:
    source = line_chart([Series("<b>", [0, 1], [1, 2]), Series("&", [0, 1], [1, 3])], "<x>", "<y>", '"<t>"')
    assert "<b>" not in source
    ET.fromstring(source[: source.index("</svg>") + 6])


@given(st.lists(st.floats(0, 250), min_size=1, max_size=12).map(sorted))
def test_labels_are_moved_apart_inside_the_chart_and_keep_their_order(places: list[float]) -> None:
    moved = spread(places, 14, 0, 250)
    assert moved == sorted(moved)
    assert moved[0] >= -1e-6
    assert moved[-1] <= 250 + 1e-6
    assert all(b - a >= 14 - 1e-6 for a, b in itertools.pairwise(moved))


def test_places_that_are_apart_already_stay() -> None:
    assert spread([10, 100, 200], 14, 0, 250) == pytest.approx([10, 100, 200])


# ---------------------------------------------------------------- whiskers and scatter


def test_a_whisker_has_zero_in_the_middle_and_its_value_to_scale() -> None:
    drawn = ET.fromstring(whisker(0.5, 0.25, 0.75, 1.0))
    zero, bar = (path.get("d") for path in drawn.findall("path"))
    circle = drawn.find("circle")
    assert zero == "M52 0V18"
    assert bar == "M64 9H86"
    assert circle is not None
    assert circle.get("cx") == "75"


@pytest.mark.parametrize(("value", "start"), [(3.0, "M103"), (-3.0, "M1 ")])
def test_a_difference_beyond_the_axis_is_an_arrow_at_its_end(value: float, start: str) -> None:
    drawn = whisker(value, value - 0.1, value + 0.1, 1.0)
    assert f'<path class="off" d="{start}' in drawn
    assert "<circle" not in drawn


def test_the_axis_of_whiskers_names_both_ends_and_zero() -> None:
    texts = [t.text for t in ET.fromstring(whisker_axis(0.05)).findall("text")]
    assert texts == ["−0.05", "0", "+0.05"]


def test_one_extreme_difference_does_not_flatten_the_others() -> None:
    assert extent([0.01, 0.02, 0.03, 0.05, 9.0]) == 0.1
    assert extent([0.4]) == 0.5
    assert extent([]) == extent([NAN, 0.0]) == 0.0


def test_the_pareto_front_holds_what_nothing_beats_on_both() -> None:
    points = [(1.0, 1.0), (2.0, 0.5), (2.0, 0.6), (0.5, 3.0), (3.0, 3.0), (1.0, 1.0)]
    assert pareto(points) == [True, True, False, True, False, True]


def test_names_in_a_scatter_plot_cover_neither_each_other_nor_another_point() -> None:
    points = [Point(f"method-{i}", 1.0 + 0.001 * i, 1.0, NAN, NAN, NAN, NAN, front=i == 0) for i in range(40)]
    source = scatter([*points, Point("far", 2.0, 2.0, 1.9, 2.1, 1.5, 2.5)], "cost", "loss", "t", True, mark_x=1.0)
    names = [t for t in chart_of(source).findall("text") if t.get("class", "").startswith("name")]
    boxes = [(float(str(t.get("x"))), float(str(t.get("y"))), 6.6 * len(str(t.text))) for t in names]
    assert {"method-0", "far"} <= {t.text for t in names}
    for i, (x, y, w) in enumerate(boxes):
        for u, v, z in boxes[:i]:
            assert x + w <= u or u + z <= x or abs(y - v) >= 12


def test_a_point_beyond_the_reach_of_a_scatter_plot_is_an_arrow_at_its_edge() -> None:
    points = [
        Point("near", 1.0, 1.0, NAN, NAN, 0.5, 1.5),
        Point("high", 2.0, 1e9, NAN, NAN, -1e9, 3e9),
        Point("low", 3.0, -1e9, NAN, NAN, NAN, NAN),
    ]
    marks = [Mark(2.0, "chance"), Mark(1.0, "")]
    chart = chart_of(scatter(points, "cost", "loss", "t", False, marks, reach=(0.0, 2.0)))
    assert [dot.findtext("title") for dot in chart.findall("circle")] == ["near"]
    arrows = {str(p.findtext("title")): str(p.get("d")) for p in chart.findall("path") if p.findtext("title")}
    tips = {name: float(re.match(r"M\S+ (\S+)l-4 (-?7)h8z", d)[1]) for name, d in arrows.items()}  # type: ignore[index]
    (dot,) = (float(str(c.get("cy"))) for c in chart.findall("circle"))
    assert tips["high"] < dot < tips["low"]
    ticks = [t.text for t in chart.findall("text") if t.get("class") == "tick"]
    assert "chance" in ticks
    assert "" not in ticks
    assert not any("M" in str(t) for t in ticks)  # no millions on the axis


def test_a_cost_chart_reaches_as_far_as_the_differences_to_the_reference() -> None:
    rows = [
        *rows_of("toy", "reference", [1.0, 1.1, 1.2], cost_ratio=1.0),
        *rows_of("toy", "golu", [0.9, 1.0, 1.1], cost_ratio=1.2),
        *rows_of("toy", "mish", [1.2, 1.3, 1.4], cost_ratio=1.1),
        *rows_of("toy", "silu", [1e9, 2e9, 3e9], cost_ratio=1.1),
    ]
    (sheet,) = build(table(rows)).sheets.values()
    figure = cost_quality(sheet)
    assert figure is not None
    assert figure.caption.endswith(" Arrows stand for scores beyond the axis.")
    assert [dot.findtext("title") for dot in chart_of(figure.chart).findall("circle")] == ["golu", "mish", "reference"]


def test_seconds_of_several_machines_are_never_in_one_chart_or_mean() -> None:
    other = {"environment": json.dumps({"device": "cpu", "hardware": "another", "threads": 1, "python": "3.11"})}
    both = rows_of("toy", "golu", [0.9, 1.0, 1.1], cost_ratio=None)
    slow = {"train_seconds": 1e6, "curve": [p | {"seconds": 1e6 * p["seconds"]} for p in both[0]["curve"]]}
    both[1] |= other | slow
    rows = [
        *rows_of("toy", "reference", [1.0, 1.1, 1.2], cost_ratio=None),
        *both,
        *rows_of("toy", "mish", [1.2, 1.3, 1.4], cost_ratio=None, **other, **slow),
        *rows_of(
            "toy", "silu", [1.3, 1.4, 1.5], cost_ratio=None, environment=both[0]["environment"][:-1] + ', "a": 1}'
        ),
    ]
    board = build(table(rows))
    (sheet,) = board.sheets.values()
    golu, mish, silu = (sheet.cells[name] for name in ("golu", "mish", "silu"))
    assert (sheet.of_machine(golu).seconds, sheet.of_machine(mish), sheet.of_machine(silu).seconds) == (3.0, None, 3.0)
    assert (golu.n, golu.score.value, sheet.of_machine(golu).score.value) == (3, 1.0, 1.0)
    assert math.isnan(golu.seconds)
    assert (mish.seconds, sheet.cells["reference"].seconds) == (1e6, 3.0)
    spent, seconds = learning_curves(board, sheet)
    left = " Runs on other machines than most of the reference's are left out; all of mish."
    assert "left out" not in spent.caption
    assert seconds.caption.endswith(left)
    labels = [{t.text for t in chart_of(f.chart).findall("text")} for f in (spent, seconds)]
    assert labels[0] >= {"golu", "mish", "silu", "reference"}
    assert labels[1] >= {"golu", "silu", "reference"}
    assert "mish" not in labels[1]
    figure = cost_quality(sheet)
    assert figure is not None
    dots = [dot.findtext("title") for dot in chart_of(figure.chart).findall("circle")]
    assert sorted(str(d).split(":")[0] for d in dots) == ["golu", "reference", "silu"]
    assert figure.caption.endswith(left)


# ---------------------------------------------------------------- maps


def pixels(address: str) -> np.ndarray:
    """Palette indices of one of our PNG data addresses."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    chunks, place = {}, 8
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        assert struct.unpack(">I", data[place + 8 + size : place + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind], place = body, place + 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(height, width + 1)
    return raw[:, 1:]


def test_a_map_is_a_valid_png_with_its_values_along_the_colours() -> None:
    found = pixels(png(np.array([[0.0, 0.5, 1.0], [2.0, -1.0, NAN]]), 0.0, 1.0, SEQUENTIAL))
    assert found.tolist() == [[0, 64, LEVELS - 1], [LEVELS - 1, 0, LEVELS]]
    assert len(palette(SEQUENTIAL)) == 3 * (LEVELS + 1)


def test_a_large_map_needs_several_stored_blocks() -> None:
    grid = np.linspace(0, 1, 300 * 300).reshape(300, 300)
    assert pixels(png(grid, 0.0, 1.0, SEQUENTIAL)).shape == (300, 300)


def test_maps_have_the_first_axis_upwards_and_one_scale_for_solution_and_prediction() -> None:
    shown = {"axes": ["x", "t"], "lows": [0, 0], "highs": [1, 2], "solution": [[0.0, 0.0], [1.0, 1.0]]}
    shown |= {"prediction": [[0.0, 2.0], [0.0, 0.0]], "error": [[0.0, 2.0], [-1.0, -1.0]]}
    solution, prediction, error = pde_maps(shown, ("solution", "prediction", "error"))
    images = [re.findall(r'href="([^"]+)"', m.svg) for m in (solution, prediction, error)]
    assert pixels(images[0][0]).tolist() == [[64, 64], [0, 0]]  # the second row of x on top; 1 of 0 to 2
    assert pixels(images[1][0]).tolist() == [[0, 0], [0, LEVELS - 1]]
    assert ">2<" in solution.svg
    assert ">−2<" in error.svg


def test_a_solution_of_one_coordinate_is_a_curve() -> None:
    found = profile({"solution": [[0.0], [1.0]], "prediction": [[0.1], [0.9]], "lows": [0], "highs": [3]})
    assert found == ([0.0, 3.0], [0.0, 1.0], [0.1, 0.9])


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("interval", "score", "gain", "bounds"),
    [
        (Interval(0.30031, 0.2739, 0.32671, 3, "t"), "0.300", "+0.300", "+0.274 to +0.327"),
        (Interval(-1.5, -2.25, -0.75, 3, "t"), "−1.50", "−1.50", "−2.25 to −0.75"),
        (Interval(0.25, NAN, NAN, 1, "none"), "0.25", "+0.25", "one seed"),
        (Interval(0.0, 0.0, 0.0, 3, "t"), "0", "0", "0 to 0"),
        (Interval(12345.6, 12000.0, 12691.2, 3, "t"), "12346", "+12346", "+12000 to +12691"),
    ],
)
def test_numbers_have_the_digits_that_their_interval_supports(
    interval: Interval, score: str, gain: str, bounds: str
) -> None:
    assert (score_text(interval), gain_text(interval), bounds_text(interval, sign=True)) == (score, gain, bounds)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (NAN, "–"), (1.0, "1"), (-0.5, "−0.5"), (123456.0, "123456"), (1e-9, "1e−09"), (0.00012, "0.00012")]
)  # fmt: skip
def test_plain_numbers_have_a_real_minus_and_no_powers_where_it_can_be(value: float | None, text: str) -> None:
    assert number(value) == text


def test_small_texts() -> None:
    assert [factor(x) for x in (1.0, 0.876, 12.34, NAN)] == ["1.00×", "0.88×", "12.3×", "–"]
    assert fixed(-0.0004, 2) == "0.00"
    assert fixed(-1.09e-6, None, sign=True) == "−1.09e−06"
    assert fixed(2.5e-7, None, sign=True) == "+2.5e−07"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing(map(str, range(20)), 3) == "0, 1 and 18 more"
    assert [seed_words(s) for s in ([0, 1, 2], [4], [0, 2])] == ["3", "4,", "0,2"]
    assert command(["levelfield", "run", "--tasks", "a b; rm"]) == "levelfield run --tasks 'a b; rm'"


def test_ties_are_letters_while_they_can_be_read_and_then_a_count() -> None:
    assert tie_text("abc", (1, 1, 4)) == "abc"
    assert tie_text("abcdefghi", (3, 2, 40)) == "with 38 others"
    assert tie_text("a2b2c2d2e2f2g2h2", (3, 2, 40)) == "a2b2c2d2e2f2g2h2"
    assert tie_text("", (1, 1, 2)) == "with 1 other"
    assert tie_text("", None) == ""


def test_every_slot_has_a_sentence_for_readers() -> None:
    for slot in SLOTS:
        words = slot_words(slot)
        assert words.sentence.endswith(".")
        assert not re.search(r"`|module|factory|dim |torch|->", words.sentence)
    assert slot_words("activation+norm").title == "Combinations"


# ---------------------------------------------------------------- docstrings


def test_sections_lists_code_and_blocks_are_typeset() -> None:
    doc = "Lead.\n\nMore `code` and\nthe rest.\n\n- one\n- two\n  lines\n\n    x = 1\n\nParameters\n----------\nlr, eps : step\n    size.\n"
    assert typeset(doc) == (
        "<p>Lead.</p><p>More <code>code</code> and the rest.</p><ul><li>one</li><li>two lines</li></ul><pre>x = 1</pre>"
        '<h3>Parameters</h3><dl class="terms"><dt><code>lr, eps</code></dt><dd>step size.</dd></dl>'
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Gompertz linear unit, x exp(-exp(-x)).", 'Gompertz linear unit, <span class="math">x exp(−exp(−x))</span>.'),
        ("so w ← w(1 − ηλ); then", 'so <span class="math">w ← w(1 − ηλ)</span>; then'),
        ("x_i and x^2", '<span class="math">x<sub>i</sub></span> and <span class="math">x<sup>2</sup></span>'),
        ("ReLU, max(0, x).", 'ReLU, <span class="math">max(0, x)</span>.'),
    ],
)
def test_formulas_in_running_text_are_set_as_formulas(text: str, wanted: str) -> None:
    assert inline(text) == wanted


@pytest.mark.parametrize(
    "text", ["A model of a kind.", "I take a step.", "One draw a step.", "low-rank or in-place work", "the train/test split"]
)  # fmt: skip
def test_ordinary_words_are_no_formulas(text: str) -> None:
    assert inline(text) == text


def test_names_with_underscores_have_no_subscripts() -> None:
    assert scripts("inner_rate") == "inner_rate"


@given(st.text(max_size=200))
def test_no_docstring_becomes_markup(doc: str) -> None:
    allowed = r"</?(?:p|h3|dl|dt|dd|ul|li|pre|code|sub|sup|span)(?: class=\"(?:terms|math)\")?>"
    assert "<" not in re.sub(allowed, "", typeset(doc))


def test_no_word_of_a_registered_docstring_is_lost() -> None:
    for method in registry().methods.values():
        plain = re.sub(r"<[^>]+>", " ", str(typeset(method.doc)))
        for word in re.findall(r"[A-Za-z]{4,}", method.doc):
            assert word in plain, (method.name, word)
