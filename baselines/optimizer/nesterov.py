"""SGD with Nesterov's look-ahead momentum, m ← βm + g, w ← w − η(g + βm)."""

import torch

from suite import LogUniform, Paper, Uniform, optimizer

nesterov = optimizer(
    "nesterov",
    paper=Paper(
        "On the importance of initialization and momentum in deep learning",
        url="https://proceedings.mlr.press/v28/sutskever13.html",
        year=2013,
    ),
    system="sgd",
    defaults={"lr": 0.1, "momentum": 0.9, "nesterov": True},
    space={"lr": LogUniform(1e-3, 3.0), "momentum": Uniform(0.3, 0.99)},
)(torch.optim.SGD)
