"""Averages whose weight falls as a power of time, and their corrections for the lag (arXiv 2508.00180).

With t the number of updates of the model, beta = max((rho + gamma t)^-kappa, beta_min)
moves the average, a <- a + beta (w - a), once every period after the burn-in. The
corrections extrapolate, so they touch the parameters only: buffers (a variance must
stay positive) get the plain average.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from baselines.averaging.shadow import Shadow, ShadowAverager, periods
from suite import Paper, Uniform, averaging

PAPER = Paper("EMA Without the Lag: Bias-Corrected Iterate Averaging Schemes", arxiv="2508.00180", year=2025)
SPACE = {"ema_power": Uniform(0.2, 0.9), "burn_in": Uniform(0.0, 0.8)}
CORRECTED_SPACE = {**SPACE, "bias_power": Uniform(0.1, 1.0)}


class PowerAverage(ShadowAverager):
    """Average with a power-law weight from a snapshot at the end of the burn-in.

    Until the burn-in is over, evaluation sees the last iterate. A subclass says
    what the average follows (`target`) and what is evaluated (`estimate`).

    Parameters
    ----------
    ema_power : kappa.
    lag, rate, floor : rho, gamma and beta_min.
    burn_in : share of the budget before the snapshot.
    every : share of the budget from one move of the average to the next.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        ema_power: float,
        lag: float,
        rate: float,
        floor: float,
        burn_in: float,
        every: float,
    ) -> None:
        super().__init__(model)
        self.ema_power, self.lag, self.rate, self.floor = ema_power, lag, rate, floor
        self.burn_in, self.every = burn_in, every
        self.shadows = {name: Shadow(self.live()) for name in ("start", "average", "evaluated")}
        self.started = burn_in == 0
        self.updates = 0
        self.done = 0

    def time(self) -> float:
        """rho + gamma t."""
        return self.lag + self.rate * self.updates

    def target(self, live: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What the average moves towards."""
        return live

    def estimate(self, live: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What evaluation uses, of the parameters; the average has just moved."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, step: float, total: float) -> None:
        self.updates += 1
        ended = periods(step, total, self.every)
        if not self.started and step >= self.burn_in * total:
            self._start(ended)
        elif self.started and ended > self.done:
            self.done = ended
            live = self.live()
            self.shadows["average"].lerp(self.target(live), max(self.time() ** -self.ema_power, self.floor))
            self.shadows["evaluated"].copy({**self.shadows["average"].tensors, **self.estimate(live)})

    def _start(self, ended: int) -> None:
        self.started, self.done = True, ended
        live = self.live()
        for shadow in self.shadows.values():
            shadow.copy(live)

    def parts(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """The parameters among `tensors`, in a fixed order."""
        return [tensors[name] for name in self.parameters()]

    def parameters(self) -> list[str]:
        """Names of the parameters that are averaged."""
        return [name for name in self.shadows["start"].tensors if name in self.trained]

    def named(self, values: list[Tensor] | tuple[Tensor, ...]) -> dict[str, Tensor]:
        """`values` in the order of `parts`, by name."""
        return dict(zip(self.parameters(), values, strict=True))

    def weights(self) -> dict[str, Tensor] | None:
        return self.shadows["evaluated"].tensors if self.started else None

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"started": int(self.started), "updates": self.updates, "done": self.done}
        for name, shadow in self.shadows.items():
            state |= shadow.save(name)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.started, self.updates, self.done = bool(state["started"]), state["updates"], state["done"]
        for name, shadow in self.shadows.items():
            shadow.load(state, name)


@averaging(
    "bema",
    paper=PAPER,
    defaults={
        "ema_power": 0.5,
        "bias_power": 0.2,
        "lag": 10.0,
        "rate": 1.0,
        "floor": 0.0,
        "burn_in": 0.5,
        "every": 0.01,
    },
    space=CORRECTED_SPACE,
    confidence="verified",
)
class Bema(PowerAverage):
    """Bias-corrected EMA: evaluate a + (rho + gamma t)^-eta (w - w_0), with w_0 the weights after the burn-in.

    The published burn-in is 0, for fine-tuning from a good start. From random
    weights that extrapolates along the whole path, so the default snapshot is at
    half of the budget. The published period of 400 steps is a share of the budget
    here.

    Parameters
    ----------
    bias_power : eta; the others are `PowerAverage`'s.
    """

    def __init__(self, model: nn.Module, *, bias_power: float, **power: Any) -> None:
        super().__init__(model, **power)
        self.bias_power = bias_power

    def estimate(self, live: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        travel = torch._foreach_sub(self.parts(live), self.parts(self.shadows["start"].tensors))
        torch._foreach_mul_(travel, self.time() ** -self.bias_power)
        return self.named(torch._foreach_add(travel, self.parts(self.shadows["average"].tensors)))


@averaging(
    "ouema",
    paper=PAPER,
    defaults={
        "ema_power": 0.5,
        "bias_power": 0.2,
        "lag": 1.0,
        "rate": 1.0,
        "floor": 1e-4,
        "burn_in": 0.5,
        "every": 0.01,
    },
    space=CORRECTED_SPACE,
    system="bema",
    confidence="verified",
)
class OuEma(PowerAverage):
    """EMA of de-biased iterates: the average follows (w - s w_0)/(1 - s) with s = (rho + gamma t)^-eta.

    Parameters
    ----------
    bias_power : eta; the others are `PowerAverage`'s.
    """

    def __init__(self, model: nn.Module, *, bias_power: float, **power: Any) -> None:
        super().__init__(model, **power)
        self.bias_power = bias_power

    def target(self, live: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        s = self.time() ** -self.bias_power
        debiased = torch._foreach_sub(self.parts(live), self.parts(self.shadows["start"].tensors), alpha=s)
        return {**live, **self.named(torch._foreach_div(debiased, 1.0 - s))}

    def estimate(self, live: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self.shadows["average"].tensors


@averaging(
    "double-ema",
    paper=PAPER,
    defaults={"ema_power": 0.5, "lag": 10.0, "rate": 1.0, "floor": 1e-4, "burn_in": 0.5, "every": 0.01},
    space=SPACE,
    system="bema",
    confidence="verified",
)
class DoubleEma(PowerAverage):
    """Double EMA: evaluate 2 a - EMA(a), the second average with the same weight as the first."""

    def __init__(self, model: nn.Module, **power: Any) -> None:
        super().__init__(model, **power)
        self.shadows["second"] = Shadow(self.live())

    def estimate(self, live: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        first, second = self.shadows["average"].tensors, self.shadows["second"]
        second.lerp(first, max(self.time() ** -self.ema_power, self.floor))
        doubled = torch._foreach_mul(self.parts(first), 2.0)
        return self.named(torch._foreach_sub(doubled, self.parts(second.tensors)))
