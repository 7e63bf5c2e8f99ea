from torch import Tensor, nn

from baselines.activation.channels import learnable, over_channels
from baselines.activation.gaussian import expected_relu
from suite import Choice, Paper, Uniform, activation

SAU_PAPER = Paper(
    "SAU: Smooth activation function using convolution with approximate identities", arxiv="2109.13210", year=2021
)


@activation(
    "sau-soft",
    paper=SAU_PAPER,
    system="sau",
    defaults={"alpha": 0.15, "n": 1.0},
    space={"alpha": Uniform(0.0, 0.5), "n": Choice(1.0, 2.0, 5.0)},
    families=("vision", "language", "pde"),
    confidence="verified",
)
@activation(
    "sau",
    paper=SAU_PAPER,
    defaults={"alpha": 0.15, "n": 20000.0},
    space={"alpha": Uniform(0.0, 0.5)},
    families=("vision", "language", "pde"),
    confidence="verified",
)
class SAU(nn.Module):
    """Smooth activation unit, a leaky ReLU of learnable slope α convolved with a Gaussian of std 1/n.

    α x + (1 - α) [x Φ(n x) + φ(n x) / n], which is the closed form of the convolution with its
    cancelling terms removed. At the published n = 20000 it differs from a PReLU by at most 2e-5;
    `sau-soft` starts at n = 1. α is one a channel, as in the PReLU it is compared with.

    Parameters
    ----------
    features : channels, or None for one shared slope.
    alpha : initial slope.
    n : sharpness, > 0, fixed.
    """

    def __init__(self, features: int | None = None, alpha: float = 0.15, n: float = 20000.0) -> None:
        super().__init__()
        if n <= 0:
            raise ValueError(f"n must be positive, got {n}")
        self.alpha = learnable(alpha, features)
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        alpha = over_channels(self.alpha, x)
        return alpha * x + (1 - alpha) * expected_relu(x, 1.0 / self.n)
