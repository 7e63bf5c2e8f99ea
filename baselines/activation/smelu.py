from torch import Tensor, nn
from torch.nn import functional as F

from suite import LogUniform, Paper, Uniform, activation

SMELU_PAPER = Paper("Smooth activations and reproducibility in deep networks", arxiv="2010.09931", year=2020)


@activation(
    "smelu",
    paper=SMELU_PAPER,
    defaults={"beta": 1.0},
    space={"beta": LogUniform(0.1, 4.0)},
    families=("vision", "language", "pde"),
    confidence="verified",
)
class SmeLU(nn.Module):
    """Smooth ReLU: 0 below -β, (x + β)² / 4β between, x above β.

    Parameters
    ----------
    beta : half width of the quadratic join, > 0.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        if beta <= 0:
            raise ValueError(f"beta must be positive, got {beta}")
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        join = (x + self.beta).clamp(0.0, 2.0 * self.beta)
        return join * join * (0.25 / self.beta) + F.relu(x - self.beta)


@activation(
    "gsmelu",
    paper=SMELU_PAPER,
    system="smelu",
    defaults={"negative_slope": 0.01, "positive_slope": 1.0, "alpha": 1.0, "beta": 1.0, "shift": 0.0},
    space={"negative_slope": Uniform(0.0, 0.3), "alpha": LogUniform(0.1, 4.0), "beta": LogUniform(0.1, 4.0)},
    families=("vision", "language", "pde"),
    confidence="verified",
)
class GeneralisedSmeLU(nn.Module):
    """Generalised SmeLU: slope g₋ below -α, slope g₊ above β, joined by a quadratic that meets both.

    The value at -α is t. SmeLU is (g₋, g₊, α, β, t) = (0, 1, β, β, 0).

    Parameters
    ----------
    negative_slope, positive_slope : g₋ and g₊.
    alpha, beta : where the join starts (-alpha) and ends (beta); alpha + beta > 0.
    shift : t.
    """

    def __init__(
        self,
        negative_slope: float = 0.01,
        positive_slope: float = 1.0,
        alpha: float = 1.0,
        beta: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        if alpha + beta <= 0:
            raise ValueError(f"alpha + beta must be positive, got {alpha} + {beta}")
        self.negative_slope, self.positive_slope = negative_slope, positive_slope
        self.alpha, self.beta, self.shift = alpha, beta, shift
        self.curvature = (positive_slope - negative_slope) / (2.0 * (alpha + beta))

    def forward(self, x: Tensor) -> Tensor:
        join = x.clamp(-self.alpha, self.beta) + self.alpha
        inside = (self.curvature * join + self.negative_slope) * join + self.shift
        above = self.positive_slope * F.relu(x - self.beta)
        if self.negative_slope == 0:
            return inside + above
        return inside + above - self.negative_slope * F.relu(-self.alpha - x)
