"""Adam with decoupled weight decay, w ← w(1 − ηλ) − η m̂/(√v̂ + ε).

The decay is multiplied by the learning rate η = η_t α. The paper multiplies it by the schedule's
multiplier η_t only, so λ here is the paper's λ divided by the base learning rate α.
"""

import torch

from suite import LogUniform, Paper, optimizer

adamw = optimizer(
    "adamw",
    paper=Paper("Decoupled Weight Decay Regularization", arxiv="1711.05101", year=2017),
    confidence="verified",
    defaults={"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    space={"lr": LogUniform(3e-5, 3e-2), "weight_decay": LogUniform(1e-4, 1.0)},
)(torch.optim.AdamW)
