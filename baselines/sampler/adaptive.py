"""Residual-based adaptive sampling: points drawn from, or chosen out of, a dense set of candidates."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from suite.train.pinn import Domain, Sampler


class AdaptiveSampler(Sampler):
    """Changes its points every `period` steps by the residual on `dense` times as many fresh candidates.

    The residual on the candidates is charged to the budget (see `Sampler.magnitude`).

    Parameters
    ----------
    domain, count, generator : as for every sampler.
    period : steps between changes.
    dense : candidates, in multiples of `count`.
    """

    def __init__(self, domain: Domain, count: int, generator: torch.Generator, *, period: int, dense: int) -> None:
        super().__init__(domain, count, generator)
        self.period, self.dense = period, dense
        self.held = self.fresh(self.first())
        self.steps = 0

    def first(self) -> int:
        """Number of points at the start."""
        return self.count

    @abstractmethod
    def change(self, candidates: Tensor, magnitude: Tensor) -> Tensor:
        """The new points, from candidates (m, d) and their |residual| (m,)."""

    def points(self) -> Tensor:
        if self.steps and self.steps % self.period == 0 and self.wants_change():
            candidates = self.fresh(self.dense * self.count)
            self.held = self.change(candidates, self.magnitude(candidates).to(candidates.device))
        self.steps += 1
        return self.held

    def wants_change(self) -> bool:
        """Whether there is anything left to change."""
        return True

    def drawn(self, candidates: Tensor, magnitude: Tensor, count: int, power: float, offset: float) -> Tensor:
        """`count` candidates without replacement, with probability proportional to r^power / mean(r^power) + offset.

        Where the residual is no finite number or zero everywhere, all candidates are equally likely.
        """
        raised = magnitude.double() ** power
        density = raised / raised.mean() + offset
        if not bool(torch.isfinite(density).all()):
            density = torch.ones_like(density)
        floor = density.sum() * 1e-12  # enough candidates of positive probability to draw from
        index = torch.multinomial(density + floor, count, generator=self.generator)
        return candidates[index]


class GrowingSampler(AdaptiveSampler):
    """Starts with a share of the points and adds others until there are `count`.

    Parameters
    ----------
    start : share of `count` at the start.
    add : share of `count` added at each change.
    """

    def __init__(
        self,
        domain: Domain,
        count: int,
        generator: torch.Generator,
        *,
        start: float,
        add: float,
        period: int,
        dense: int,
    ) -> None:
        self.start, self.add = start, add
        super().__init__(domain, count, generator, period=period, dense=dense)

    def first(self) -> int:
        return max(1, round(self.start * self.count))

    def wants_change(self) -> bool:
        return len(self.held) < self.count

    def change(self, candidates: Tensor, magnitude: Tensor) -> Tensor:
        room = min(max(1, round(self.add * self.count)), self.count - len(self.held))
        return torch.cat([self.held, self.added(candidates, magnitude, room)])

    @abstractmethod
    def added(self, candidates: Tensor, magnitude: Tensor, count: int) -> Tensor:
        """`count` of the candidates."""
