"""Typed hyper-parameter spaces: a default and where to search, beside the method.

Every domain maps the unit interval onto its values, so one shared
low-discrepancy sequence gives every method the same trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Uniform:
    """Real numbers from `low` to `high`, equally likely."""

    low: float
    high: float

    def at(self, u: float) -> float:
        return min(self.high, self.low + u * (self.high - self.low))

    def __contains__(self, value: Any) -> bool:
        return _is_real(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class LogUniform:
    """Positive real numbers from `low` to `high`, equally likely per decade."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"LogUniform needs 0 < low < high, got {self.low}, {self.high}")

    def at(self, u: float) -> float:
        value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        return min(self.high, max(self.low, value))

    def scaled(self, factor: float) -> LogUniform:
        """The same space moved by `factor` (a task's learning-rate scale)."""
        return LogUniform(self.low * factor, self.high * factor)

    def __contains__(self, value: Any) -> bool:
        return _is_real(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class IntUniform:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    def at(self, u: float) -> int:
        return min(self.high, self.low + int(u * (self.high - self.low + 1)))

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int) and _is_real(value) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of the listed values."""

    options: tuple[Any, ...]

    def __init__(self, *options: Any) -> None:
        object.__setattr__(self, "options", tuple(options))

    def at(self, u: float) -> Any:
        return self.options[min(len(self.options) - 1, int(u * len(self.options)))]

    def __contains__(self, value: Any) -> bool:
        return any(_plain(value) == _plain(option) for option in self.options)


Domain = Uniform | LogUniform | IntUniform | Choice
Space = Mapping[str, Domain]


def describe(domain: Domain) -> str:
    """A domain in a few words, for tables and pages."""
    match domain:
        case LogUniform(low, high):
            return f"{low:g} to {high:g}, log"
        case Uniform(low, high):
            return f"{low:g} to {high:g}"
        case IntUniform(low, high):
            return f"{low} to {high}, whole"
        case Choice():
            return " | ".join(map(str, domain.options))


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
