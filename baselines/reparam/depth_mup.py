from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn
from torch.nn.utils import parametrize

from baselines.reparam.common import HIDDEN, Factor, residual_ends
from baselines.reparam.ntk_param import Times
from suite import LogUniform, Paper, reparam
from suite.train.roles import named_parameters


def in_branches(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """(layer, attribute) of the weights and biases of every residual branch's linear layers and convolutions.

    A branch is what is registered, in the module that holds its last layer, after the
    branch before; the model's first weight reads the input and is in none.
    """
    names = {id(module): name for name, module in model.named_modules()}
    homes = [names[id(end)].rpartition(".")[0] for end in residual_ends(model)]
    first: nn.Module | None = None
    for _, info in list(named_parameters(model)):
        if first is None and info.fan_in:
            first = info.module
        if info.role in HIDDEN and info.branch <= info.depth and info.module is not first:
            home = homes[info.branch - 1]
            if info.name.startswith(f"{home}." if home else ""):
                yield info.module, info.name.rpartition(".")[2]
                if getattr(info.module, "bias", None) is not None:
                    yield info.module, "bias"


@reparam(
    "depth-mup",
    paper=Paper(
        "Tensor Programs VI: Feature Learning in Infinite-Depth Neural Networks", arxiv="2310.02244", year=2023
    ),
    defaults={"scale": 1.0},
    space={"scale": LogUniform(0.25, 4.0)},
    families=("vision", "language"),
    confidence="partly",
)
def depth_mup(model: nn.Module, *, scale: float = 1.0) -> None:
    """x + (a/√L)·F(x; W) for each of L residual branches, with 1/√L of the learning rate on W under Adam.

    The weights are stored as √L·W, so that a step of the optimizer moves W by 1/√L of
    it: the paper's rule for Adam and other optimizers whose step does not depend on the
    gradient's size. For SGD, whose rate it leaves alone, depth-μP is `stable-uniform`.
    The paper takes branches of one weight matrix, followed by the nonlinearity and by
    the subtraction of the mean over features, which is left out here.
    """
    branches = residual_ends(model)
    root = math.sqrt(max(len(branches), 1))
    for layer, name in list(in_branches(model)):
        parametrize.register_parametrization(layer, name, Times(getattr(layer, name), 1 / root))
    for end in branches:
        factor = Factor(next(end.parameters()), scale / root)
        for name in [n for n in ("weight", "bias") if getattr(end, n, None) is not None]:
            parametrize.register_parametrization(end, name, factor)
