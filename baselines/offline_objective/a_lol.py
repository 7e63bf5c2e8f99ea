"""Advantage-based offline policy gradients (A-LoL): weighted likelihood of traces that did better than expected.

A = max(r - V, 0), where V is the mean reward of the prompt's traces: what the
paper's value network, fitted to rewards of the reference policy, estimates.
Losses are means over all traces of the batch, those without advantage included.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from suite import LogUniform, Paper, Uniform, offline_objective
from suite.train.objective import Rollouts, centred
from suite.train.offline import OfflineObjective, log_ratio, summed

PAPER = Paper("Improving Language Models with Advantage-based Offline Policy Gradients", arxiv="2305.14718", year=2023)
CLIP = {"clip": Uniform(0.1, 1.0)}


@dataclass
class Weighted(OfflineObjective):
    """-weight log p(trace), mean over traces."""

    @abstractmethod
    def likelihood(self, batch: Rollouts, logp: Tensor) -> Tensor:
        """(P, G) log-probabilities of traces, importance weights included."""

    def weights(self, batch: Rollouts) -> Tensor:
        """(P, G) advantages."""
        return centred(batch.rewards).clamp(min=0.0)

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return -(self.weights(batch) * self.likelihood(batch, logp)).mean()


@offline_objective("a-lol", paper=PAPER, defaults={"clip": 0.9}, space=CLIP, families=("rlvr",), confidence="partly")
@dataclass
class ALoL(Weighted):
    """-stopgrad(clip(p / p of the warm start, 1 - clip, 1 + clip)) A log p, of whole traces."""

    clip: float = 0.9

    def likelihood(self, batch: Rollouts, logp: Tensor) -> Tensor:
        ratio = torch.exp(log_ratio(batch, logp).detach())
        return ratio.clamp(1.0 - self.clip, 1.0 + self.clip) * summed(batch, logp)


@offline_objective(
    "a-lol-seq",
    paper=PAPER,
    defaults={"clip": 0.9},
    space=CLIP,
    families=("rlvr",),
    system="a-lol",
    confidence="partly",
)
@dataclass
class ALoLSequence(Weighted):
    """-A sum over tokens of stopgrad(clip(token ratio, 1 - clip, 1 + clip)) log p."""

    clip: float = 0.9

    def likelihood(self, batch: Rollouts, logp: Tensor) -> Tensor:
        ratio = torch.exp((logp - batch.old_logp).detach())
        return summed(batch, ratio.clamp(1.0 - self.clip, 1.0 + self.clip) * logp)


@offline_objective("a-lol-reffree", paper=PAPER, families=("rlvr",), system="a-lol", confidence="partly")
class ALoLReferenceFree(Weighted):
    """-A log p of whole traces: A-LoL with every ratio taken as 1."""

    def likelihood(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return summed(batch, logp)


@offline_objective(
    "a-lol-kl",
    paper=PAPER,
    defaults={"beta": 0.2},
    space={"beta": LogUniform(1e-3, 1.0)},
    families=("rlvr",),
    system="a-lol",
    confidence="partly",
)
class ALoLKL(ALoLReferenceFree):
    """-A log p + beta log(p / p of the warm start), of whole traces."""

    def __init__(self, beta: float = 0.2) -> None:
        self.beta = beta

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return super().trace_loss(batch, logp) + self.beta * log_ratio(batch, logp).mean()


@offline_objective(
    "r-lol", paper=PAPER, defaults={"clip": 0.9}, space=CLIP, families=("rlvr",), system="a-lol", confidence="partly"
)
class RLoL(ALoL):
    """A-LoL with the reward in place of the advantage."""

    def weights(self, batch: Rollouts) -> Tensor:
        return batch.rewards
