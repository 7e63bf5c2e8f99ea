import torch
from torch import Tensor, nn

from baselines.activation.channels import learnable, over_channels, prelu
from baselines.activation.surrogate import straight_through
from suite import Paper, activation


@activation(
    "q-rprelu",
    paper=Paper(
        "A&B BNN: Add&Bit-Operation-Only Hardware-Friendly Binary Neural Network", arxiv="2403.03739", year=2024
    ),
    families=("vision",),
    confidence="verified",
    surrogate=True,
)
class QuantisedRPReLU(nn.Module):
    """Quantised RPReLU: shift, PReLU of slope 2^round(a), shift, with learnable a and shifts a channel.

    The rounding passes its gradient straight through to a; the gradient of the input is exact.

    Parameters
    ----------
    features : channels, or None for one shared triple.
    exponent : initial a; -3 is a slope of 1/8.
    """

    def __init__(self, features: int | None = None, exponent: float = -3.0) -> None:
        super().__init__()
        self.shift_in = learnable(0.0, features)
        self.exponent = learnable(exponent, features)
        self.shift_out = learnable(0.0, features)

    def forward(self, x: Tensor) -> Tensor:
        slope = torch.exp2(straight_through(self.exponent, self.exponent.round()))
        return prelu(x - over_channels(self.shift_in, x), slope) + over_channels(self.shift_out, x)
