import torch
from torch import Tensor, nn

from baselines.activation.channels import channel_dim
from suite import LogUniform, Paper, activation


@activation(
    "fourier-feature-act",
    paper=Paper(
        "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains",
        arxiv="2006.10739",
        year=2020,
    ),
    defaults={"omega": 1.0},
    space={"omega": LogUniform(0.3, 30.0)},
    families=("pde",),
)
class FourierFeatures(nn.Module):
    """Fourier features of the learned linear map before it: sin(ωx) and cos(ωx), twice the channels.

    Parameters
    ----------
    omega : angular frequency.
    """

    width_factor = 2.0

    def __init__(self, omega: float = 1.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        phase = self.omega * x
        return torch.cat((torch.sin(phase), torch.cos(phase)), channel_dim(x))
