from torch import Tensor, nn
from torch.nn import functional as F

from suite import Paper, activation


@activation(
    "relu-squared",
    paper=Paper("Primer: Searching for Efficient Transformers for Language Modeling", arxiv="2109.08668", year=2021),
    families=("vision", "language", "pde"),
)
class ReLUSquared(nn.Module):
    """Squared ReLU, max(0, x)²."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()
