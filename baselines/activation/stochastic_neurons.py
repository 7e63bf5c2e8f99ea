import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.activation.gaussian import expected_relu
from baselines.activation.surrogate import straight_through
from suite import Choice, LogUniform, Paper, activation

NEURONS_PAPER = Paper(
    "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation",
    arxiv="1308.3432",
    year=2013,
)


@activation(
    "ste-binary-deterministic",
    paper=NEURONS_PAPER,
    system="stochastic-neurons",
    defaults={"slope": "identity", "sample": False},
    space={"slope": Choice("identity", "sigmoid")},
    families=("vision", "language"),
    surrogate=True,
)
@activation(
    "ste-binary",
    paper=NEURONS_PAPER,
    system="stochastic-neurons",
    defaults={"slope": "identity", "sample": True},
    space={"slope": Choice("identity", "sigmoid")},
    families=("vision", "language"),
    surrogate=True,
    stochastic=True,
)
class StraightThroughBinary(nn.Module):
    """Straight-through binary neuron: 1 with probability σ(x), gradient passed on as if it were x.

    In evaluation the expectation σ(x) stands for the draw. The deterministic variant is 1[x > 0]
    in both modes.

    Parameters
    ----------
    slope : the backward pass multiplies by 1 ("identity") or by σ'(x) ("sigmoid").
    sample : draw, or threshold at 0.
    """

    def __init__(self, slope: str = "identity", sample: bool = True) -> None:
        super().__init__()
        if slope not in ("identity", "sigmoid"):
            raise ValueError(f"slope is 'identity' or 'sigmoid', got {slope!r}")
        self.slope, self.sample = slope, sample

    def forward(self, x: Tensor) -> Tensor:
        if self.sample and not self.training:
            return torch.sigmoid(x)
        soft = x if self.slope == "identity" else torch.sigmoid(x)
        return straight_through(soft, self._binary(x.detach()))

    def _binary(self, x: Tensor) -> Tensor:
        fires = torch.rand_like(x, dtype=torch.float32) < torch.sigmoid(x.float()) if self.sample else x > 0
        return torch.where(x.isnan(), x, fires.to(x.dtype))


@activation(
    "st-smooth",
    paper=NEURONS_PAPER,
    system="stochastic-neurons",
    families=("vision", "language"),
    stochastic=True,
)
class StochasticTimesSmooth(nn.Module):
    """Stochastic times smooth neuron b r with r = √σ(x), b ~ Bernoulli(r), so that its mean is σ(x).

    The gradient goes through r only. In evaluation the expectation σ(x) stands for the draw.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return torch.sigmoid(x)
        root = torch.exp(0.5 * F.logsigmoid(x))
        return root * (torch.rand_like(x, dtype=torch.float32) < root)


@activation(
    "noisy-rectifier",
    paper=NEURONS_PAPER,
    system="stochastic-neurons",
    defaults={"sigma": 1.0},
    space={"sigma": LogUniform(0.05, 2.0)},
    families=("vision", "language"),
    stochastic=True,
)
class NoisyRectifier(nn.Module):
    """Noisy rectifier max(0, x + σ z) with standard normal z for every element.

    In evaluation the expectation x Φ(x/σ) + σ φ(x/σ) stands for the draw.

    Parameters
    ----------
    sigma : standard deviation of the noise, > 0.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        if sigma <= 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.relu(x + self.sigma * torch.randn_like(x))
        return expected_relu(x, self.sigma)
