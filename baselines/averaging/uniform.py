from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from baselines.averaging.shadow import Shadow, ShadowAverager
from suite import IntUniform, Paper, Uniform, averaging

SWA = Paper("Averaging Weights Leads to Wider Optima and Better Generalization", arxiv="1803.05407", year=2018)
POLYAK = Paper(
    "Acceleration of Stochastic Approximation by Averaging", url="https://doi.org/10.1137/0330046", year=1992
)


@averaging(
    "swa",
    paper=SWA,
    defaults={"start": 0.75, "stride": 5},
    space={"start": Uniform(0.3, 0.95), "stride": IntUniform(1, 50)},
    confidence="known",
)
@averaging(
    "tail-average",
    paper=POLYAK,
    defaults={"start": 0.75, "stride": 1},
    space={"start": Uniform(0.3, 0.95)},
    confidence="known",
)
@averaging("average-from-start", paper=POLYAK, defaults={"start": 0.0, "stride": 1}, confidence="known")
class UniformAverage(ShadowAverager):
    """Uniform mean of the weights over the last part of the budget.

    The first update that ends at or after `start` gives the first sample, every
    `stride`-th after it another. Before that, evaluation sees the last iterate.
    Buffers of normalisation layers are averaged with the parameters; they are not
    estimated again on the data.

    Parameters
    ----------
    start : share of the budget; 0 averages all iterates.
    stride : updates from one sample to the next.
    """

    def __init__(self, model: nn.Module, *, start: float, stride: int) -> None:
        super().__init__(model)
        self.start = start
        self.stride = stride
        self.average = Shadow(self.live())
        self.updates = 0
        self.samples = 0

    def update(self, step: float, total: float) -> None:
        if step < self.start * total:
            return
        if self.updates % self.stride == 0:
            self.samples += 1
            self.average.lerp(self.live(), 1.0 / self.samples)
        self.updates += 1

    def weights(self) -> dict[str, Tensor] | None:
        return self.average.tensors if self.samples else None

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "samples": self.samples, **self.average.save("average")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.samples = state["updates"], state["samples"]
        self.average.load(state, "average")
