"""Adadelta: steps in units of their own running root mean square, Δ = √(u + ε)/√(v + ε)·g, w ← w − ηΔ."""

import torch

from suite import LogUniform, Paper, optimizer

adadelta = optimizer(
    "adadelta",
    paper=Paper("ADADELTA: An Adaptive Learning Rate Method", arxiv="1212.5701", year=2012),
    defaults={"lr": 1.0, "rho": 0.9, "eps": 1e-6},
    space={"lr": LogUniform(0.03, 30.0)},
)(torch.optim.Adadelta)
