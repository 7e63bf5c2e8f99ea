from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.averaging.shadow import Shadow, ShadowAverager, periods
from suite import IntUniform, LogUniform, Paper, averaging


@averaging(
    "lawa",
    paper=Paper(
        "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging",
        arxiv="2209.14981",
        year=2022,
    ),
    defaults={"snapshots": 6, "every": 0.01},
    space={"snapshots": IntUniform(2, 12), "every": LogUniform(0.005, 0.1)},
    families=("language", "vision"),
    confidence="known",
)
class LatestAverage(ShadowAverager):
    """Latest weight averaging: uniform mean of the last k snapshots.

    A snapshot is taken at the end of each period (the paper's epoch is a share of
    the budget here). Before the first, evaluation sees the last iterate.

    Parameters
    ----------
    snapshots : k.
    every : share of the budget from one snapshot to the next.
    """

    def __init__(self, model: nn.Module, *, snapshots: int, every: float) -> None:
        super().__init__(model)
        self.every = every
        self.ring = [Shadow(self.live()) for _ in range(snapshots)]
        self.taken = 0
        self.done = 0

    def update(self, step: float, total: float) -> None:
        if (ended := periods(step, total, self.every)) > self.done:
            self.ring[self.taken % len(self.ring)].copy(self.live())
            self.taken += 1
            self.done = ended

    def weights(self) -> dict[str, Tensor] | None:
        if not self.taken:
            return None
        filled = self.ring[: self.taken]
        return {name: torch.stack([s.tensors[name] for s in filled]).mean(dim=0) for name in filled[0].tensors}

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"taken": self.taken, "done": self.done}
        for i, snapshot in enumerate(self.ring):
            state |= snapshot.save(f"ring.{i}")
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken, self.done = state["taken"], state["done"]
        for i, snapshot in enumerate(self.ring):
            snapshot.load(state, f"ring.{i}")
