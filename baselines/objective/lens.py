from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.objective.grpo import GRPO
from suite import Paper, Uniform, objective
from suite.train.objective import Rollouts, centred, standardized


@objective(
    "lens",
    paper=Paper(
        "Don't Waste Mistakes: Leveraging Negative RL-Groups via Confidence Reweighting", arxiv="2510.08696", year=2025
    ),
    defaults={"all_wrong_weight": 0.25, "clip": 0.2},
    space={"all_wrong_weight": Uniform(0.0, 1.0), "clip": Uniform(0.05, 0.5)},
    families=("rlvr",),
    confidence="partly",
)
@dataclass
class LENS(GRPO):
    """Confident mistakes earn less than hesitant ones, so that all-wrong groups teach as well.

    With p_i = exp(mean token log-probability) of completion i under the
    sampling policy, a wrong completion's reward becomes
    -(1/G) p_i / (D - p_i), D = max(1 / mean_i(r_i / p_i), 2 max_i p_i), and
    2 max_i p_i in an all-wrong group. Mixed groups are standardized as in GRPO;
    all-wrong groups are only centred, and their token losses weigh
    `all_wrong_weight`. The paper leaves open whether p_i inside the mean is
    length-normalised; here it is.
    """

    all_wrong_weight: float = 0.25

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        if batch is None:
            raise ValueError("the advantages of lens depend on the sampling policy: give batch=Rollouts(...)")
        logp = batch.old_logp.masked_fill(~batch.mask, 0.0)
        confidence = torch.exp(logp.sum(1) / batch.lengths).view_as(rewards)
        largest = 2.0 * confidence.amax(1, keepdim=True)
        importance = 1.0 / (rewards / confidence).mean(1, keepdim=True)
        scale = torch.where(rewards.amax(1, keepdim=True) > 0, torch.maximum(importance, largest), largest)
        calibrated = rewards - (1.0 - rewards) * confidence / (scale - confidence) / rewards.shape[1]
        return torch.where(_all_wrong(rewards)[:, None], centred(calibrated), standardized(calibrated))

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        weight = torch.where(batch.rows(_all_wrong(batch.rewards)), self.all_wrong_weight, 1.0)
        return super().token_losses(batch, logp, advantages) * weight.to(logp)[:, None]


def _all_wrong(rewards: Tensor) -> Tensor:
    return rewards.amax(1) <= 0.0
