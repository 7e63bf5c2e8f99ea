"""Stochastic gradient descent with heavy-ball momentum, m ← βm + g, w ← w − ηm.

β = 0 is plain gradient descent. Decay is off; `sgd-l2` and `sgdw` have it.
"""

import torch

from suite import LogUniform, Paper, Uniform, optimizer

sgd = optimizer(
    "sgd",
    paper=Paper(
        "Some methods of speeding up the convergence of iteration methods",
        url="https://doi.org/10.1016/0041-5553(64)90137-5",
        year=1964,
    ),
    defaults={"lr": 0.1, "momentum": 0.9},
    space={"lr": LogUniform(1e-3, 3.0), "momentum": Uniform(0.0, 0.99)},
)(torch.optim.SGD)
