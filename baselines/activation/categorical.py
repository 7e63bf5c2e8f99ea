import torch
from torch import Tensor, nn

from baselines.activation.channels import from_groups, to_groups
from baselines.activation.surrogate import straight_through
from suite import Choice, Paper, Uniform, activation

REINMAX_PAPER = Paper(
    "Bridging Discrete and Backpropagation: Straight-Through and Beyond", arxiv="2304.08612", year=2023
)


def gumbel_like(logits: Tensor) -> Tensor:
    """Standard Gumbel noise in the shape and dtype of `logits`."""
    uniform = torch.rand_like(logits, dtype=torch.float32).clamp(min=1e-30)
    return -torch.log(-torch.log(uniform)).to(logits.dtype)


def one_hot_of_largest(scores: Tensor) -> Tensor:
    """One-hot of the largest entry of the last dim, NaN where the row holds a NaN."""
    zeros = 0.0 * torch.softmax(scores, -1)
    return zeros.scatter(-1, scores.argmax(-1, keepdim=True), 1.0) + zeros


class _Categorical(nn.Module):
    """Groups of neighbouring channels as logits of a categorical variable, sampled as a one-hot vector.

    In evaluation the expectation softmax(θ) stands for the draw.

    Parameters
    ----------
    categories : channels a variable; the number of channels must be a multiple of it.
    """

    def __init__(self, categories: int) -> None:
        super().__init__()
        self.categories = categories

    def forward(self, x: Tensor) -> Tensor:
        logits = to_groups(x, self.categories)
        value = self._sample(logits) if self.training else torch.softmax(logits, -1)
        return from_groups(value, x.ndim)

    def _sample(self, logits: Tensor) -> Tensor:
        raise NotImplementedError


@activation(
    "st",
    paper=REINMAX_PAPER,
    system="reinmax",
    defaults={"categories": 8},
    space={"categories": Choice(4, 8, 16)},
    families=("vision", "language"),
    confidence="verified",
    surrogate=True,
    stochastic=True,
)
class StraightThroughCategorical(_Categorical):
    """Straight-through categorical: a one-hot draw from softmax(θ) over groups of channels, gradient of softmax(θ).

    In evaluation the expectation softmax(θ) stands for the draw.

    Parameters
    ----------
    categories : channels a variable; the number of channels must be a multiple of it.
    """

    def __init__(self, categories: int = 8) -> None:
        super().__init__(categories)

    def _sample(self, logits: Tensor) -> Tensor:
        draw = one_hot_of_largest(logits.detach() + gumbel_like(logits))
        return straight_through(torch.softmax(logits, -1), draw)


@activation(
    "st-gumbel",
    paper=REINMAX_PAPER,
    system="reinmax",
    defaults={"categories": 8, "tau": 0.5},
    space={"categories": Choice(4, 8, 16), "tau": Uniform(0.1, 1.0)},
    families=("vision", "language"),
    confidence="verified",
    surrogate=True,
    stochastic=True,
)
class StraightThroughGumbel(_Categorical):
    """Straight-through Gumbel-softmax over groups of channels: one-hot forward, gradient of softmax((θ + G) / τ).

    In evaluation the expectation softmax(θ) stands for the draw.

    Parameters
    ----------
    categories : channels a variable; the number of channels must be a multiple of it.
    tau : temperature of the relaxed sample, > 0.
    """

    def __init__(self, categories: int = 8, tau: float = 0.5) -> None:
        super().__init__(categories)
        self.tau = tau

    def _sample(self, logits: Tensor) -> Tensor:
        scores = logits + gumbel_like(logits)
        return straight_through(torch.softmax(scores / self.tau, -1), one_hot_of_largest(scores.detach()))


@activation(
    "reinmax",
    paper=REINMAX_PAPER,
    defaults={"categories": 8, "tau": 1.0},
    space={"categories": Choice(4, 8, 16), "tau": Uniform(1.0, 2.0)},
    families=("vision", "language"),
    confidence="verified",
    surrogate=True,
    stochastic=True,
)
class ReinMax(_Categorical):
    """ReinMax: a one-hot draw D over groups of channels with a second-order gradient.

    Backward 2 J(q) g - ½ J(π) g with J(p) = diag(p) - p pᵀ, π = softmax(θ), q = ½ (softmax(θ/τ) + D).
    In evaluation the expectation softmax(θ) stands for the draw.

    Parameters
    ----------
    categories : channels a variable; the number of channels must be a multiple of it.
    tau : temperature, >= 1.
    """

    def __init__(self, categories: int = 8, tau: float = 1.0) -> None:
        super().__init__(categories)
        self.tau = tau

    def _sample(self, logits: Tensor) -> Tensor:
        fixed = logits.detach()
        draw = one_hot_of_largest(fixed + gumbel_like(fixed))
        middle = 0.5 * (torch.softmax(fixed / self.tau, -1) + draw)
        linear = 2.0 * _jacobian(middle, logits) - 0.5 * _jacobian(torch.softmax(fixed, -1), logits)
        return straight_through(linear, draw)


def _jacobian(p: Tensor, v: Tensor) -> Tensor:
    """(diag(p) - p pᵀ) v over the last dim: softmax's Jacobian, which is its own transpose."""
    return p * (v - (p * v).sum(-1, keepdim=True))
