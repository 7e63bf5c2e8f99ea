import torch
from torch import Tensor, nn

from baselines.activation.channels import halves
from suite import Paper, activation


@activation("maxout", paper=Paper("Maxout Networks", arxiv="1302.4389", year=2013), families=("vision", "language"))
class Maxout(nn.Module):
    """Maxout of two pieces: the larger of the two halves of the channels, half the channels."""

    width_factor = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(*halves(x))
