from __future__ import annotations

import math
from functools import partial

from torch import nn

from baselines.reparam.common import Factor, branch_norms, scale_output
from suite import Paper, reparam


@reparam(
    "lns",
    paper=Paper("The Curse of Depth in Large Language Models", arxiv="2502.05795", year=2025),
    defaults={"branches": 2},
    families=("language", "rlvr"),
    system="layernorm-scaling",
    confidence="verified",
)
def layernorm_scaling(model: nn.Module, *, branches: int = 2) -> None:
    """LayerNorm scaling: norm(h)/√l before the branches of layer l = 1, 2, ...; the final norm is not scaled.

    The factor is on the gain and bias of the first norm of every residual branch;
    `branches` of them make a layer. The authors take N(0, 0.02²) weights without
    depth scaling (`lns+normal`).
    """
    for index, layer in enumerate(branch_norms(model)):
        if layer is not None:
            scale_output(layer, partial(Factor, factor=1 / math.sqrt(index // branches + 1)))
