"""SGD with Nesterov's look-ahead momentum, m ← βm + g, w ← w − η(g + βm); a search may add an L2 penalty to g."""

import torch

from suite import Choice, LogUniform, Paper, Uniform, optimizer

nesterov = optimizer(
    "nesterov",
    paper=Paper(
        "On the importance of initialization and momentum in deep learning",
        url="https://proceedings.mlr.press/v28/sutskever13.html",
        year=2013,
    ),
    system="sgd",
    defaults={"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0},
    space={
        "lr": LogUniform(1e-3, 3.0),
        "momentum": Uniform(0.3, 0.99),
        "weight_decay": Choice(0.0, 1e-4, 5e-4, 2e-3),
    },
)(torch.optim.SGD)
