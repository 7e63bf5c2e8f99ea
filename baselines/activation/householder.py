import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.activation.channels import channel_dim, halves, learnable, over_channels
from suite import Paper, activation


@activation(
    "householder",
    paper=Paper("Improved deterministic l2 robustness on CIFAR-10 and CIFAR-100", arxiv="2108.04062", year=2021),
    families=("vision",),
)
class Householder(nn.Module):
    """Householder activation of order 1: pairs z are kept where vᵀz <= 0 and reflected, z - 2 v vᵀz, where vᵀz > 0.

    Channel i of the first half is paired with channel i of the second; v = (sin θ/2, -cos θ/2) with
    a learnable θ a pair, π/2 at the start.

    Parameters
    ----------
    features : channels (an even number), or None for one shared angle.
    """

    def __init__(self, features: int | None = None) -> None:
        super().__init__()
        if features is not None and features % 2:
            raise ValueError(f"pairs channels, so their number must be even; got {features}")
        self.theta = learnable(math.pi / 2, None if features is None else features // 2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = halves(x)
        sine = over_channels(torch.sin(self.theta / 2), x)
        cosine = over_channels(torch.cos(self.theta / 2), x)
        excess = 2.0 * F.relu(sine * first - cosine * second)
        return torch.cat((first - sine * excess, second + cosine * excess), channel_dim(x))
