from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.utils import parametrize

from baselines.reparam.common import Factor, weights
from suite import LogUniform, Paper, reparam


class Times(Factor):
    """A constant times the stored tensor, which starts so that the product is the given weight."""

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.factor


@reparam(
    "ntk-param",
    paper=Paper("Neural Tangent Kernel: Convergence and Generalization in Neural Networks", arxiv="1806.07572"),
    defaults={"scale": 1.0, "bias_scale": 0.1},
    space={"scale": LogUniform(0.3, 30.0), "bias_scale": LogUniform(0.03, 3.0)},
    families=("vision", "pde"),
)
def ntk_param(model: nn.Module, *, scale: float = 1.0, bias_scale: float = 0.1) -> None:
    """Pre-activations (s/√fan_in)·W·a + β·b, with s = 1 and β = 0.1.

    The function at the start is the recipe's: with an init of variance 1/fan_in the
    stored weights have the paper's variance 1. Gradient descent then moves a weight
    s²/fan_in times as far.
    """
    for module, name, info in weights(model):
        weight = getattr(module, name)
        parametrize.register_parametrization(module, name, Times(weight, scale / math.sqrt(info.fan_in)))
        if getattr(module, "bias", None) is not None:
            parametrize.register_parametrization(module, "bias", Times(weight, bias_scale))
