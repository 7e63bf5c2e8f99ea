import torch
from torch import Tensor, nn

from baselines.activation.channels import learnable, over_channels
from suite import LogUniform, Paper, activation

CAUCHY_PAPER = Paper("Model Comparisons: XNet Outperforms KAN", arxiv="2410.02033", year=2024)
SMALL = {"lambda1": 0.01, "lambda2": 0.01, "d": 1.0}
UNIT = {"lambda1": 1.0, "lambda2": 1.0, "d": 1.0}
SPACE = {"lambda1": LogUniform(1e-3, 3.0), "lambda2": LogUniform(1e-3, 3.0), "d": LogUniform(0.3, 3.0)}


@activation(
    "cauchy-neuron-unit",
    paper=CAUCHY_PAPER,
    system="cauchy-act",
    defaults=UNIT,
    space=SPACE,
    families=("pde", "vision"),
    confidence="partly",
)
@activation(
    "cauchy-neuron",
    paper=CAUCHY_PAPER,
    system="cauchy-act",
    defaults=SMALL,
    space=SPACE,
    families=("pde", "vision"),
    confidence="partly",
)
class CauchyActivation(nn.Module):
    """Cauchy activation (λ₁ x + λ₂) / (x² + d²), one learnable triple a neuron (XNet).

    The `-unit` variant starts at λ₁ = λ₂ = 1.

    Parameters
    ----------
    features : channels, or None for one shared triple.
    lambda1, lambda2, d : initial values; |d| should stay away from 0.
    """

    def __init__(
        self, features: int | None = None, lambda1: float = 0.01, lambda2: float = 0.01, d: float = 1.0
    ) -> None:
        super().__init__()
        self.lambda1 = learnable(lambda1, features)
        self.lambda2 = learnable(lambda2, features)
        self.d = learnable(d, features)

    def forward(self, x: Tensor) -> Tensor:
        finite = torch.finfo(x.dtype)
        x = x.clamp(finite.min, finite.max)  # so that infinite inputs give the limit, 0
        numerator = over_channels(self.lambda1, x) * x + over_channels(self.lambda2, x)
        return numerator / (x * x + over_channels(self.d, x).square())


@activation(
    "cauchy-layer-unit",
    paper=CAUCHY_PAPER,
    system="cauchy-act",
    defaults=UNIT,
    space=SPACE,
    families=("pde", "vision"),
    confidence="partly",
)
@activation(
    "cauchy-layer",
    paper=CAUCHY_PAPER,
    system="cauchy-act",
    defaults=SMALL,
    space=SPACE,
    families=("pde", "vision"),
    confidence="partly",
)
def cauchy_layer(lambda1: float = 0.01, lambda2: float = 0.01, d: float = 1.0) -> CauchyActivation:
    """Cauchy activation (λ₁ x + λ₂) / (x² + d²), one learnable triple a layer.

    The `-unit` variant starts at λ₁ = λ₂ = 1.
    """
    return CauchyActivation(None, lambda1, lambda2, d)
