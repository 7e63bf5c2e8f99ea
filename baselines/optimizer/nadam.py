"""NAdam: Adam with Nesterov's look-ahead and a rising momentum β1(1 − ½·0.96^(tψ))."""

import torch

from suite import LogUniform, Paper, optimizer

nadam = optimizer(
    "nadam",
    paper=Paper(
        "Incorporating Nesterov Momentum into Adam",
        url="https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ",
        year=2016,
    ),
    defaults={"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "momentum_decay": 4e-3},
    space={"lr": LogUniform(6e-5, 6e-2)},
)(torch.optim.NAdam)
