from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from baselines.reparam.common import residual_ends, scale_output
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
    """x + α·F(x) with a learnt scalar α, 0 at the start, for every residual branch.

    α multiplies the weight and bias of the branch's last layer. The paper's
    transformer has no normalisation (`rezero+no-norm`) and one α for the two branches
    of a block. A model without residual branches stays as it is.
    """
    for layer in residual_ends(model):
        scale_output(layer, partial(LearntFactor, start=start))
