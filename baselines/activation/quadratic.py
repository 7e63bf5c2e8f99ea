from torch import Tensor, nn

from suite import Paper, activation

AUTOREP_PAPER = Paper(
    "AutoReP: Automatic ReLU Replacement for Fast Private Network Inference", arxiv="2308.10134", year=2023
)


@activation(
    "square",
    paper=AUTOREP_PAPER,
    system="quadratic-act",
    defaults={"a": 1.0, "b": 0.0, "c": 0.0},
    families=("vision",),
)
@activation(
    "quadratic-act",
    paper=AUTOREP_PAPER,
    defaults={"a": 0.19947114020071635, "b": 0.5, "c": 0.19947114020071635},
    families=("vision",),
)
class Quadratic(nn.Module):
    """Quadratic a x² + b x + c; the defaults are the least-squares fit of ReLU under a standard normal.

    That fit is a = c = φ(0)/2, b = 1/2. The variant `square` is x².

    Parameters
    ----------
    a, b, c : fixed coefficients.
    """

    def __init__(self, a: float = 0.19947114020071635, b: float = 0.5, c: float = 0.19947114020071635) -> None:
        super().__init__()
        self.a, self.b, self.c = a, b, c

    def forward(self, x: Tensor) -> Tensor:
        return (self.a * x + self.b) * x + self.c
