"""What turns verified rollouts into a policy loss: the slot ``objective`` and its exchangeable parts.

Shapes, here and in every objective: P prompts, G completions a prompt,
N = P * G rows (row p * G + g is completion g of prompt p), T token positions.
Everything works in the dtype it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-6  # added to a group's standard deviation


@dataclass(frozen=True)
class Rollouts:
    """Completions with their rewards, as an objective sees them.

    Attributes
    ----------
    rewards : (P, G) verified rewards, 0 or 1.
    mask : (N, T) bool, True where the policy generated the token, its end token included.
    old_logp : (N, T) log-probabilities under the policy that sampled; ignored where the mask is False.
    prompts : (P, S) prompt tokens; an objective does not need them.
    completions : (N, T) generated tokens; an objective does not need them.
    reference_logp : (N, T) log-probabilities under the warm start; given when the
        objective states ``needs_reference``.
    rehearsed : (P,) bool, True for groups of stored right completions of the
        warm start, whose `old_logp` is the warm start's; given when the
        objective states a ``rehearsal_pool``.
    limit : longest allowed completion; 0 stands for T.
    """

    rewards: Tensor
    mask: Tensor
    old_logp: Tensor
    prompts: Tensor | None = None
    completions: Tensor | None = None
    reference_logp: Tensor | None = None
    rehearsed: Tensor | None = None
    limit: int = 0

    @property
    def lengths(self) -> Tensor:
        """(N,) generated tokens of each completion, at least 1, in the dtype of `old_logp`."""
        return self.mask.sum(1).clamp(min=1).to(self.old_logp.dtype)

    @property
    def longest(self) -> int:
        """Longest allowed completion."""
        return self.limit or self.mask.shape[1]

    @property
    def tokens(self) -> tuple[Tensor, Tensor]:
        """Prompts (P, S) and completions (N, T).

        Raises
        ------
        ValueError : the rollouts were made without them.
        """
        if self.prompts is None or self.completions is None:
            raise ValueError("these rollouts hold no tokens; give prompts= and completions=")
        return self.prompts, self.completions

    def rows(self, groups: Tensor) -> Tensor:
        """(P,) values, one a group, as (N,) values, one a row."""
        return groups.repeat_interleave(self.rewards.shape[1])

    def select(self, groups: Tensor) -> Rollouts:
        """The rollouts of some groups: a (P,) bool mask of them, or their indices in the order wanted."""
        rows = torch.arange(self.rewards.numel(), device=groups.device).view(self.rewards.shape)[groups].flatten()
        by_group = ("rewards", "prompts", "rehearsed")
        by_row = ("mask", "old_logp", "completions", "reference_logp")
        picked: dict[str, Any] = {name: _pick(getattr(self, name), groups) for name in by_group}
        picked |= {name: _pick(getattr(self, name), rows) for name in by_row}
        return replace(self, **picked)


def _pick(values: Tensor | None, index: Tensor) -> Tensor | None:
    return None if values is None else values[index]


class Objective:
    """Turns rollouts into a loss; the base class of every method of slot ``objective``.

    `loss` drops the groups that `keep` leaves out, then composes three parts:
    ``aggregate(token_losses(logp, advantages(rewards)) + penalty(logp))``. A
    method overrides the parts its paper changes; most are one line made of the
    functions of this module. The base class is a policy gradient with the
    group mean as baseline, the unclipped token ratio and the mean over all
    tokens.

    Attributes
    ----------
    needs_reference : rollouts come with `Rollouts.reference_logp`.
    needs_entropy : `loss` is called with the policy's token entropies.
    rounds : rollout rounds that may be drawn to fill a batch up to P kept
        groups; every generated token is charged.
    rehearsal_pool : training prompts that the warm start is probed on before
        the first step. Those it always solves leave training; batches carry
        their stored completions instead, in proportion, marked by
        `Rollouts.rehearsed`. The probe's tokens are charged.
    """

    needs_reference = False
    needs_entropy = False
    rounds: int = 1
    rehearsal_pool: int = 0

    def keep(self, rewards: Tensor) -> Tensor:
        """(P,) bool, the groups of (P, G) `rewards` to train on; the others leave every denominator."""
        return torch.ones(len(rewards), dtype=torch.bool, device=rewards.device)

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        """(P, G) advantages of (P, G) rewards.

        `batch` holds the rollouts the rewards belong to, for methods whose
        advantages depend on lengths or probabilities; those that can do without say how.
        """
        return centred(rewards)

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        """(N, T) losses of (N, T) log-probabilities; `advantages` is (N, 1). Values off the mask are ignored."""
        return -ratio(batch, logp) * advantages

    def penalty(self, batch: Rollouts, logp: Tensor, entropy: Tensor | None) -> Tensor | None:
        """(N, T) added to the token losses before they are aggregated (a divergence, an entropy bonus), or None."""
        return None

    def aggregate(self, batch: Rollouts, losses: Tensor) -> Tensor:
        """Scalar loss of (N, T) token losses, which are 0 off the mask."""
        return token_mean(batch, losses)

    def loss(self, batch: Rollouts, logp: Tensor, entropy: Tensor | None = None) -> Tensor:
        """The policy loss of one batch.

        Parameters
        ----------
        batch : rollouts of P groups.
        logp : (N, T) log-probabilities of the generated tokens under the
            policy being trained; values off the mask are ignored.
        entropy : (N, T) entropies in nats of the policy's next-token
            distributions; only with ``needs_entropy``.

        Returns
        -------
        Scalar; 0 with zero gradients when no group is kept.
        """
        kept = self.keep(batch.rewards)
        if not bool(kept.all()):
            rows = batch.rows(kept)
            logp, entropy = logp[rows], _pick(entropy, rows)
            batch = batch.select(kept)
        if not len(batch.rewards):
            return logp.sum()
        logp = logp.masked_fill(~batch.mask, 0.0)
        batch = replace(batch, old_logp=batch.old_logp.masked_fill(~batch.mask, 0.0))
        advantages = self.advantages(batch.rewards, batch).reshape(-1, 1)
        losses = self.token_losses(batch, logp, advantages)
        penalty = self.penalty(batch, logp, entropy)
        if penalty is not None:
            losses = losses + penalty
        return self.aggregate(batch, losses.masked_fill(~batch.mask, 0.0))


# ---------------------------------------------------------------- which groups


def mixed(rewards: Tensor) -> Tensor:
    """(P,) bool: the group holds right and wrong completions (DAPO's dynamic sampling)."""
    return rewards.amax(1) > rewards.amin(1)


# ---------------------------------------------------------------- advantages


def centred(rewards: Tensor) -> Tensor:
    """r - group mean, (P, G)."""
    return rewards - rewards.mean(1, keepdim=True)


def standardized(rewards: Tensor) -> Tensor:
    """(r - group mean) / (group std + 1e-6), (P, G), G >= 2; the standard deviation is the unbiased one."""
    return centred(rewards) / (rewards.std(1, keepdim=True) + EPSILON)


# ---------------------------------------------------------------- ratio and clipping


def ratio(batch: Rollouts, logp: Tensor) -> Tensor:
    """(N, T) probability ratios of the trained to the sampling policy."""
    return torch.exp(logp - batch.old_logp)


def sequence_ratio(batch: Rollouts, logp: Tensor) -> Tensor:
    """(N, T) geometric mean of a completion's token ratios, the same at each of its positions."""
    mean = (logp - batch.old_logp).sum(1) / batch.lengths
    return torch.exp(mean)[:, None].expand_as(logp)


def clipped(ratios: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """PPO's -min(rho A, clip(rho, 1 - low, 1 + high) A), elementwise."""
    return -torch.minimum(ratios * advantages, ratios.clamp(1.0 - low, 1.0 + high) * advantages)


# ---------------------------------------------------------------- aggregation


def token_mean(batch: Rollouts, losses: Tensor) -> Tensor:
    """Mean over all generated tokens of the batch."""
    return losses.sum() / batch.mask.sum().clamp(min=1)


def sequence_mean(batch: Rollouts, losses: Tensor) -> Tensor:
    """Mean over a completion's tokens, then over completions."""
    return (losses.sum(1) / batch.lengths).mean()


def sequence_sum(batch: Rollouts, losses: Tensor) -> Tensor:
    """Sum over a completion's tokens, mean over completions."""
    return losses.sum(1).mean()


def constant_length(batch: Rollouts, losses: Tensor) -> Tensor:
    """Sum over all tokens divided by completions times the longest allowed completion."""
    return losses.sum() / (len(losses) * batch.longest)


# ---------------------------------------------------------------- divergence


def k3(logp: Tensor, reference: Tensor) -> Tensor:
    """Estimator exp(d) - d - 1, d = log q - log p, of KL(p || q) for samples of p, elementwise.

    Source: J. Schulman, "Approximating KL Divergence" (2020).
    """
    difference = reference - logp
    return torch.expm1(difference) - difference
