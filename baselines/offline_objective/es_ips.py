"""Off-policy learning by importance weights, a prompt's whole completion being the action.

Each maximises the mean of weight times reward; weights differ in what they do
about completions that the warm start seldom gives.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from suite import LogUniform, Paper, Uniform, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective, log_ratio, summed

PAPER = Paper("Exponential Smoothing for Off-Policy Learning", arxiv="2305.15877", year=2023)


class ImportanceWeighted(OfflineObjective):
    """-mean over traces of weight times reward."""

    @abstractmethod
    def weights(self, batch: Rollouts, logp: Tensor) -> Tensor:
        """(P, G) importance weights, through which the gradient flows."""

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return -(self.weights(batch, logp) * batch.rewards).mean()


@offline_objective(
    "es-ips",
    paper=PAPER,
    defaults={"alpha": 0.7},
    space={"alpha": Uniform(0.0, 1.0)},
    families=("rlvr",),
    confidence="partly",
)
@dataclass
class ExponentialSmoothing(ImportanceWeighted):
    """Exponential smoothing: weight p / p0^alpha, p0 the warm start's probability of the completion."""

    alpha: float = 0.7

    def weights(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return torch.exp(summed(batch, logp - self.alpha * batch.old_logp))


@offline_objective("ips", paper=PAPER, families=("rlvr",), system="es-ips", confidence="known")
class IPS(ImportanceWeighted):
    """Inverse propensity scoring: weight p / p0."""

    def weights(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return torch.exp(log_ratio(batch, logp))


@offline_objective(
    "clipped-ips",
    paper=PAPER,
    defaults={"cap": 10.0},
    space={"cap": LogUniform(1.0, 100.0)},
    families=("rlvr",),
    system="es-ips",
    confidence="known",
)
@dataclass
class ClippedIPS(ImportanceWeighted):
    """Weight min(p / p0, cap), without a gradient where it is capped."""

    cap: float = 10.0

    def weights(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return torch.exp(log_ratio(batch, logp)).clamp(max=self.cap)


@offline_objective(
    "ix",
    paper=PAPER,
    defaults={"gamma": 0.1},
    space={"gamma": LogUniform(1e-3, 1.0)},
    families=("rlvr",),
    system="es-ips",
    confidence="known",
)
@dataclass
class ImplicitExploration(ImportanceWeighted):
    """Implicit exploration: weight p / (p0 + gamma)."""

    gamma: float = 0.1

    def weights(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return summed(batch, logp).exp() / (summed(batch, batch.old_logp).exp() + self.gamma)
