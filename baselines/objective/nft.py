"""Negative-aware fine-tuning: a supervised loss on right completions and on an implicit policy of wrong ones.

With r the group's share of right completions and R the token ratio to the
sampling policy, a right completion's tokens cost -log R; a wrong one's cost
-log max((1 - r R) / (1 - r), 1), where the maximum changes the value but not
the gradient (straight through). Both are weighted by w(r), summed over tokens
and completions, and divided by 1,000. Groups that are all right or all wrong
are dropped.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from suite import Paper, Uniform, objective
from suite.train.objective import Objective, Rollouts, mixed, ratio

PAPER = Paper(
    "Bridging Supervised Learning and Reinforcement Learning in Math Reasoning", arxiv="2505.18116", year=2025
)
DEFAULTS = {"negative_weight": 1.0}
SPACE = {"negative_weight": Uniform(0.0, 1.0)}
FLOOR, NORMALIZER = 1.0, 1000.0
SHARE_BOUNDS = (0.02, 0.98)


@dataclass
class NegativeAware(Objective):
    """The loss for a weight w(r) of the group's share of right completions."""

    negative_weight: float = 1.0

    @abstractmethod
    def weight(self, share: Tensor) -> Tensor:
        """w(r) of shares r in (0, 1)."""

    def keep(self, rewards: Tensor) -> Tensor:
        return mixed(rewards)

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        """Those of the policy gradient that the loss equals where R = 1: w for right, -w r/(1 - r) for wrong."""
        share = rewards.mean(1, keepdim=True).clamp(*SHARE_BOUNDS)
        wrong = self.negative_weight * share / (1.0 - share)
        return self.weight(share) * (rewards - (1.0 - rewards) * wrong)

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        share = batch.rows(batch.rewards.mean(1).clamp(*SHARE_BOUNDS))[:, None]
        right = batch.rewards.reshape(-1, 1)
        implicit = (1.0 - share * ratio(batch, logp)) / (1.0 - share)
        floored = implicit + (implicit.clamp(min=FLOOR) - implicit).detach()
        losses = right * (logp - batch.old_logp) + (1.0 - right) * self.negative_weight * torch.log(floored)
        return -self.weight(share) * losses

    def aggregate(self, batch: Rollouts, losses: Tensor) -> Tensor:
        return losses.sum() / NORMALIZER


@objective("nft", paper=PAPER, defaults=DEFAULTS, space=SPACE, families=("rlvr",), confidence="verified")
class NFT(NegativeAware):
    """w = 1 - r: strictly on-policy, the gradient of advantages r_i - r (Dr. GRPO's)."""

    def weight(self, share: Tensor) -> Tensor:
        return 1.0 - share


@objective(
    "nft-uniform", paper=PAPER, defaults=DEFAULTS, space=SPACE, families=("rlvr",), system="nft", confidence="verified"
)
class NFTUniform(NegativeAware):
    """w = 1: every group counts alike."""

    def weight(self, share: Tensor) -> Tensor:
        return torch.ones_like(share)


@objective(
    "nft-sqrt", paper=PAPER, defaults=DEFAULTS, space=SPACE, families=("rlvr",), system="nft", confidence="verified"
)
class NFTSqrt(NegativeAware):
    """w = sqrt((1 - r)/r): strictly on-policy, the gradient of GRPO's advantages with the population std."""

    def weight(self, share: Tensor) -> Tensor:
        return torch.sqrt((1.0 - share) / share)
