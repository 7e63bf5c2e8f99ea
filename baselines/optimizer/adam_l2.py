"""Adam with an L2 penalty: λw is added to the gradient before the moments. The control of `adamw`."""

import torch

from suite import LogUniform, Paper, optimizer

adam_l2 = optimizer(
    "adam-l2",
    paper=Paper("Decoupled Weight Decay Regularization", arxiv="1711.05101", year=2017),
    confidence="verified",
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-4},
    space={"lr": LogUniform(3e-5, 3e-2), "weight_decay": LogUniform(1e-6, 1e-1)},
)(torch.optim.Adam)
