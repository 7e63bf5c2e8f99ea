"""Learning from a fixed set of verified traces: the slot ``offline-objective``, its parts and workload.

Shapes as in `suite.train.objective`: P prompts, G traces a prompt, N = P * G
rows, T positions. Each group holds right and wrong traces. The warm start made
the traces, so `Rollouts.old_logp` is both the behaviour's and the reference's
log-probability.

``python -m suite.train.offline TASK ...`` draws the traces of the named tasks
again, writes their files and prints the hashes to state.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load as parse
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from suite.recipe import reference_recipe
from suite.seeds import registered_name, seed_for
from suite.train.decode import completion_logits, sample, token_logp
from suite.train.objective import Rollouts, mixed
from suite.train.policy import END
from suite.train.rlvr import PolicyWorkload, RlvrTask, grouped
from suite.train.warmstart import shipped
from suite.train.workload import Context, DoesNotApply, Workload

__all__ = ["FrozenTraces", "Imitation", "OfflineObjective", "OfflineTask", "OfflineWorkload"]


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


class Imitation(OfflineObjective):
    """Fits the tokens of chosen traces and leaves the others out.

    The only objectives that have a token loss: in a run it is the one of the
    recipe's slot ``loss``, here its usual choice, -log p.
    """

    @abstractmethod
    def chosen(self, batch: Rollouts) -> Tensor:
        """(P, G) bool: the traces to fit."""

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return token_nll(batch, logp, self.chosen(batch))


# ---------------------------------------------------------------- parts


def right(batch: Rollouts) -> Tensor:
    """(P, G) bool: the trace is right."""
    return batch.rewards > 0


def summed(batch: Rollouts, values: Tensor) -> Tensor:
    """(P, G) sums over each trace's tokens of (N, T) values that are 0 off the mask."""
    return values.sum(1).view_as(batch.rewards)


def averaged(batch: Rollouts, values: Tensor) -> Tensor:
    """(P, G) means over each trace's tokens of (N, T) values that are 0 off the mask."""
    return (values.sum(1) / batch.lengths).view_as(batch.rewards)


def log_ratio(batch: Rollouts, logp: Tensor) -> Tensor:
    """(P, G) log-probability ratios of whole traces, policy over warm start."""
    return summed(batch, logp - batch.old_logp)


def chosen_tokens(batch: Rollouts, traces: Tensor) -> Tensor:
    """(N, T) bool: the tokens of the traces where `traces`, (P, G) bool, is True."""
    return traces.reshape(-1, 1) & batch.mask


def token_nll(batch: Rollouts, logp: Tensor, traces: Tensor) -> Tensor:
    """Mean negative log-likelihood of all tokens of the traces where `traces`, (P, G) bool, is True."""
    tokens = chosen_tokens(batch, traces)
    return -(logp * tokens).sum() / tokens.sum().clamp(min=1)


def group_mean(values: Tensor, traces: Tensor) -> Tensor:
    """(P,) means of (P, G) values over the traces of each group where `traces` is True; 0 where it is nowhere."""
    return (values * traces).sum(1) / traces.sum(1).clamp(min=1)


def trace_mean(values: Tensor, traces: Tensor) -> Tensor:
    """Mean of (P, G) values over all traces of the batch where `traces` is True; 0 where it is nowhere."""
    return (values * traces).sum() / traces.sum().clamp(min=1)


def preference(batch: Rollouts, score: Tensor, margin: float = 0.0) -> Tensor:
    """Mean of -log sigmoid(score of right - score of wrong - margin) over all pairs of a group, then over groups.

    Parameters
    ----------
    score : (P, G) of each trace.
    """
    losses = -functional.logsigmoid(score[:, :, None] - score[:, None, :] - margin)
    pairs = right(batch)[:, :, None] & ~right(batch)[:, None, :]
    return ((losses * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)).mean()


# ---------------------------------------------------------------- traces


@dataclass(frozen=True)
class FrozenTraces:
    """Which traces a task ships.

    Attributes
    ----------
    prompts : the first so many training prompts were answered by the warm start.
    samples : answers to each, G.
    sha256 : hash of the shipped file.
    """

    prompts: int
    samples: int
    sha256: str


