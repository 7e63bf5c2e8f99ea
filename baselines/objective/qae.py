from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.objective.dapo import DAPO
from suite import IntUniform, Paper, Uniform, objective
from suite.train.objective import EPSILON, Rollouts, standardized


@objective(
    "qae",
    paper=Paper("Quantile Advantage Estimation for Entropy-Safe Reasoning", arxiv="2509.22611", year=2025),
    defaults={"quantile": 0.4, "clip_low": 0.2, "clip_high": 0.28, "rounds": 10},
    space={
        "quantile": Uniform(0.1, 0.9),
        "clip_low": Uniform(0.05, 0.5),
        "clip_high": Uniform(0.05, 0.5),
        "rounds": IntUniform(1, 16),
    },
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class QAE(DAPO):
    """Quantile advantage estimation: DAPO with the group's K-quantile as baseline.

    A = (r - Q_K) / (group std + 1e-6), Q_K interpolated linearly. With 0/1
    rewards the baseline is 0 in hard groups (only right completions move) and 1
    in easy ones (only wrong ones do). K outside (0, 1) gives back the mean.
    """

    quantile: float = 0.4

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        if not 0.0 < self.quantile < 1.0:
            return standardized(rewards)
        baseline = torch.quantile(rewards, self.quantile, dim=1, keepdim=True)
        return (rewards - baseline) / (rewards.std(1, keepdim=True) + EPSILON)
