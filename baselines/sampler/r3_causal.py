import torch
from torch import Tensor

from baselines.sampler.r3 import R3
from suite import LogUniform, Paper, Uniform, sampler
from suite.train.pinn import DoesNotApply, Domain

TOLERANCE = 20.0
FASTEST = 0.1  # the gate's largest step, in units of the rate


@sampler(
    "r3-causal",
    paper=Paper(
        "Mitigating Propagation Failures in Physics-informed Neural Networks "
        "using Retain-Resample-Release (R3) Sampling",
        arxiv="2207.02338",
        year=2023,
    ),
    defaults={"alpha": 5.0, "start": -0.5, "rate": 0.02},
    space={"alpha": Uniform(2.0, 20.0), "start": Uniform(-0.5, 0.5), "rate": LogUniform(1e-3, 0.2)},
    families=("pde",),
    system="r3",
    confidence="verified",
)
class CausalR3(R3):
    """R3 behind a gate g(t) = (1 - tanh(alpha (t - beta))) / 2 that moves forward in time, t scaled to [0, 1].

    The loss is the mean of (r g)^2 and points are judged by |r| g; beta grows by
    rate * min(exp(-20 mean (r g)^2), 0.1) a step. The paper's rate of 1e-3 is
    made for 300,000 steps; the default opens the gate within 1,000.
    """

    def __init__(
        self, domain: Domain, count: int, generator: torch.Generator, *, alpha: float, start: float, rate: float
    ) -> None:
        super().__init__(domain, count, generator)
        if domain.time is None:
            raise DoesNotApply("r3-causal needs a time axis")
        self.alpha, self.rate, self.beta = alpha, rate, torch.tensor(start)
        self.time, self.begin = domain.time, domain.lows[domain.time]
        self.duration = domain.highs[domain.time] - self.begin

    def weights(self, points: Tensor) -> Tensor:
        phase = (points[:, self.time] - self.begin) / self.duration
        return 0.5 * (1 - torch.tanh(self.alpha * (phase - self.beta.to(points))))

    def update(self, points: Tensor, residual: Tensor) -> None:
        gated = residual * self.weights(points)
        progress = torch.exp(-TOLERANCE * gated.square().mean()).clamp(max=FASTEST)
        self.beta = self.beta.to(points) + self.rate * progress
        super().update(points, gated)
