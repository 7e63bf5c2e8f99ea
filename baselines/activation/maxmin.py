import torch
from torch import Tensor, nn

from baselines.activation.channels import channel_dim, halves
from suite import Paper, activation


@activation(
    "maxmin",
    paper=Paper("Sorting out Lipschitz function approximation", arxiv="1811.05381", year=2018),
    families=("vision",),
)
class MaxMin(nn.Module):
    """MaxMin of the two halves u, v of the channels: max(u, v), then min(u, v).

    The pairing of neighbouring channels, minimum first, is `groupsort` with groups of 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        first, second = halves(x)
        return torch.cat((torch.maximum(first, second), torch.minimum(first, second)), channel_dim(x))
