from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite import IntUniform, Paper, block
from suite.train.roles import mark_residual


@block(
    "soft-moe",
    paper=Paper("From Sparse to Soft Mixtures of Experts", arxiv="2308.00951", year=2023),
    defaults={"experts": 4, "slots": 4},
    space={"experts": IntUniform(2, 8), "slots": IntUniform(1, 16)},
    families=("vision",),
    confidence="verified",
)
class SoftMoE(nn.Module):
    """Soft mixture of feed-forward experts over the image's patches.

    Of tokens X, A = s · norm(X) norm(Φ)ᵀ with a learned scale s; every slot gets the
    average of the tokens by the softmax of A over tokens, every expert works on its
    own slots, and every token gets the average of all slots' results by the softmax
    of A over slots. The experts are plain blocks with one output bias for all.

    It is matched to the plain block by compute, as its paper does, not by
    parameters: each expert has `hidden` channels, and with experts · slots equal to
    the number of patches (16 by default) as many vectors pass through experts as
    through the plain block.

    Parameters
    ----------
    features : channels in and out, the last dim; the dim before it holds the tokens.
    hidden : hidden channels of each expert.
    activation : makes the activation for a number of channels.
    experts : number of experts.
    slots : slots of each expert.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        activation: Callable[[int], nn.Module],
        experts: int = 4,
        slots: int = 4,
    ) -> None:
        super().__init__()
        self.router = nn.Linear(features, experts * slots, bias=False)
        self.scale = nn.Parameter(torch.ones(()))
        self.up = nn.Linear(features, experts * hidden)
        self.activations = nn.ModuleList(activation(hidden) for _ in range(experts))
        width = int(hidden * getattr(self.activations[0], "width_factor", 1))
        self.down = mark_residual(nn.Linear(experts * width, features))

    def forward(self, x: Tensor) -> Tensor:
        count = len(self.activations)
        routes = self.scale * F.linear(F.normalize(x, dim=-1), F.normalize(self.router.weight, dim=-1))
        slots = (routes.softmax(-2).mT @ x).chunk(count, dim=-2)
        shares = routes.softmax(-1).chunk(count, dim=-1)
        up, bias = self.up.weight.chunk(count), self.up.bias.chunk(count)
        down = self.down.weight.chunk(count, dim=1)
        y = self.down.bias
        for expert, activation in enumerate(self.activations):
            hidden = activation(F.linear(slots[expert], up[expert], bias[expert]))
            y = y + shares[expert] @ F.linear(hidden, down[expert])
        return y
