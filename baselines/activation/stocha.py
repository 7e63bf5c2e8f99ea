import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite import Choice, Paper, Uniform, activation

STOCHA_PAPER = Paper("Stochastic activations", arxiv="2509.22358", year=2025)


@activation(
    "swi-ft",
    paper=STOCHA_PAPER,
    system="stocha",
    defaults={"p": 1.0, "relu_fraction": 0.05},
    space={"relu_fraction": Choice(0.02, 0.05, 0.1, 0.2)},
    families=("vision", "language"),
    confidence="partly",
)
@activation(
    "stocha",
    paper=STOCHA_PAPER,
    defaults={"p": 0.7, "relu_fraction": 0.05},
    space={"p": Uniform(0.0, 1.0), "relu_fraction": Choice(0.02, 0.05, 0.1, 0.2)},
    families=("vision", "language"),
    confidence="partly",
    stochastic=True,
)
class StochA(nn.Module):
    """Stochastic activation: SiLU with probability p, else ReLU, drawn for every element; ReLU at the end.

    In evaluation the expectation p SiLU + (1 - p) ReLU stands for the draw. After the last
    `relu_fraction` of training has begun it is a plain ReLU in both modes. Swi+FT is p = 1:
    train with SiLU, finish with ReLU.

    Parameters
    ----------
    p : probability of SiLU.
    relu_fraction : last share of training with plain ReLU; 0 never switches.
    positive : what x >= 0 uses: "draw" (the same draw as x < 0), "silu" or "relu".
    sample_in_eval : draw in evaluation too, instead of taking the expectation.
    """

    def __init__(
        self, p: float = 0.7, relu_fraction: float = 0.05, positive: str = "draw", sample_in_eval: bool = False
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1 or not 0 <= relu_fraction <= 1:
            raise ValueError(f"p and relu_fraction are shares from 0 to 1, got {p} and {relu_fraction}")
        if positive not in ("draw", "silu", "relu"):
            raise ValueError(f"positive is 'draw', 'silu' or 'relu', got {positive!r}")
        self.p, self.relu_fraction = p, relu_fraction
        self.positive, self.sample_in_eval = positive, sample_in_eval
        self.progress = 0.0

    def set_progress(self, fraction: float) -> None:
        """Take the share of training done, 0 to 1."""
        self.progress = fraction

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.progress, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.progress = float(state)

    def forward(self, x: Tensor) -> Tensor:
        if self.relu_fraction > 0 and self.progress >= 1.0 - self.relu_fraction:
            return F.relu(x)
        if self.p == 1.0 and self.positive != "relu":
            return F.silu(x)
        if self.training or self.sample_in_eval:
            return torch.where(self._draw(x), F.silu(x), F.relu(x))
        return self._expectation(x)

    def _draw(self, x: Tensor) -> Tensor:
        draw = torch.rand_like(x, dtype=torch.float32) < self.p
        if self.positive == "silu":
            return draw | (x >= 0)
        return draw & (x < 0) if self.positive == "relu" else draw

    def _expectation(self, x: Tensor) -> Tensor:
        mixture = self.p * F.silu(x) + (1.0 - self.p) * F.relu(x)
        if self.positive == "draw":
            return mixture
        return torch.where(x >= 0, F.silu(x) if self.positive == "silu" else x, mixture)
