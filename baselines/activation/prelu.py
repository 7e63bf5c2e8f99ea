from torch import Tensor, nn

from baselines.activation.channels import learnable
from baselines.activation.channels import prelu as leaky
from suite import Paper, Uniform, activation

PRELU_PAPER = Paper(
    "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification",
    arxiv="1502.01852",
    year=2015,
)


@activation(
    "prelu-015",
    paper=PRELU_PAPER,
    system="prelu",
    defaults={"init": 0.15},
    space={"init": Uniform(0.0, 0.5)},
    families=("vision", "language", "pde"),
)
@activation(
    "prelu",
    paper=PRELU_PAPER,
    defaults={"init": 0.25},
    space={"init": Uniform(0.0, 0.5)},
    families=("vision", "language", "pde"),
)
class PReLU(nn.Module):
    """Parametric ReLU, x for x > 0 and a x otherwise, with a learnable slope a a channel.

    `prelu-015` starts at 0.15, the control for `sau`.

    Parameters
    ----------
    features : channels, or None for one shared slope.
    init : initial slope.
    """

    def __init__(self, features: int | None = None, init: float = 0.25) -> None:
        super().__init__()
        self.slope = learnable(init, features)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(x, self.slope)


@activation(
    "learnable-leaky",
    paper=Paper("ReLU's Revival: On the Entropic Overload in Normalization-Free LLMs", arxiv="2410.09637", year=2024),
    defaults={"init": 0.01},
    space={"init": Uniform(0.0, 0.2)},
    families=("language",),
    confidence="verified",
)
def learnable_leaky(init: float = 0.01) -> PReLU:
    """Leaky ReLU with one learnable slope a layer.

    Parameters
    ----------
    init : initial slope.
    """
    return PReLU(None, init)
