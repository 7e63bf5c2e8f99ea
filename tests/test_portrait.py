"""Portraits of activations: right where they are pointwise, none where not, and never in a run's way."""

from __future__ import annotations

import math

import pytest

import suite
from suite.portrait import LOW, POINTS, activation_portrait


def test_a_portrait_holds_values_and_derivatives() -> None:
    shown = activation_portrait(suite.method("softplus"))
    assert shown is not None
    assert (len(shown["x"]), shown["x"][0]) == (POINTS, LOW)
    for x, y, dy in zip(shown["x"], shown["y"], shown["dy"], strict=True):
        assert y == pytest.approx(math.log1p(math.exp(x)), rel=1e-4)
        assert dy == pytest.approx(1 / (1 + math.exp(-x)), rel=1e-4)


@pytest.mark.parametrize("name", ["maxmin", "groupsort", "householder", "st", "reinmax", "maxout", "crelu"])
def test_what_mixes_channels_or_changes_their_number_has_none(name: str) -> None:
    assert activation_portrait(suite.method(name)) is None


@pytest.mark.parametrize("method", suite.methods("activation"), ids=lambda m: m.name)
def test_every_activation_has_a_portrait_or_none(method: suite.Method) -> None:
    """A run draws one at its end: an activation that it fails on would fail after training."""
    shown = activation_portrait(method)
    assert shown is None or len(shown["y"]) == len(shown["dy"]) == POINTS
