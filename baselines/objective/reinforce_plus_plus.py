from dataclasses import dataclass

import torch
from torch import Tensor

from suite import Paper, Uniform, objective
from suite.train.objective import Objective, Rollouts, centred, clipped, ratio


@objective(
    "reinforce-plus-plus-baseline",
    paper=Paper(
        "REINFORCE++: An Efficient RLHF Algorithm with Robustness to Both Prompt and Reward Models",
        arxiv="2501.03262",
        year=2025,
    ),
    defaults={"clip": 0.2},
    space={"clip": Uniform(0.05, 0.5)},
    families=("rlvr",),
    system="reinforce++-baseline",
    confidence="known",
)
@dataclass
class ReinforcePlusPlusBaseline(Objective):
    """REINFORCE++ with the group mean as baseline: whitening over the whole batch, not the group.

    A = (c - m) / sqrt(v + 1e-8) with c = r - group mean and m, v (unbiased) the
    mean and variance of c over all generated tokens of the batch; without a
    batch every completion counts as one token. Clipped token losses, mean over
    all tokens.
    """

    clip: float = 0.2

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        above = centred(rewards)
        tokens = torch.ones_like(above) if batch is None else batch.mask.sum(1).view_as(above).to(above)
        count = tokens.sum()
        mean = (tokens * above).sum() / count
        variance = (tokens * (above - mean) ** 2).sum() / (count - 1)
        return (above - mean) * torch.rsqrt(variance + 1e-8)

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        return clipped(ratio(batch, logp), advantages, self.clip, self.clip)
