"""Schedules against closed forms written out here, and the contract of every registered one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

import suite

TOTAL = 1000.0
STEPS = (0, 1, 7.5, 49, 50, 51, 249.5, 250, 300, 449, 450, 475, 500, 501, 750, 799, 800, 850, 900, 950, 999, 1000)
NAMES = [m.name for m in suite.methods("schedule")]


def ramp(t: float, length: float) -> float:
    """1 % at the start, 100 % at `length`."""
    return 1.0 if t >= length else 0.01 + 0.99 * t / length


def tail(t: float, length: float, shape: Callable[[float], float]) -> float:
    return 1.0 if t <= TOTAL - length else shape((t - TOTAL + length) / length)


def stages(t: float) -> float:
    """WSD-S with stage ends 250, 500, 1000, decays of a tenth of each stage to 0.1."""
    for begin, end in ((0, 250), (250, 500), (500, 1000)):
        if t < end or end == 1000:
            start = end - (end - begin) / 10
            return 1.0 if t <= start else 1 / (1 + 9 * (t - start) / (end - start))
    raise AssertionError


def one_cycle(t: float) -> float:
    if t < 300:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * t / 300)) / 2
    return 4e-6 + (1 - 4e-6) * (1 + math.cos(math.pi * (t - 300) / 700)) / 2


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


CLOSED_FORMS: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "cosine": lambda t: ramp(t, 50) * (1 + math.cos(math.pi * max(0, t - 50) / 950)) / 2,
    "cyclic-cosine": lambda t: ramp(t, 50) * (1 + math.cos(math.pi * cycle_phase(max(0, t - 50)))) / 2,
    "linear-decay": lambda t: 1 - t / 1000,
    "linear": lambda t: ramp(t, 50) if t < 50 else (1000 - t) / 950,
    "exponential": lambda t: ramp(t, 50) * 0.01 ** (max(0, t - 50) / 950),
    "inverse-sqrt": lambda t: ramp(t, 50) if t < 50 else math.sqrt(50 / t),
    "step-decay": lambda t: 1.0 if t < 500 else 0.1 if t < 750 else 0.01,
    "one-cycle": one_cycle,
    "wsd": lambda t: ramp(t, 50) * tail(t, 200, lambda u: 1 - u),
    "wsd-linear": lambda t: ramp(t, 50) * min(1.0, (1000 - t) / 200),
    "wsd-cosine": lambda t: ramp(t, 50) * tail(t, 200, lambda u: math.cos(math.pi * u / 2) ** 2),
    "wsd-mirror-cosine": lambda t: ramp(t, 50) * tail(t, 200, lambda u: 2 * (1 - u) - math.cos(math.pi * u / 2) ** 2),
    "wsd-square": lambda t: ramp(t, 50) * tail(t, 200, lambda u: (1 - u) * (1 + u)),
    "wsd-sqrt": lambda t: ramp(t, 50) * tail(t, 200, lambda u: 1 - u**0.5),
    "wsd-exp": lambda t: ramp(t, 50) * tail(t, 200, lambda u: math.exp(u * math.log(0.01))),
    "wsd-inv": lambda t: ramp(t, 50) * tail(t, 100, lambda u: 1 / (u / 0.1 + 1 - u)),
    "wsd-s": lambda t: ramp(t, 50) * stages(t),
    "sigmoid-lr": lambda t: logistic(0.5 * (t / 10 - 10)) - logistic(0.05 * (t / 10 - 100)),
}

END_VALUES = {
    "constant": 1.0,
    "inverse-sqrt": math.sqrt(0.05),
    "step-decay": 0.01,
    "exponential": 0.01,
    "one-cycle": 4e-6,
    "wsd-exp": 0.01,
    "wsd-inv": 0.1,
    "wsd-s": 0.1,
    "sigmoid-lr": logistic(45) - 0.5,
}


def cycle_phase(after: float) -> float:
    """Phase of four equal cycles over 950; the end belongs to the last cycle."""
    return after / 237.5 - min(3, after // 237.5)


def test_every_registered_schedule_has_a_closed_form() -> None:
    assert set(CLOSED_FORMS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_schedule_follows_its_closed_form(name: str) -> None:
    multiplier = suite.method(name).make()
    for step in STEPS:
        assert multiplier(step, TOTAL) == pytest.approx(CLOSED_FORMS[name](step), rel=1e-12, abs=1e-14), step


@pytest.mark.parametrize("name", NAMES)
def test_schedule_depends_on_the_share_of_the_budget_only(name: str) -> None:
    multiplier = suite.method(name).make()
    for step in STEPS:
        assert multiplier(step * 65.536, TOTAL * 65.536) == pytest.approx(multiplier(step, TOTAL), abs=1e-9), step


@pytest.mark.parametrize("name", NAMES)
def test_schedule_ends_at_its_final_value(name: str) -> None:
    assert suite.method(name).make()(TOTAL, TOTAL) == pytest.approx(END_VALUES.get(name, 0.0), abs=1e-15)


@pytest.mark.parametrize("total", [1, 3, 10_000, 12_345.6])
@pytest.mark.parametrize("name", NAMES)
def test_multiplier_is_a_finite_float_in_the_unit_interval(name: str, total: float) -> None:
    multiplier = suite.method(name).make()
    for i in range(401):
        value = multiplier(total * i / 400, total)
        assert type(value) is float
        assert 0.0 <= value <= 1.0 + 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_step_past_the_budget_keeps_the_multiplier_in_the_unit_interval(name: str) -> None:
    assert 0.0 <= suite.method(name).make()(1.07 * TOTAL, TOTAL) <= 1.0


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"sigmoid-lr"}))
def test_first_update_of_a_run_moves_the_weights(name: str) -> None:
    assert suite.method(name).make()(0, 10_000) > 0


def test_sigmoid_starts_at_exactly_zero() -> None:
    assert suite.method("sigmoid-lr").make()(0, 100) == 0.0


# The warm-up of these two is part of their shape, not a free share of the budget.
OWN_WARMUP = ("inverse-sqrt", "sigmoid-lr")


@pytest.mark.parametrize(
    "name", [m.name for m in suite.methods("schedule") if "warmup" in m.space and m.name not in OWN_WARMUP]
)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
def test_warmup_ends_at_the_peak_and_no_warmup_starts_there(name: str, share: float) -> None:
    multiplier = suite.method(name).make()
    assert multiplier(share * TOTAL, TOTAL, warmup=share) == 1.0
    assert multiplier(0, TOTAL, warmup=share) == (1.0 if share == 0 else pytest.approx(0.01))


@pytest.mark.parametrize("name", [m.name for m in suite.methods("schedule") if "floor" in m.space])
def test_floor_is_the_multiplier_at_the_end(name: str) -> None:
    assert suite.method(name).make(floor=0.125)(TOTAL, TOTAL) == pytest.approx(0.125, rel=1e-12)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("wsd")])
def test_cooldown_falls_monotonically_from_the_peak(name: str) -> None:
    multiplier = suite.method(name).make()
    values = [multiplier(t, TOTAL) for t in range(800, 1001)]
    assert values[0] == pytest.approx(1.0)
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))


def test_wsd_without_cooldown_stays_at_the_peak() -> None:
    assert suite.method("wsd").make()(TOTAL, TOTAL, cooldown=0.0) == 1.0


def test_linear_without_warmup_is_linear_decay() -> None:
    linear, decay = suite.method("linear").make(warmup=0.0), suite.method("linear-decay").make()
    assert [linear(t, TOTAL) for t in STEPS] == pytest.approx([decay(t, TOTAL) for t in STEPS], abs=1e-15)


def test_cyclic_cosine_restarts_at_the_peak() -> None:
    multiplier = suite.method("cyclic-cosine").make(warmup=0.0, cycles=2)
    assert multiplier(499.999, TOTAL) == pytest.approx(0.0, abs=1e-6)
    assert multiplier(500, TOTAL) == 1.0


def test_wsd_s_returns_to_the_peak_after_each_stage() -> None:
    multiplier = suite.method("wsd-s").make()
    for end in (250, 500):
        assert multiplier(end - 1e-9, TOTAL) == pytest.approx(0.1, rel=1e-6)
        assert multiplier(end, TOTAL) == 1.0
