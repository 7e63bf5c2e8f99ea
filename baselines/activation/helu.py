from torch import Tensor, nn
from torch.nn import functional as F

from baselines.activation.surrogate import straight_through
from suite import LogUniform, Paper, activation


@activation(
    "helu",
    paper=Paper("Hysteresis Activation Function for Efficient Inference", arxiv="2411.10573", year=2024),
    defaults={"alpha": 0.05},
    space={"alpha": LogUniform(1e-3, 1.0)},
    families=("vision", "language"),
    confidence="verified",
    surrogate=True,
)
class HeLU(nn.Module):
    """Hysteresis ReLU: forward max(0, x), backward the upstream gradient wherever x > -α.

    Parameters
    ----------
    alpha : how far below 0 the gradient still passes.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return straight_through(x * (x > -self.alpha), F.relu(x.detach()))