class OfflineTask(RlvrTask):
    """An RLVR task whose policy learns from traces that its warm start left, and rolls out nothing.

    The traces are a file beside the task, checked by hash, so that every
    machine learns from the same ones. A tier's sizes hold ``trace_prompts``
    (prompts whose traces are used), ``prompts`` (groups a step) and those of
    evaluation. Groups without a right or without a wrong answer are left out.

    Attributes
    ----------
    frozen : the shipped traces.
    """

    frozen: FrozenTraces

    def workload(self, context: Context) -> Workload:
        return OfflineWorkload(self, context)

    def traces(self, prompts: int) -> tuple[Tensor, Tensor]:
        """The first `prompts` prompts (n, S) with the warm start's completions of each, (n, G, limit).

        Raises
        ------
        ValueError : the file is not the one the task states; the message says how to get it back.
        """
        remedy = f"`python -m suite.train.offline {self.name}` draws new ones, which is a new task version"
        data = shipped(file_of(self), self.frozen.sha256, f"the traces that {self.name} states", remedy)
        return self.prompts("train")[:prompts], parse(data)["completions"][:prompts].long()


def file_of(task: OfflineTask) -> Path:
    """Where the task's traces are shipped: folder ``traces`` beside the task's source."""
    return Path(task.info.path).parent / "traces" / f"{registered_name(task.name)}.safetensors"


def record(task: OfflineTask) -> str:
    """Draw the traces from the warm start at temperature 1, write their file and return its sha256."""
    made = task.frozen
    stream = torch.Generator().manual_seed(seed_for(task.name, "traces", 0))
    prompts = task.prompts("train")[: made.prompts]
    drawn = sample(task.policy(), prompts, made.samples, task.limit, stream)
    data = save({"completions": torch.from_numpy(grouped(drawn.tokens, len(prompts)))})
    file = file_of(task)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- workload


class OfflineWorkload(PolicyWorkload):
    """Passes over the traces, reshuffled every epoch."""

    def __init__(self, task: OfflineTask, context: Context) -> None:
        super().__init__(task, context)
        self.objective: OfflineObjective = context.recipe["offline-objective"].make()
        self.criterion = context.recipe["loss"].make()
        self.times = "progress" in inspect.signature(context.recipe["loss"].entry.factory).parameters
        if not isinstance(self.objective, Imitation) and context.recipe["loss"] != reference_recipe(task.info)["loss"]:
            method = context.recipe["offline-objective"].method
            raise DoesNotApply(f"{method} has no token loss that a method of slot 'loss' could take the place of")
        if self.data.asks_greedily:
            method = context.recipe["data"].method
            raise DoesNotApply(f"{method} chooses prompts by what the policy answers; these answers are fixed")
        self.traces = self._traces(task)
        self.order_stream = context.generator("order")
        self.order = torch.empty(0, dtype=torch.long)
        self.batch = self.traces

    def _traces(self, task: OfflineTask) -> Rollouts:
        prompts, completions = task.traces(int(self.sizes["trace_prompts"]))
        subset = self.training_subset(prompts)
        prompts, completions = prompts[subset], completions[subset]
        verified = torch.from_numpy(task.verified(prompts.numpy(), completions.numpy())).float()
        rewards = self.training_rewards(verified)
        kept = mixed(rewards)
        prompts, completions, rewards = prompts[kept], completions[kept].flatten(0, 1), rewards[kept]
        ended_before = (completions == END).long().cumsum(1) - (completions == END).long()
        device = self.context.device
        mask = (ended_before == 0).to(device)
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
        batch = self.batch
        prompts, completions = batch.tokens
        logits = completion_logits(self.model, prompts, completions)
        if not isinstance(self.objective, Imitation):
            return self.objective.loss(batch, token_logp(logits, completions))
        fitted = chosen_tokens(batch, self.objective.chosen(batch))
        timed = {"progress": self.progress} if self.times else {}
        return self.criterion(logits[fitted], completions[fitted], **timed)


if __name__ == "__main__":
    from suite.registry import registry

    for name in sys.argv[1:]:
        info = registry().task(name)
        print(name, record(info.factory(info)))
