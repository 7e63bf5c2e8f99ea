from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrizations

from baselines.reparam.common import weights
from suite import IntUniform, Paper, reparam


@reparam(
    "spectral-norm",
    paper=Paper("Spectral Normalization for Generative Adversarial Networks", arxiv="1802.05957", year=2018),
    defaults={"iterations": 1},
    space={"iterations": IntUniform(1, 5)},
    vmap=False,
)
def spectral_norm(model: nn.Module, *, iterations: int = 1) -> None:
    """W/σ(W) in every layer, σ the largest singular value by power iteration; kernels as (out, in·kh·kw)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module, name, _ in weights(model):
            parametrizations.spectral_norm(module, name, n_power_iterations=iterations)
