"""AMSGrad as torch has it: Adam whose denominator uses the largest v so far, bias-corrected, ε inside."""

import torch

from suite import LogUniform, Paper, optimizer

amsgrad = optimizer(
    "amsgrad",
    paper=Paper("On the Convergence of Adam and Beyond", arxiv="1904.09237", year=2019),
    confidence="verified",
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": True},
    space={"lr": LogUniform(3e-5, 3e-2)},
)(torch.optim.Adam)
