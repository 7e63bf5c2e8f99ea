"""Learning from a fixed set of verified traces: the slot ``offline-objective``, its parts and workload.

Shapes as in `suite.train.objective`: P prompts, G traces a prompt, N = P * G
rows, T positions. Each group holds right and wrong traces. The warm start made
the traces, so `Rollouts.old_logp` is both the behaviour's and the reference's
log-probability.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from suite import cache
from suite.facts import Tier
from suite.seeds import seed_for
from suite.train.decode import completion_logits, sample, token_logp
from suite.train.objective import Rollouts, mixed
from suite.train.policy import END
from suite.train.rlvr import PolicyWorkload, RlvrTask, grouped
from suite.train.workload import Context, Workload


class OfflineObjective(ABC):
    """Turns fixed traces into a loss; the base class of every method of slot ``offline-objective``."""

    @abstractmethod
    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        """Scalar loss of (N, T) log-probabilities; they and `batch.old_logp` are 0 off the mask."""

    def loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        """The loss of one batch.

        Parameters
        ----------
        batch : traces of P prompts, right and wrong ones in every group, with
            the warm start's log-probabilities as `old_logp`.
        logp : (N, T) log-probabilities under the policy being trained; values
            off the mask are ignored, as are those of `old_logp`.
        """
        logp = logp.masked_fill(~batch.mask, 0.0)
        return self.trace_loss(replace(batch, old_logp=batch.old_logp.masked_fill(~batch.mask, 0.0)), logp)


def right(batch: Rollouts) -> Tensor:
    """(P, G) bool: the trace is right."""
    return batch.rewards > 0


def summed(batch: Rollouts, values: Tensor) -> Tensor:
    """(P, G) sums over each trace's tokens of (N, T) values that are 0 off the mask."""
    return values.sum(1).view_as(batch.rewards)


def averaged(batch: Rollouts, values: Tensor) -> Tensor:
    """(P, G) means over each trace's tokens of (N, T) values that are 0 off the mask."""
    return (values.sum(1) / batch.lengths).view_as(batch.rewards)


def token_nll(batch: Rollouts, logp: Tensor, traces: Tensor) -> Tensor:
    """Mean negative log-likelihood of all tokens of the traces where `traces`, (P, G) bool, is True."""
    chosen = traces.reshape(-1, 1) & batch.mask
    return -(logp * chosen).sum() / chosen.sum().clamp(min=1)


def preference(batch: Rollouts, score: Tensor, margin: float = 0.0) -> Tensor:
    """Mean of -log sigmoid(score of right - score of wrong - margin) over all pairs of a group, then over groups.

    Parameters
    ----------
    score : (P, G) of each trace.
    """
    losses = -functional.logsigmoid(score[:, :, None] - score[:, None, :] - margin)
    pairs = right(batch)[:, :, None] & ~right(batch)[:, None, :]
    return ((losses * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)).mean()


class OfflineTask(RlvrTask):
    """An RLVR task whose policy learns from traces that its warm start left, and rolls out nothing.

    A tier's sizes hold ``trace_prompts`` (training prompts that the warm start
    answered), ``samples`` (G answers to each) and ``prompts`` (groups a step),
    and those of evaluation. Groups without a right or without a wrong answer
    are left out.
    """

    def workload(self, context: Context) -> Workload:
        return OfflineWorkload(self, context)

    def traces(self, tier: Tier) -> tuple[Tensor, Tensor]:
        """The frozen traces: prompts (n, S) and the warm start's completions (n, G, limit)."""
        prompts, samples = self.prompts("train")[: tier.sizes["trace_prompts"]], int(tier.sizes["samples"])

        def draw() -> dict[str, np.ndarray]:
            stream = torch.Generator().manual_seed(seed_for(self.name, "traces", 0))
            drawn = sample(self.policy(), prompts, samples, self.limit, stream)
            return {"completions": grouped(drawn.tokens, len(prompts))}

        key = f"{self.name} {self.info.version} {self.warm_start.sha256} {tuple(prompts.shape)} {samples}"
        stored = cache.arrays(f"offline-traces-{self.name}", key, draw)
        return prompts, torch.from_numpy(stored["completions"]).long()


class OfflineWorkload(PolicyWorkload):
    """Passes over the traces, reshuffled every epoch."""

    def __init__(self, task: OfflineTask, context: Context) -> None:
        super().__init__(task, context)
        self.objective: OfflineObjective = context.recipe["offline-objective"].make()
        self.traces = self._traces(task)
        self.order_stream = context.generator("order")
        self.order = torch.empty(0, dtype=torch.long)
        self.batch = self.traces

    def _traces(self, task: OfflineTask) -> Rollouts:
        prompts, completions = task.traces(self.context.tier)
        rewards = torch.from_numpy(task.verified(prompts.numpy().astype(np.uint8), completions.numpy())).float()
        kept = mixed(rewards)
        prompts, completions, rewards = prompts[kept], completions[kept].flatten(0, 1), rewards[kept]
        ended = (completions == END).long().cumsum(1) - (completions == END).long()
        device = self.context.device
        mask = (ended == 0).to(device)
        traces = Rollouts(rewards.to(device), mask, mask.float(), prompts.to(device), completions.to(device))
        return replace(traces, old_logp=self.start_logp(traces))

    def next(self) -> None:
        count = int(self.sizes["prompts"])
        if len(self.order) < count:
            self.order = torch.randperm(len(self.traces.rewards), generator=self.order_stream)
        taken, self.order = self.order[:count], self.order[count:]
        self.batch = self.traces.select(taken.to(self.context.device))
        self.examples += len(self.batch.mask)

    def loss(self) -> Tensor:
        prompts, completions = self.batch.tokens
        logits = completion_logits(self.model, prompts, completions)
        return self.objective.loss(self.batch, token_logp(logits, completions))
