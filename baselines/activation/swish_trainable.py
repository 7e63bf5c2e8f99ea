import torch
from torch import Tensor, nn

from baselines.activation.channels import learnable, over_channels
from suite import LogUniform, Paper, activation


@activation(
    "swish-trainable",
    paper=Paper("Searching for Activation Functions", arxiv="1710.05941", year=2017),
    system="swish",
    defaults={"beta": 1.0},
    space={"beta": LogUniform(0.1, 10.0)},
    families=("vision", "language", "pde"),
)
class TrainableSwish(nn.Module):
    """Swish x σ(βx) with a learnable β a channel.

    Parameters
    ----------
    features : channels, or None for one shared β.
    beta : initial β; infinity would be ReLU, 0 is x/2.
    """

    def __init__(self, features: int | None = None, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = learnable(beta, features)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(min=torch.finfo(x.dtype).min)  # so that -inf gives the limit, 0
        return x * torch.sigmoid(over_channels(self.beta, x) * x)
