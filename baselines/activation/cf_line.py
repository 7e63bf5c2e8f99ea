import torch
from torch import Tensor, nn

from baselines.activation.channels import learnable, over_channels
from suite import LogUniform, Paper, activation


@activation(
    "cf-line",
    paper=Paper("Real-valued continued fraction of straight lines", arxiv="2412.16191", year=2024),
    defaults={"a": 1.0},
    space={"a": LogUniform(0.01, 10.0)},
    families=("vision", "pde"),
    confidence="verified",
)
class ContinuedFractionLine(nn.Module):
    """Continued-fraction line, the real root y of a y³ + y = x with a learnable a a channel.

    Evaluated as 2/√(3a) sinh(asinh(1.5 √(3a) x) / 3), which keeps its digits where Cardano's
    difference of cube roots cancels. The paper's slope m is 1 here: the layer before has it. The
    paper keeps a positive; here its absolute value is used.

    Parameters
    ----------
    features : channels, or None for one shared a.
    a : initial a, > 0.
    """

    def __init__(self, features: int | None = None, a: float = 1.0) -> None:
        super().__init__()
        self.a = learnable(a, features)

    def forward(self, x: Tensor) -> Tensor:
        root = torch.sqrt(3.0 * self.a.abs().clamp(min=1e-6))
        return over_channels(2.0 / root, x) * torch.sinh(torch.asinh(over_channels(1.5 * root, x) * x) / 3.0)
