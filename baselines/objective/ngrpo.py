from dataclasses import dataclass

import torch
from torch import Tensor

from suite import Paper, Uniform, objective
from suite.train.objective import EPSILON, Objective, Rollouts, clipped, ratio


@objective(
    "ngrpo",
    paper=Paper("NGRPO: Negative-enhanced Group Relative Policy Optimization", arxiv="2509.18851", year=2025),
    defaults={"clip_low": 0.16, "clip_high": 0.24},
    space={"clip_low": Uniform(0.05, 0.5), "clip_high": Uniform(0.05, 0.5)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class NGRPO(Objective):
    """Negative-enhanced GRPO: a group's statistics count one more, virtual, right completion.

    A = (r - m) / (s + 1e-6), m and s (unbiased) over the G rewards and r_max = 1,
    so an all-wrong group gets A = -1/sqrt(G + 1). Asymmetric clipping; only
    all-right groups are dropped; mean over all tokens.
    """

    clip_low: float = 0.16
    clip_high: float = 0.24

    def keep(self, rewards: Tensor) -> Tensor:
        return rewards.amin(1) < 1.0

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        extended = torch.cat([rewards, torch.ones_like(rewards[:, :1])], dim=1)
        return (rewards - extended.mean(1, keepdim=True)) / (extended.std(1, keepdim=True) + EPSILON)

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        return clipped(ratio(batch, logp), advantages, self.clip_low, self.clip_high)
