from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from baselines.averaging.shadow import Shadow, ShadowAverager
from suite import LogUniform, Paper, Uniform, averaging


class ExponentialAverage(ShadowAverager):
    """a <- d a + (1 - d) w after every update, from a copy of the initial weights; d by `decay_at`.

    Parameters
    ----------
    decay : d.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        super().__init__(model)
        self.decay = decay
        self.average = Shadow(self.live())
        self.updates = 0

    def decay_at(self, update: int) -> float:
        """Decay of the `update`-th update, counted from 0."""
        return self.decay

    def update(self, step: float, total: float) -> None:
        self.average.lerp(self.live(), 1.0 - self.decay_at(self.updates))
        self.updates += 1

    def weights(self) -> dict[str, Tensor]:
        return self.average.tensors

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, **self.average.save("average")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.average.load(state, "average")


@averaging(
    "ema",
    paper=Paper(
        "Acceleration of Stochastic Approximation by Averaging", url="https://doi.org/10.1137/0330046", year=1992
    ),
    defaults={"decay": 0.999},
    space={"decay": Uniform(0.9, 0.9999)},
    confidence="known",
)
class Ema(ExponentialAverage):
    """Exponential moving average of the weights with a decay that warms up, min(d, (1 + t)/(10 + t)).

    t counts the updates; the warm-up, TensorFlow's, lets the average forget the
    initial weights. Floating-point buffers are averaged with the parameters.

    Parameters
    ----------
    decay : d.
    """

    def decay_at(self, update: int) -> float:
        return min(self.decay, (1.0 + update) / (10.0 + update))


@averaging(
    "ema-eval",
    paper=Paper(
        "Improving Online Continual Learning Performance and Stability with Temporal Ensembles",
        arxiv="2306.16817",
        year=2023,
    ),
    defaults={"decay": 0.99},
    space={"decay": Uniform(0.9, 0.9999)},
    confidence="verified",
)
class EmaEval(ExponentialAverage):
    """Temporal ensemble: exponential moving average of the whole state at a constant decay.

    It starts as a copy of the initial weights and takes in every update; buffers of
    normalisation layers are averaged with the parameters.

    Parameters
    ----------
    decay : d of a <- d a + (1 - d) w.
    """


@averaging(
    "ema-scaling",
    paper=Paper("How to Scale Your EMA", arxiv="2307.13813", year=2023),
    defaults={"decay": 0.99, "kappa": 4.0},
    space={"decay": Uniform(0.9, 0.9999), "kappa": LogUniform(0.25, 16.0)},
    families=("vision", "language"),
    confidence="known",
)
class EmaScaling(ExponentialAverage):
    """Exponential moving average by the scaling rule: decay rho at batch B becomes rho^kappa at batch kappa B.

    The average then spans the same number of examples at every batch size. The
    rule's other half, the optimizer's own scaling, is the recipe's.

    Parameters
    ----------
    decay : rho, the decay at the batch it was chosen for.
    kappa : this run's batch over that one.
    """

    def __init__(self, model: nn.Module, *, decay: float, kappa: float) -> None:
        super().__init__(model, decay=decay**kappa)
