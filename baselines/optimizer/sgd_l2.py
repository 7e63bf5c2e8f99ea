"""SGD with momentum and an L2 penalty: λw is added to the gradient before the momentum. The control of `sgdw`."""

import torch

from suite import LogUniform, Paper, optimizer

sgd_l2 = optimizer(
    "sgd-l2",
    paper=Paper("Decoupled Weight Decay Regularization", arxiv="1711.05101", year=2017),
    confidence="verified",
    defaults={"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    space={"lr": LogUniform(1e-3, 3.0), "weight_decay": LogUniform(1e-6, 1e-1)},
)(torch.optim.SGD)
