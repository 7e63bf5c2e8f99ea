import torch
from torch import Tensor, nn

from suite import LogUniform, Paper, activation


@activation(
    "sine",
    paper=Paper("Implicit Neural Representations with Periodic Activation Functions", arxiv="2006.09661", year=2020),
    defaults={"omega": 1.0},
    space={"omega": LogUniform(0.3, 30.0)},
    families=("vision", "pde"),
)
class Sine(nn.Module):
    """Sine, sin(ω x).

    Parameters
    ----------
    omega : angular frequency; the paper's 30 goes with its own init of the weights.
    """

    def __init__(self, omega: float = 1.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * x)
