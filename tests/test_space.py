"""Hyper-parameter spaces: every point of the unit interval is a value of the space, and values are what they say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.space import Choice, Domain, IntUniform, LogUniform, Uniform, describe

UNIT = st.floats(0.0, 1.0)
POSITIVE = st.floats(1e-12, 1e12)
WHOLE = st.integers(-1000, 1000)


@given(a=POSITIVE, b=POSITIVE, u=UNIT)
def test_every_point_of_the_unit_interval_gives_a_value_of_the_space(a: float, b: float, u: float) -> None:
    low, high = sorted((a, b))
    assert Uniform(-low, high).at(u) in Uniform(-low, high)
    if low < high:
        assert LogUniform(low, high).at(u) in LogUniform(low, high)
    assert Choice(low, "x", None).at(u) in Choice(low, "x", None)


@given(a=WHOLE, b=WHOLE, u=UNIT)
def test_whole_numbers_stay_whole_and_inside(a: int, b: int, u: float) -> None:
    domain = IntUniform(min(a, b), max(a, b))
    assert isinstance(domain.at(u), int)
    assert domain.at(u) in domain


@given(u=UNIT, v=UNIT)
def test_larger_points_give_larger_values(u: float, v: float) -> None:
    u, v = sorted((u, v))
    for domain in (Uniform(-1.0, 2.0), LogUniform(1e-5, 10.0), IntUniform(0, 7)):
        assert domain.at(u) <= domain.at(v)


def test_the_ends_and_the_middle_are_where_they_should_be() -> None:
    assert (Uniform(-1.0, 3.0).at(0.0), Uniform(-1.0, 3.0).at(0.5), Uniform(-1.0, 3.0).at(1.0)) == (-1.0, 1.0, 3.0)
    assert LogUniform(1e-4, 1e-2).at(0.5) == pytest.approx(1e-3)
    assert [LogUniform(1e-4, 1e-2).at(u) for u in (0.0, 1.0)] == pytest.approx([1e-4, 1e-2])


@pytest.mark.parametrize(("domain", "values"), [(IntUniform(3, 6), [3, 4, 5, 6]), (Choice("a", "b"), ["a", "b"])])
def test_equal_parts_of_the_interval_give_each_value_equally_often(domain: Domain, values: list[object]) -> None:
    n = 12 * len(values)
    drawn = [domain.at((i + 0.5) / n) for i in range(n)]
    assert [drawn.count(value) for value in values] == [12] * len(values)


@pytest.mark.parametrize(
    ("domain", "outside"),
    [
        (Uniform(0.0, 1.0), [-0.1, 1.1, math.nan, math.inf, "0.5", None, True]),
        (LogUniform(0.1, 1.0), [0.0, -0.5, 2.0, math.nan, "1", None, True]),
        (IntUniform(0, 3), [-1, 4, 1.0, "1", None, True]),
        (Choice("a", 1), ["b", 2, None, ("a",)]),
    ],
)
def test_what_is_no_value_is_outside(domain: Domain, outside: list[object]) -> None:
    assert [value for value in outside if value in domain] == []


def test_a_listed_pair_is_a_choice_however_it_is_written() -> None:
    assert (0.9, 0.99) in Choice((0.9, 0.99), (0.9, 0.999))
    assert [0.9, 0.999] in Choice((0.9, 0.99), (0.9, 0.999))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, 1.0)])
def test_a_logarithmic_space_needs_positive_ends_in_order(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="0 < low < high"):
        LogUniform(low, high)


def test_a_learning_rate_space_moves_with_the_tasks_scale() -> None:
    assert LogUniform(1e-4, 1e-1).scaled(0.5) == LogUniform(5e-5, 5e-2)


def test_spaces_are_described_in_a_few_words() -> None:
    found = [describe(d) for d in (LogUniform(1e-5, 1), Uniform(0, 0.5), IntUniform(1, 8), Choice("a", 2))]
    assert found == ["1e-05 to 1, log", "0 to 0.5", "1 to 8, whole", "a | 2"]
