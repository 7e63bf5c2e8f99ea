"""Adam: bias-corrected moments of the gradient, w ← w − η m̂/(√v̂ + ε), without weight decay."""

import torch

from suite import LogUniform, Paper, optimizer

adam = optimizer(
    "adam",
    paper=Paper("Adam: A Method for Stochastic Optimization", arxiv="1412.6980", year=2014),
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    space={"lr": LogUniform(3e-5, 3e-2)},
)(torch.optim.Adam)
