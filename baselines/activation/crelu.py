import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.activation.channels import channel_dim
from suite import Paper, activation


@activation(
    "crelu",
    paper=Paper(
        "Understanding and Improving Convolutional Neural Networks via Concatenated Rectified Linear Units",
        arxiv="1603.05201",
        year=2016,
    ),
    families=("vision", "language"),
)
class ConcatenatedReLU(nn.Module):
    """Concatenated ReLU: max(0, x) and max(0, -x), twice the channels."""

    width_factor = 2.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((F.relu(x), F.relu(-x)), channel_dim(x))
