"""The facts an entry states about itself: frozen, literal, importable without torch.

A task's or method's decorator holds only these and plain Python literals, so
that the registry reads them from the source text without running it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FAMILIES = ("vision", "language", "pde", "rlvr")


@dataclass(frozen=True)
class Paper:
    """Where a method, task or formula comes from."""

    title: str
    arxiv: str = ""
    url: str = ""
    year: int | None = None

    @property
    def link(self) -> str:
        return self.url or (f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else "")


@dataclass(frozen=True)
class Metric:
    """A task's primary statistic.

    Attributes
    ----------
    name : key in the metrics that the task's ``score`` returns.
    unit : what one unit of it is ("nats", "log10", "share").
    direction : "min" or "max".
    floor : best possible value where one is known, else None.
    chance : value of an untrained or guessing model, where one is known.
    """

    name: str
    unit: str
    direction: str
    floor: float | None = None
    chance: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max"):
            raise ValueError(f"direction must be 'min' or 'max', got {self.direction!r}")

    @property
    def sign(self) -> int:
        """+1 when lower is better: multiply a difference by it and + means worse."""
        return 1 if self.direction == "min" else -1


@dataclass(frozen=True)
class Tier:
    """One size of a task.

    Attributes
    ----------
    budget : what every method gets, in the task's budget unit.
    evals : evaluations on the validation split during a run (uncharged).
    sizes : the task's own sizes at this tier (examples, batch, grid).
    limit : wall-clock limit of one run, seconds.
    """

    budget: int
    evals: int = 20
    sizes: Mapping[str, Any] = field(default_factory=dict)
    limit: float = 600.0


@dataclass(frozen=True)
class Noise:
    """The task's noise at one tier, measured on the reference recipe.

    Attributes
    ----------
    sd : standard deviation of the primary metric over seeds.
    floor : differences below this are never called a regression, and no effect is stated in a smaller unit.
    n : number of seeds behind `sd`.
    per_doubling : what the last doubling of the budget was worth in the metric, + is
        better; None where it is not measured.
    """

    sd: float
    floor: float = 0.0
    n: int = 0
    per_doubling: float | None = None

    @property
    def margin(self) -> float:
        """Largest difference that the luck of a seed explains: `sd`, or `floor` where that is larger."""
        return max(self.sd, self.floor)

    def detectable(self, seeds: int) -> float:
        """Smallest difference that so many paired seeds show with 80% power at 5%, two-sided.

        The two methods' seeds are taken as independent: pairing makes it smaller.
        """
        from suite.stats.power import minimum_detectable_effect

        return minimum_detectable_effect(seeds, 2**0.5 * self.sd) if self.sd > 0 else 0.0


FACTS: dict[str, type] = {c.__name__: c for c in (Paper, Metric, Tier, Noise)}
