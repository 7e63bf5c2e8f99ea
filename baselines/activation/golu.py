import torch
from torch import Tensor, nn

from suite import Paper, activation


@activation(
    "golu",
    paper=Paper(
        "Gompertz Linear Units: Leveraging Asymmetry for Enhanced Learning Dynamics", arxiv="2502.03654", year=2025
    ),
    families=("vision", "language", "pde"),
    confidence="verified",
)
class GoLU(nn.Module):
    """Gompertz linear unit, x exp(-exp(-x)).

    The gate is exactly 0 below x = -10 in every dtype, so the clamp changes no value and keeps
    0 * inf out of the forward and the backward pass.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(min=-10.0)
        return x * torch.exp(-torch.exp(-x))
