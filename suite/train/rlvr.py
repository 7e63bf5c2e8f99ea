"""Reinforcement learning with verifiable rewards: prompts, an exact verifier, rollouts, an objective."""

from __future__ import annotations

import functools
import hashlib
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite import cache
from suite.facts import Tier
from suite.seeds import seed_for
from suite.train import warmstart
from suite.train.data import DataMethod
from suite.train.decode import Sampled, completion_logits, sample, token_entropy, token_logp
from suite.train.objective import Objective, Rollouts, mixed
from suite.train.policy import END, Policy
from suite.train.warmstart import WarmStart
from suite.train.workload import Context, Predictions, Task, Workload

__all__ = [
    "Objective", "PolicyWorkload", "RlvrTask", "RlvrWorkload", "Rollouts", "WarmStart", "majority_at_k", "pass_at_k",
]  # fmt: skip

PASS_AT = (1, 4, 16)
MEASURED = ("entropy", "kl", "clip_fraction", "dead_groups")
PROBED = 4  # completions that must all be right for a prompt to be rehearsed instead of trained on


class RlvrTask(Task):
    """Generated prompts, an exact verifier and a frozen warm start.

    The warm start's weights belong to one architecture, so these tasks declare
    only slots that leave the model as it is: objective, optimizer, gradient,
    schedule, averaging, regularizer and data.

    Token 0 ends a completion and fills what follows; token i is
    ``alphabet[i - 1]``. All prompts of a task have one length. A prompt's split
    follows from a hash of its operand combination, so that no combination is
    in two splits.

    A tier's sizes hold ``prompts`` and ``samples`` (P and G of a step),
    ``refresh`` (steps between refreshes of the sampling policy),
    ``eval_prompts`` and ``eval_samples`` (validation during the run),
    ``test_prompts`` and ``test_samples``.

    Attributes
    ----------
    alphabet : characters of prompts and completions; "0" to "9" come first, so digit d is token d + 1.
    answer_alphabet : characters that a well-formed completion is made of.
    limit : longest completion, its end token included.
    warm_start : how the warm start was made, and its hash.
    test_tenths : tenths of the operand combinations in the test split; one
        more is the validation split, the others are trained on.
    """

    alphabet: str
    answer_alphabet: str
    limit: int
    warm_start: WarmStart
    test_tenths = 2

    @abstractmethod
    def space(self) -> list[str]:
        """Every prompt of the task, each once."""

    @abstractmethod
    def combination(self, prompt: str) -> str:
        """The prompt's operand combination, equal for prompts that must share a split."""

    @abstractmethod
    def solve(self, prompts: np.ndarray) -> np.ndarray:
        """(n, limit) tokens of a right completion for each of (n, S) prompts."""

    def examples(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompts (n, S) of the training split and right completions (n, limit), for the warm start.

        One solution a prompt, unless a task has reason to show several.
        """
        prompts = self.prompts("train").numpy()
        return prompts, self.solve(prompts)

    def split(self) -> dict[str, list[str]]:
        """The prompts of "train", "validation" and "test", each split in one fixed shuffled order."""
        texts: dict[str, list[str]] = {"test": [], "validation": [], "train": []}
        for prompt in sorted(self.space(), key=_hash):
            tenth = _hash(self.combination(prompt)) % 10 - self.test_tenths
            texts["test" if tenth < 0 else "validation" if tenth == 0 else "train"].append(prompt)
        return texts

    def verify(self, prompts: np.ndarray, completions: np.ndarray) -> np.ndarray:
        """(n,) bool: whether each of (n, limit) completions is right; nothing but the exact answer is."""
        return (completions == self.solve(prompts)).all(axis=1)

    def formed(self, completions: np.ndarray) -> np.ndarray:
        """(n,) bool: whether each of (n, limit) completions has the form of an answer, right or wrong.

        It ended, is not empty and is made of `answer_alphabet`.
        """
        allowed = np.isin(completions, [END, *self.encode([self.answer_alphabet])[0]])
        return allowed.all(axis=1) & (completions[:, 0] != END) & (completions[:, -1] == END)

    def encode(self, texts: list[str]) -> np.ndarray:
        """(n, S) uint8 tokens of n texts of one length."""
        return np.array([[self.alphabet.index(c) + 1 for c in text] for text in texts], dtype=np.uint8)

    def decode(self, tokens: np.ndarray) -> str:
        """Text of (S,) tokens up to the first end token."""
        characters: list[str] = []
        for token in tokens.tolist():
            if token == END:
                break
            characters.append(self.alphabet[token - 1])
        return "".join(characters)

    @functools.cached_property
    def _splits(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(self.encode(found)).long() for name, found in self.split().items()}

    def prompts(self, split: str) -> Tensor:
        """(n, S) tokens of the prompts of "train", "validation" or "test", in one fixed shuffled order."""
        return self._splits[split]

    @property
    def prompt_length(self) -> int:
        return self.prompts("train").shape[1]

    def test_prompts(self, tier: Tier) -> Tensor:
        """(n, S) tokens of the tier's test prompts."""
        return self.prompts("test")[: tier.sizes["test_prompts"]]

    def policy(self) -> Policy:
        """A fresh copy of the warm start."""
        return warmstart.load(self)

    def workload(self, context: Context) -> Workload:
        return RlvrWorkload(self, context)

    def answers(self, tier: Tier) -> dict[str, np.ndarray]:
        """Test prompts (n, S), and ``start``, (n, samples, limit) completions of the warm start."""
        prompts, samples = self.test_prompts(tier), int(tier.sizes["test_samples"])
        key = f"{self.name} {self.info.version} {self.warm_start.sha256} {prompts.shape} {samples}"

        def draw() -> dict[str, np.ndarray]:
            stream = torch.Generator().manual_seed(seed_for(self.name, "start", 0))
            drawn = sample(self.policy(), prompts, samples, self.limit, stream)
            return {"start": grouped(drawn.tokens, len(prompts))}

        start = cache.arrays(f"rlvr-start-{self.name}", key, draw)["start"]
        return {"prompts": prompts.numpy().astype(np.uint8), "start": start}

    def score(self, predictions: Predictions, answers: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics of sampled completions; needs no model.

        Parameters
        ----------
        predictions : ``completions`` (n, k, limit) tokens sampled at
            temperature 1, ``greedy`` (n, limit) tokens, and scalars the run
            measured (`MEASURED`), as many of them as it has.
        answers : as `answers` gives them.

        Returns
        -------
        pass@1, pass@4, pass@16 (unbiased), maj@4, maj@16 (right by majority
        vote), greedy, retention (pass@16 over the warm start's; NaN where that has none), format (share
        of well-formed completions), length (tokens), and the run's own scalars.
        """
        prompts, completions = answers["prompts"], predictions["completions"]
        if completions.shape != answers["start"].shape:
            raise ValueError(f"completions of shape {completions.shape}, not {answers['start'].shape}")
        right, before = self.verified(prompts, completions), self.verified(prompts, answers["start"])
        largest = max(k for k in PASS_AT if k <= completions.shape[1])
        metrics = {f"pass@{k}": pass_at_k(right, k) for k in PASS_AT if k <= largest}
        metrics |= {f"maj@{k}": majority_at_k(completions, right, k) for k in PASS_AT if 1 < k <= largest}
        flat = completions.reshape(-1, self.limit)
        return {
            **metrics,
            "greedy": float(self.verify(prompts, predictions["greedy"]).mean()),
            "retention": metrics[f"pass@{largest}"] / pass_at_k(before, largest) if before.any() else math.nan,
            "format": float(self.formed(flat).mean()),
            "length": float(np.minimum((flat != END).sum(axis=1) + 1, self.limit).mean()),
            **{name: float(predictions[name]) for name in MEASURED if name in predictions},
        }

    def verified(self, prompts: np.ndarray, completions: np.ndarray) -> np.ndarray:
        """(n, k) bool of (n, k, limit) completions."""
        n, k, width = completions.shape
        flat = np.ascontiguousarray(completions).reshape(n * k, width)
        return self.verify(np.repeat(prompts, k, axis=0), flat).reshape(n, k)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def grouped(tokens: Tensor, prompts: int) -> np.ndarray:
    """(P * G, T) tokens as a (P, G, T) uint8 array."""
    samples = len(tokens) // max(prompts, 1)
    return tokens.cpu().numpy().astype(np.uint8).reshape(prompts, samples, tokens.shape[1])


def pass_at_k(right: np.ndarray, k: int) -> float:
    """Mean over problems of 1 - C(n - c, k) / C(n, k): the chance that k draws hold a right one.

    Parameters
    ----------
    right : (problems, n) bool, n samples a problem of which c are right.
    k : draws, at most n.

    Notes
    -----
    The unbiased estimator of M. Chen et al., "Evaluating Large Language Models
    Trained on Code", arXiv 2107.03374, as the product of 1 - k / i over
    i = n - c + 1, ..., n.
    """
    n = right.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem, got {n}")
    wrong = n - right.sum(axis=1)
    i = np.arange(1, n + 1)
    factors = np.where(i[None, :] > wrong[:, None], 1.0 - k / np.maximum(i, k), 1.0)
    return float(1.0 - factors.prod(axis=1).mean())


def majority_at_k(completions: np.ndarray, right: np.ndarray, k: int) -> float:
    """Share of right answers when each k samples in a row vote for one; the earliest of the most frequent wins.

    Parameters
    ----------
    completions : (problems, n, T) tokens; equal ones vote for one answer. Those beyond a multiple of k are unused.
    right : (problems, n) bool.
    k : votes, at most n.

    Notes
    -----
    Majority vote as in B. Brown et al., "Large Language Monkeys: Scaling
    Inference Compute with Repeated Sampling", arXiv 2407.21787.
    """
    used = right.shape[1] // k * k
    votes = completions[:, :used].reshape(-1, k, completions.shape[2])
    same = (votes[:, :, None] == votes[:, None, :]).all(axis=-1)
    winner = same.sum(axis=2).argmax(axis=1)
    return float(right[:, :used].reshape(-1, k)[np.arange(len(votes)), winner].mean())


class PolicyWorkload(Workload):
    """A policy that starts from the task's warm start, with its evaluation; training is the subclass's.

    What training sees goes through the recipe's slot ``data``: `training_prompts`
    and `training_rewards`. Evaluation does not.
    """

    def __init__(self, task: RlvrTask, context: Context) -> None:
        self.task, self.context = task, context
        self.sizes: Mapping[str, Any] = context.tier.sizes
        self.data: DataMethod = context.recipe["data"].make() if "data" in context.recipe else DataMethod()
        self.data_stream = context.generator("data")
        self.model: Policy = task.policy().to(context.device)
        self.reference = self.frozen_start()

    def training_subset(self, prompts: Tensor) -> Tensor:
        """Indices of the (n, S) training prompts that the data method keeps."""
        return self.data.subset(prompts, None, self.data_stream)

    def training_rewards(self, verified: Tensor) -> Tensor:
        """The rewards that training sees of (P, G) verified ones."""
        return self.data.rewards(verified, self.data_stream)

    def since_last(self) -> dict[str, float]:
        """Measurements of training since they were last asked for."""
        return {}

    def of_run(self) -> dict[str, float]:
        """Measurements of training over the whole run."""
        return {}

    def frozen_start(self) -> Policy:
        """A copy of the warm start that is not trained."""
        copy = self.task.policy().to(self.context.device)
        return copy.requires_grad_(False).eval()

    def validate(self) -> dict[str, float]:
        """pass@1 and the policy's state on validation prompts, with the same noise at every evaluation."""
        prompts = self.task.prompts("validation")[: self.sizes["eval_prompts"]].to(self.context.device)
        stream = self.context.generator("evaluation", "validation")
        drawn = sample(self.model, prompts, int(self.sizes["eval_samples"]), self.task.limit, stream)
        completions = drawn.tokens.cpu().numpy()
        return {
            "pass@1": float(self.rewards_of(prompts, drawn).mean()),
            "format": float(self.task.formed(completions).mean()),
            "length": float(drawn.mask.sum(1).float().mean()),
            **self._entropy_and_kl(prompts, drawn),
            **self.since_last(),
        }

    def predict(self) -> dict[str, np.ndarray]:
        prompts = self.task.test_prompts(self.context.tier).to(self.context.device)
        samples, limit = int(self.sizes["test_samples"]), self.task.limit
        drawn = sample(self.model, prompts, samples, limit, self.context.generator("evaluation", "test"))
        greedy = sample(self.model, prompts, 1, limit, None)
        scalars = {**self._entropy_and_kl(prompts, drawn), **self.of_run()}
        return {
            "completions": grouped(drawn.tokens, len(prompts)),
            "greedy": greedy.tokens.cpu().numpy().astype(np.uint8),
            **{name: np.asarray(value) for name, value in scalars.items()},
        }

    @torch.no_grad()
    def _entropy_and_kl(self, prompts: Tensor, drawn: Sampled) -> dict[str, float]:
        """Mean entropy and exact KL(policy || warm start) of the next-token distributions, nats a generated token."""
        logits = completion_logits(self.model, prompts, drawn.tokens)[drawn.mask]
        start = completion_logits(self.reference, prompts, drawn.tokens)[drawn.mask]
        logp, reference = logits.log_softmax(-1), start.log_softmax(-1)
        kl = (logp.exp() * (logp - reference)).sum(-1)
        return {"entropy": float(token_entropy(logits).mean()), "kl": float(kl.mean())}

    def exhibits(self) -> dict[str, Any]:
        """A few validation prompts with sampled completions and their rewards."""
        prompts = self.task.prompts("validation")[:6].to(self.context.device)
        drawn = sample(self.model, prompts, 4, self.task.limit, self.context.generator("evaluation", "exhibits"))
        rewards = self.rewards_of(prompts, drawn).view(len(prompts), -1).tolist()
        groups = grouped(drawn.tokens, len(prompts))
        items = [
            {
                "prompt": self.task.decode(prompt),
                "completions": [
                    {"text": self.task.decode(tokens), "reward": reward, "ended": bool(tokens[-1] == END)}
                    for tokens, reward in zip(group, earned, strict=True)
                ],
            }
            for prompt, group, earned in zip(prompts.cpu().numpy(), groups, rewards, strict=True)
        ]
        return {"kind": "transcripts", "items": items}

    def rewards_of(self, prompts: Tensor, drawn: Sampled) -> Tensor:
        """(P * G,) verified rewards of sampled completions, 0.0 or 1.0."""
        groups = grouped(drawn.tokens, len(prompts))
        right = self.task.verified(prompts.cpu().numpy().astype(np.uint8), groups)
        return torch.from_numpy(right).to(self.context.device, torch.float32).flatten()

    @torch.no_grad()
    def start_logp(self, batch: Rollouts) -> Tensor:
        """(N, T) log-probabilities of the batch's tokens under the warm start."""
        prompts, completions = batch.tokens
        return token_logp(completion_logits(self.reference, prompts, completions), completions)


class RlvrWorkload(PolicyWorkload):
    """Rolls out a group of completions for each prompt, verifies them, and trains on the objective.

    Rollouts come from a copy of the policy that is refreshed every ``refresh``
    steps: the same distribution as one large rollout cut into ``refresh``
    minibatches, but every step costs the same and only tokens that are trained
    on, or dropped by the objective's choice, are generated and charged.
    """

    def __init__(self, task: RlvrTask, context: Context) -> None:
        super().__init__(task, context)
        self.objective: Objective = context.recipe["objective"].make()
        self.sampler = self.frozen_start()
        every = task.prompts("train")
        self.train_prompts = every[self.training_subset(every)]
        self.order_stream = context.generator("order")
        self.rollout_stream = context.generator("rollout")
        self.order = torch.empty(0, dtype=torch.long)
        self.generated = 0
        self.batch = _no_rollouts(context.device)
        self.since_evaluation, self.whole_run = _Tally(), _Tally()
        self.stored, self.rehearsed_at_once = self._probe(self.objective.rehearsal_pool)

    @property
    def spent(self) -> float:
        """Generated tokens."""
        return self.generated

    def since_last(self) -> dict[str, float]:
        shares = self.since_evaluation.shares()
        self.since_evaluation = _Tally()
        return shares

    def of_run(self) -> dict[str, float]:
        return self.whole_run.shares()

    def _probe(self, pool: int) -> tuple[Rollouts, int]:
        """Groups of the warm start's right completions to prompts it always solves, and how many join each batch.

        Those prompts leave the training prompts. A group's wrong completions,
        if any come after the first `PROBED`, are masked out.
        """
        device = self.context.device
        if not pool:
            return _no_rollouts(device), 0
        prompts, samples = self.train_prompts[:pool].to(device), int(self.sizes["samples"])
        drawn = sample(self.reference, prompts, samples, self.task.limit, self.context.generator("probe"))
        self.generated += int(drawn.mask.sum())
        rewards = self.training_rewards(self.rewards_of(prompts, drawn).view(-1, samples))
        solved = rewards[:, :PROBED].amin(1) > 0
        mask = drawn.mask & (rewards.flatten() > 0)[:, None]
        stored = Rollouts(torch.ones_like(rewards), mask, drawn.logp, prompts, drawn.tokens, rehearsed=solved)
        trained_on = torch.ones(len(self.train_prompts), dtype=torch.bool)
        trained_on[: len(prompts)] = ~solved.cpu()
        self.train_prompts = self.train_prompts[trained_on]
        share = float(solved.float().mean())
        count = math.ceil(share * int(self.sizes["prompts"]))
        return stored.select(solved), count

    def _with_rehearsal(self, batch: Rollouts) -> Rollouts:
        """The batch and the next groups of stored completions, in turn."""
        count = self.rehearsed_at_once
        order = (torch.arange(count, device=batch.mask.device) + self.steps * count) % len(self.stored.rewards)
        return _joined(
            replace(batch, rehearsed=torch.zeros_like(batch.rewards[:, 0]).bool()), self.stored.select(order)
        )

    def next(self) -> None:
        """Roll out until P groups are kept, or the objective's rounds are used up."""
        if self.steps % self.sizes["refresh"] == 0:
            self.sampler.load_state_dict(self.model.state_dict())
        wanted = int(self.sizes["prompts"])
        batch = self._rollout(wanted)
        for _ in range(self.objective.rounds - 1):
            if len(batch.rewards) >= wanted:
                break
            batch = _joined(batch, self._rollout(wanted))
        if len(batch.rewards) > wanted:
            batch = batch.select(torch.arange(wanted, device=batch.rewards.device))
        if self.objective.needs_reference and len(batch.rewards):
            batch = replace(batch, reference_logp=self.start_logp(batch))
        if self.rehearsed_at_once:
            batch = self._with_rehearsal(batch)
        self.batch = batch
        self.examples += len(batch.mask)

    def parts(self) -> dict[str, Any]:
        tallies = {"since_evaluation": self.since_evaluation, "whole_run": self.whole_run}
        return {"sampler": self.sampler, **tallies}

    def _rollout(self, count: int) -> Rollouts:
        """Completions of the next `count` training prompts, only the groups that the data and the objective keep."""
        prompts = self._next_prompts(count)
        if self.data.asks_greedily:
            prompts = prompts[self.data.prompts(self._solved(prompts))]
        samples = int(self.sizes["samples"])
        drawn = sample(self.sampler, prompts, samples, self.task.limit, self.rollout_stream)
        rewards = self.training_rewards(self.rewards_of(prompts, drawn).view(len(prompts), samples))
        self.generated += int(drawn.mask.sum())
        for tally in (self.since_evaluation, self.whole_run):
            tally.groups += len(prompts)
            tally.dead += len(prompts) - int(mixed(rewards).sum())
        rollouts = Rollouts(rewards, drawn.mask, drawn.logp, prompts, drawn.tokens)
        return rollouts.select(self.objective.keep(rewards))

    def _solved(self, prompts: Tensor) -> Tensor:
        """(P,) bool: the sampling policy's greedy answer to the prompt is right; its tokens are charged."""
        answers = sample(self.sampler, prompts, 1, self.task.limit, None)
        self.generated += int(answers.mask.sum())
        return self.training_rewards(self.rewards_of(prompts, answers).view(-1, 1))[:, 0] > 0

    def _next_prompts(self, count: int) -> Tensor:
        if len(self.order) < count:
            self.order = torch.randperm(len(self.train_prompts), generator=self.order_stream)
        taken, self.order = self.order[:count], self.order[count:]
        return self.train_prompts[taken].to(self.context.device)

    def loss(self) -> Tensor:
        batch = self.batch
        if not len(batch.rewards):
            return _zero(self.model)
        prompts, completions = batch.tokens
        logits = completion_logits(self.model, prompts, completions)
        logp = token_logp(logits, completions)
        self._count_cut(logp)
        entropy = token_entropy(logits) if self.objective.needs_entropy else None
        return self.objective.loss(batch, logp, entropy)

    def _count_cut(self, logp: Tensor) -> None:
        """Count the tokens whose policy gradient the objective's clipping cuts off."""
        batch = self.batch
        advantages = self.objective.advantages(batch.rewards, batch).reshape(-1, 1)
        free = torch.where(batch.mask, logp.detach(), batch.old_logp).requires_grad_()
        with torch.enable_grad():
            losses = self.objective.token_losses(batch, free, advantages).masked_fill(~batch.mask, 0.0)
            (slope,) = torch.autograd.grad(losses.sum(), free)
        pushed = batch.mask & (advantages != 0)
        cut, tokens = int((pushed & (slope == 0)).sum()), int(pushed.sum())
        for tally in (self.since_evaluation, self.whole_run):
            tally.cut += cut
            tally.pushed += tokens


class _Tally:
    """Sums over training steps."""

    def __init__(self) -> None:
        self.groups = self.dead = self.pushed = self.cut = 0

    def shares(self) -> dict[str, float]:
        """Share of tokens whose gradient was clipped off, and of groups whose rewards were all equal."""
        return {
            "clip_fraction": self.cut / max(self.pushed, 1),
            "dead_groups": self.dead / max(self.groups, 1),
        }


def _no_rollouts(device: torch.device) -> Rollouts:
    empty = torch.empty(0, 0, device=device)
    return Rollouts(empty, empty.bool(), empty, empty.long(), empty.long())


def _joined(a: Rollouts, b: Rollouts) -> Rollouts:
    """The groups of `a`, then those of `b`; fields that `a` has not are left out."""
    names = ("rewards", "mask", "old_logp", "prompts", "completions", "rehearsed")
    present = [name for name in names if getattr(a, name) is not None]
    joined: dict[str, Any] = {name: torch.cat([getattr(a, name), getattr(b, name)]) for name in present}
    return replace(a, **joined)


def _zero(model: nn.Module) -> Tensor:
    """0 with zero gradients for every parameter."""
    return torch.stack([p.sum() * 0.0 for p in model.parameters()]).sum()
