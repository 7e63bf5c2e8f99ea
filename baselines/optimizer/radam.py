"""Rectified Adam: momentum only while the variance estimate rests on too few steps, then a rectified Adam step."""

import torch

from suite import LogUniform, Paper, optimizer

radam = optimizer(
    "radam",
    paper=Paper("On the Variance of the Adaptive Learning Rate and Beyond", arxiv="1908.03265", year=2019),
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    space={"lr": LogUniform(3e-5, 3e-2)},
)(torch.optim.RAdam)
