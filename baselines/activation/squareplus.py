import math

import torch
from torch import Tensor, nn

from suite import LogUniform, Paper, activation


@activation(
    "squareplus",
    paper=Paper("Squareplus: A Softplus-Like Algebraic Rectifier", arxiv="2112.11687", year=2021),
    defaults={"b": 4.0},
    space={"b": LogUniform(0.1, 10.0)},
    families=("vision", "language", "pde"),
)
class Squareplus(nn.Module):
    """Squareplus, (x + √(x² + b)) / 2.

    For x <= 0 it is evaluated as b/4 over its conjugate, which keeps the digits that the sum cancels.

    Parameters
    ----------
    b : width of the curved part, > 0.
    """

    root: Tensor

    def __init__(self, b: float = 4.0) -> None:
        super().__init__()
        if b <= 0:
            raise ValueError(f"b must be positive, got {b}")
        self.b = b
        self.register_buffer("root", torch.tensor(math.sqrt(b)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        positive = x > 0
        magnitude = torch.where(positive, x, -x)
        larger = 0.5 * (magnitude + torch.hypot(x, self.root.to(x.dtype)))
        return torch.where(positive, larger, 0.25 * self.b / larger)
