from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from baselines.schedule.warmup import warmup_factor
from suite import Paper, Uniform, gradient
from suite.train.step import Closure, Stepper

WIDTH = 0.1  # of the median filter, as a share of the pilot


@gradient(
    "refined-schedule",
    paper=Paper(
        "When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement", arxiv="2310.07831", year=2023
    ),
    defaults={"pilot": 0.5, "warmup": 0.05},
    space={"pilot": Uniform(0.1, 0.8), "warmup": Uniform(0.0, 0.2)},
    families=("vision", "language", "pde"),
    system="linear-decay",
    confidence="verified",
)
class RefinedSchedule(Stepper):
    """A pilot run on linear decay, then the run from the start on a schedule made of the pilot's gradient norms.

    Both are within the budget. The rate of the second part is proportional to w_t times the sum
    of the later w_p, with w = G^-2 and Euclidean norms G for torch's SGD, w = 1/G and sums
    of absolute values for all other optimizers, after a median filter of a tenth of the
    pilot's length; its largest value is the optimizer's own rate. It takes the place of the recipe's
    schedule. Weights and the optimizer's state start anew; running statistics of norms do not.

    Parameters
    ----------
    pilot : share of the budget that the pilot takes.
    warmup : share of the pilot over which its rate rises.
    """

    def __init__(self, optimizer: Optimizer, *, pilot: float, warmup: float) -> None:
        super().__init__(optimizer)
        self.pilot, self.warmup = pilot, warmup
        self.share = 0.0
        self.order = 2 if isinstance(optimizer, torch.optim.SGD) else 1
        self.tensors: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self.start = [p.detach().clone() for p in self.tensors]
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.fresh = self.settings()
        self.norms: list[float] = []
        self.schedule = np.empty(0)

    def settings(self) -> list[dict[str, Any]]:
        """Copies of what the optimizer's groups hold beside their parameters."""
        groups = self.optimizer.param_groups
        return [copy.deepcopy({k: v for k, v in group.items() if k != "params"}) for group in groups]

    def set_horizon(self, total: float) -> None:
        """Note the optimizer's settings once it knows the budget; they come back at the restart."""
        self.fresh = self.settings()

    def set_progress(self, share: float) -> None:
        """Share of the budget used."""
        self.share = share

    def step(self, closure: Closure) -> Tensor:
        if self.share >= self.pilot and not len(self.schedule) and self.norms:
            self.restart()
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.multiplier()
        self.seen: float | None = None
        loss = super().step(closure)
        if not len(self.schedule) and self.seen is not None:
            self.norms.append(self.seen)
        return loss

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        if self.seen is None and not len(self.schedule):
            norms = [torch.linalg.vector_norm(p.grad, self.order) for p in self.parameters() if p.grad is not None]
            self.seen = float(torch.linalg.vector_norm(torch.stack(norms), self.order)) if norms else None
        return loss

    def multiplier(self) -> float:
        """Of the optimizer's rate, now."""
        if not len(self.schedule):
            place = min(1.0, self.share / self.pilot)
            return warmup_factor(place, 1.0, self.warmup) * (1.0 - place)
        place = (self.share - self.pilot) / (1.0 - self.pilot)
        return float(self.schedule[min(len(self.schedule) - 1, int(place * len(self.schedule)))])

    @torch.no_grad()
    def restart(self) -> None:
        """Make the schedule; put the weights and the optimizer back to where they started."""
        self.schedule = refined(np.array(self.norms), self.order)
        torch._foreach_copy_(self.tensors, self.start)
        self.optimizer.state.clear()
        for group, fresh in zip(self.optimizer.param_groups, self.fresh, strict=True):
            group.update(fresh)

    def state_dict(self) -> dict[str, Any]:
        made = {"norms": torch.tensor(self.norms, dtype=torch.float64), "schedule": torch.from_numpy(self.schedule)}
        return {**made, **{f"start.{i}": tensor for i, tensor in enumerate(self.start)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.norms = state["norms"].tolist()
        self.schedule = state["schedule"].numpy().copy()
        for i, tensor in enumerate(self.start):
            tensor.copy_(state[f"start.{i}"])


def refined(norms: np.ndarray, order: int) -> np.ndarray:
    """Multipliers (n,) of a run whose gradients have the `norms` (n,): largest 1, last 0.

    Parameters
    ----------
    norms : gradient norms of the pilot's steps.
    order : 2 for Euclidean norms of SGD, 1 for sums of absolute values of Adam-like methods.
    """
    from scipy.ndimage import median_filter

    count = len(norms)
    if count < 2:
        return np.ones(count)
    width = 2 * (int(WIDTH * count) // 2) + 1
    padded = np.pad(norms, (0, 2 * width), mode="reflect")
    smooth = median_filter(padded, size=width, mode="nearest")[:count]
    weights = np.maximum(smooth, np.finfo(float).tiny ** 0.2) ** -float(order)
    later = np.append(np.cumsum(weights[::-1])[::-1][1:], 0.0)
    rates = weights * later
    return rates / rates.max()
