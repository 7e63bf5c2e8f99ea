from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from baselines.reparam.common import residual_layers, scale_output
from suite import Paper, Uniform, reparam


class LearntFactor(nn.Module):
    """A learnt scalar times a tensor."""

    def __init__(self, like: Tensor, start: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(like.new_tensor(start))

    def forward(self, tensor: Tensor) -> Tensor:
        return self.alpha * tensor


@reparam(
    "rezero",
    paper=Paper("ReZero is All You Need: Fast Convergence at Large Depth", arxiv="2003.04887", year=2020),
    defaults={"start": 0.0},
    space={"start": Uniform(0.0, 1.0)},
    confidence="partly",
)
def rezero(model: nn.Module, *, start: float = 0.0) -> None:
    """x + α·F(x) with a learnt scalar α, 0 at the start, for every residual layer.

    α multiplies the weight and bias of a branch's last layer. The two branches of a transformer
    layer share one α, as in the authors' code; the paper's transformer has no normalisation
    (`rezero+no-norm`). A model without residual branches stays as it is.
    """
    for ends in residual_layers(model):
        alphas: list[nn.Module] = []
        for layer in ends:
            scale_output(layer, partial(_shared, alphas, start))


def _shared(made: list[nn.Module], start: float, like: Tensor) -> nn.Module:
    """The factor of a layer's branches, made at the first."""
    if not made:
        made.append(LearntFactor(like, start))
    return made[0]
