from torch import Tensor, nn
from torch.nn import functional as F

from suite import Paper, Uniform, activation

SPARSE_PAPER = Paper(
    "Deep Neural Network Initialization with Sparsity Inducing Activations", arxiv="2402.16184", year=2024
)
SPACE = {"tau": Uniform(0.0, 1.5), "m": Uniform(0.5, 3.0)}


@activation(
    "crelu-clip",
    paper=SPARSE_PAPER,
    system="clipped-sparse",
    defaults={"tau": 0.5244, "m": 1.4469},
    space=SPACE,
    families=("vision",),
    confidence="partly",
)
class ClippedShiftedReLU(nn.Module):
    """Clipped shifted ReLU, x - τ clipped to [0, m].

    The defaults leave 70% zeros for standard normal input (τ = Φ⁻¹(0.7)) at curvature V'(1) = 0.7.

    Parameters
    ----------
    tau : shift.
    m : largest value, > 0.
    """

    def __init__(self, tau: float = 0.5244, m: float = 1.4469) -> None:
        super().__init__()
        self.tau, self.m = tau, m

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.tau).clamp(0.0, self.m)


@activation(
    "cst-clip",
    paper=SPARSE_PAPER,
    system="clipped-sparse",
    defaults={"tau": 1.0364, "m": 1.1704},
    space=SPACE,
    families=("vision",),
    confidence="partly",
)
class ClippedSoftThreshold(nn.Module):
    """Clipped soft threshold, sign(x) times |x| - τ clipped to [0, m].

    The defaults leave 70% zeros for standard normal input (τ = Φ⁻¹(0.85)) at curvature V'(1) = 0.7.

    Parameters
    ----------
    tau : threshold, >= 0.
    m : largest magnitude, > 0.
    """

    def __init__(self, tau: float = 1.0364, m: float = 1.1704) -> None:
        super().__init__()
        self.tau, self.m = tau, m

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.tau).clamp(0.0, self.m) + (x + self.tau).clamp(-self.m, 0.0)


@activation(
    "shifted-relu",
    paper=SPARSE_PAPER,
    defaults={"tau": 0.5244},
    space={"tau": Uniform(0.0, 1.5)},
    families=("vision",),
)
class ShiftedReLU(nn.Module):
    """Shifted ReLU, max(0, x - τ): `crelu-clip` without the clip.

    Parameters
    ----------
    tau : shift; the default leaves 70% zeros for standard normal input.
    """

    def __init__(self, tau: float = 0.5244) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x - self.tau)


@activation(
    "soft-threshold",
    paper=SPARSE_PAPER,
    defaults={"tau": 1.0364},
    space={"tau": Uniform(0.0, 1.5)},
    families=("vision",),
)
class SoftThreshold(nn.Module):
    """Soft threshold, sign(x) max(|x| - τ, 0): `cst-clip` without the clip.

    Parameters
    ----------
    tau : threshold, >= 0; the default leaves 70% zeros for standard normal input.
    """

    def __init__(self, tau: float = 1.0364) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, x: Tensor) -> Tensor:
        return x - x.clamp(-self.tau, self.tau)
