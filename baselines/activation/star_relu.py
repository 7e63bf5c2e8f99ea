from torch import Tensor, nn
from torch.nn import functional as F

from baselines.activation.channels import learnable, over_channels
from suite import LogUniform, Paper, Uniform, activation


@activation(
    "star-relu",
    paper=Paper("MetaFormer Baselines for Vision", arxiv="2210.13452", year=2022),
    defaults={"scale": 0.8944, "bias": -0.4472},
    space={"scale": LogUniform(0.1, 3.0), "bias": Uniform(-1.0, 0.0)},
    families=("vision", "language", "pde"),
)
class StarReLU(nn.Module):
    """StarReLU, s max(0, x)² + b with two learnable scalars.

    The defaults give mean 0 and variance 1 for standard normal input.

    Parameters
    ----------
    scale, bias : initial s and b.
    """

    def __init__(self, scale: float = 0.8944, bias: float = -0.4472) -> None:
        super().__init__()
        self.scale = learnable(scale)
        self.bias = learnable(bias)

    def forward(self, x: Tensor) -> Tensor:
        return over_channels(self.scale, x) * F.relu(x).square() + over_channels(self.bias, x)
