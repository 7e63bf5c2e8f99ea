"""AdamW with thirty times the usual decay, λ = 1.6: the data-limited recipe of language-model pretraining.

The rate is three times the usual one as well. The recipe's further epochs are a matter of the task's budget; its
ensembles and their distillation need several models in one run.
"""

import torch

from suite import LogUniform, Paper, optimizer

heavy_decay = optimizer(
    "heavy-decay",
    paper=Paper("Pre-training under infinite compute", arxiv="2509.14786", year=2025),
    defaults={"lr": 3e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1.6},
    space={"lr": LogUniform(1e-4, 3e-2), "weight_decay": LogUniform(0.1, 6.4)},
    families=("language",),
    system="infinite-compute",
    confidence="verified",
)(torch.optim.AdamW)
