from collections.abc import Callable

from torch import Tensor, nn

from suite import Paper, block
from suite.train.roles import mark_residual


@block(
    "ffn",
    paper=Paper("Attention Is All You Need", arxiv="1706.03762", year=2017),
    defaults={"bias": True},
    families=("vision", "language"),
)
class FeedForward(nn.Module):
    """Two-matrix feed-forward block, W₂ act(W₁ x + b₁) + b₂, with the recipe's activation.

    Parameters
    ----------
    features : channels in and out, the last dim.
    hidden : channels that go into the activation.
    activation : makes the activation for a number of channels; its module's `width_factor`
        (1 where it has none) says how many times as many come out.
    bias : whether both matrices have biases.
    """

    def __init__(self, features: int, hidden: int, activation: Callable[[int], nn.Module], bias: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(features, hidden, bias=bias)
        self.activation = activation(hidden)
        width = int(hidden * getattr(self.activation, "width_factor", 1))
        self.down = nn.Linear(width, features, bias=bias)
        mark_residual(self.down)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))
