from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from baselines.averaging.shadow import Shadow, ShadowAverager, periods
from suite import IntUniform, Paper, Uniform, averaging


@averaging(
    "swa-window",
    paper=Paper(
        "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", arxiv="2405.18392", year=2024
    ),
    defaults={"window": 0.05, "stride": 5},
    space={"window": Uniform(0.01, 0.25), "stride": IntUniform(1, 10)},
    families=("language", "vision"),
    confidence="verified",
)
class WindowAverage(ShadowAverager):
    """Uniform mean of the weights inside a window; evaluation sees the last complete window's.

    The first update of each stride is sampled, and a window's end starts the next.
    Before the first window is complete, evaluation sees the last iterate. The stride
    is the published one; the published window of 500 steps is a share of the budget
    here.

    Parameters
    ----------
    window : share of the budget.
    stride : updates from one sample to the next.
    """

    def __init__(self, model: nn.Module, *, window: float, stride: int) -> None:
        super().__init__(model)
        self.window = window
        self.stride = stride
        self.running = Shadow(self.live())
        self.complete = Shadow(self.live())
        self.updates = 0
        self.windows = 0

    def update(self, step: float, total: float) -> None:
        if self.updates % self.stride == 0:
            self.running.lerp(self.live(), 1.0 / (self.updates // self.stride + 1))
        self.updates += 1
        if (ended := periods(step, total, self.window)) > self.windows:
            self.complete.copy(self.running.tensors)
            self.windows, self.updates = ended, 0

    def weights(self) -> dict[str, Tensor] | None:
        return self.complete.tensors if self.windows else None

    def state_dict(self) -> dict[str, Any]:
        counts = {"updates": self.updates, "windows": self.windows}
        return {**counts, **self.running.save("running"), **self.complete.save("complete")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.windows = state["updates"], state["windows"]
        self.running.load(state, "running")
        self.complete.load(state, "complete")
