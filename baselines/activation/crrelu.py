import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.activation.channels import learnable, over_channels
from suite import LogUniform, Paper, activation


@activation(
    "crrelu",
    paper=Paper("A Method on Searching Better Activation Functions", arxiv="2405.12954", year=2024),
    defaults={"epsilon": 0.01},
    space={"epsilon": LogUniform(1e-3, 1.0)},
    families=("vision", "language", "pde"),
    confidence="verified",
)
class CRReLU(nn.Module):
    """Correction-regularised ReLU, max(0, x) + ε x exp(-x²/2) with one learnable scalar ε.

    Parameters
    ----------
    epsilon : initial ε; its sign is not constrained.
    """

    def __init__(self, epsilon: float = 0.01) -> None:
        super().__init__()
        self.epsilon = learnable(epsilon)

    def forward(self, x: Tensor) -> Tensor:
        inner = x.clamp(-40.0, 40.0)  # exp(-40²/2) is 0 in every dtype; keeps 0 * inf out
        correction = inner * torch.exp(-0.5 * inner * inner)
        return F.relu(x) + over_channels(self.epsilon, x) * correction
