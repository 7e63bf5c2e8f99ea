"""Adagrad: the gradient over the root of its summed squares, w ← w − η g/(√Σg² + ε)."""

import torch

from suite import LogUniform, Paper, optimizer

adagrad = optimizer(
    "adagrad",
    paper=Paper(
        "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
        url="https://jmlr.org/papers/v12/duchi11a.html",
        year=2011,
    ),
    defaults={"lr": 0.01, "eps": 1e-10},
    space={"lr": LogUniform(3e-4, 0.3)},
)(torch.optim.Adagrad)
