from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines.reparam.common import weights
from baselines.reparam.constraint import Constraint, Owner, constrain
from suite import LogUniform, Paper, reparam


class FixedSigns(Constraint):
    """Entries that have changed sign become U(0, size) of their sign at the start; those that start at 0 are free.

    Parameters
    ----------
    owners : the layer and the attribute of each weight.
    size : largest magnitude of an entry that is reset.
    """

    def __init__(self, owners: Sequence[Owner], size: float) -> None:
        super().__init__(owners)
        self.size = size
        for index, weight in enumerate(self.weights()):
            self.register_buffer(f"sign_{index}", weight.detach().sign())

    def apply_to(self, weights: list[Tensor], step: int) -> None:
        stream = torch.Generator().manual_seed(step)
        for index, weight in enumerate(weights):
            sign = self.get_buffer(f"sign_{index}")
            fresh = self.size * torch.rand(weight.shape, generator=stream).to(weight) * sign
            weight.copy_(torch.where(weight * sign < 0, fresh, weight))


@reparam(
    "polarity-random",
    paper=Paper("Polarity is all you need to learn and transfer faster", arxiv="2303.17589", year=2023),
    defaults={"size": 1e-3},
    space={"size": LogUniform(1e-5, 1e-1)},
    families=("vision",),
    system="polarity",
    confidence="verified",
    vmap=False,
)
def polarity_random(model: nn.Module, *, size: float = 1e-3) -> None:
    """Every weight keeps the sign that it drew at the start: one that crosses 0 is reset to U(0, 1e-3) of its sign.

    Kernels of linear layers and convolutions, the output layer's among them; biases
    and norms are free. The draws are a fixed function of the step.

    Parameters
    ----------
    size : largest magnitude of a weight that is reset.
    """
    constrain(FixedSigns([(module, name) for module, name, _ in weights(model)], size))
