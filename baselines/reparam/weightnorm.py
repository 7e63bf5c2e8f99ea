from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrizations

from baselines.reparam.common import weights
from suite import Paper, reparam


@reparam(
    "weightnorm",
    paper=Paper(
        "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks",
        arxiv="1602.07868",
        year=2016,
    ),
    confidence="verified",
)
def weightnorm(model: nn.Module) -> None:
    """w = g·v/‖v‖ for every output unit, g and v learnt, starting from the recipe's weights.

    The paper's data-dependent start (unit variance of the first batch's
    pre-activations) is left out.
    """
    for module, name, _ in weights(model):
        parametrizations.weight_norm(module, name)
