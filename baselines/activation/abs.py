from torch import Tensor, nn

from baselines.activation.channels import channel_dim
from suite import Paper, activation

ABS_PAPER = Paper(
    "Tensor Programs VI: Feature Learning in Infinite-Depth Neural Networks", arxiv="2310.02244", year=2023
)


@activation("abs", paper=ABS_PAPER, system="abs-act", families=("vision", "language"), confidence="verified")
class Abs(nn.Module):
    """Absolute value, |x|."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


@activation("abs-ms", paper=ABS_PAPER, system="abs-act", families=("vision", "language"), confidence="verified")
class AbsMeanSubtracted(nn.Module):
    """Absolute value with its mean over the channels subtracted, |x| - mean(|x|)."""

    def forward(self, x: Tensor) -> Tensor:
        magnitude = x.abs()
        return magnitude - magnitude.mean(channel_dim(x), keepdim=True)
