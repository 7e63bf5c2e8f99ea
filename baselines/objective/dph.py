"""Rehearsal with a mass-covering divergence: what the warm start always solves is kept, not trained further.

Prompts that the warm start solves in all probed samples get no policy
gradient; stored right completions of theirs cost
``coefficient * token mean of f(u)``, u = policy / warm start, instead. All
other prompts are trained with DAPO's loss.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from baselines.objective.dapo import DAPO
from suite import IntUniform, LogUniform, Paper, Uniform, objective
from suite.train.objective import Rollouts

PAPER = Paper(
    "The Choice of Divergence: A Neglected Key to Mitigating Diversity Collapse in Reinforcement Learning with "
    "Verifiable Reward",
    arxiv="2509.07430",
    year=2025,
)
COMMON = {"clip_low": 0.2, "clip_high": 0.28, "rounds": 1, "rehearsal_pool": 512}
SPACE = {
    "coefficient": LogUniform(1e-3, 1.0),
    "clip_low": Uniform(0.05, 0.5),
    "clip_high": Uniform(0.05, 0.5),
    "rounds": IntUniform(1, 16),
    "rehearsal_pool": IntUniform(32, 2048),
}
LOG_RATIO_BOUND, VALUE_BOUND = 20.0, 10.0


@dataclass
class Rehearsal(DAPO):
    """DAPO's loss on fresh rollouts plus a divergence from the warm start on its stored completions."""

    rounds: int = 1
    coefficient: float = 0.01
    rehearsal_pool: int = 512

    @abstractmethod
    def divergence(self, log_u: Tensor) -> Tensor:
        """f(u) of log u, elementwise, for samples of the warm start."""

    def loss(self, batch: Rollouts, logp: Tensor, entropy: Tensor | None = None) -> Tensor:
        if batch.rehearsed is None:
            return super().loss(batch, logp, entropy)
        rows = batch.rows(batch.rehearsed)
        fresh = replace(batch.select(~batch.rehearsed), rehearsed=None)
        log_u = (logp - batch.old_logp)[rows].masked_fill(~batch.mask[rows], 0.0)
        rehearsal = self.divergence(log_u).sum() / batch.mask[rows].sum().clamp(min=1)
        return super().loss(fresh, logp[~rows], entropy) + self.coefficient * rehearsal


@objective(
    "dph-fkl",
    paper=PAPER,
    defaults={"coefficient": 0.01, **COMMON},
    space=SPACE,
    families=("rlvr",),
    system="dph-rl",
    confidence="partly",
)
class ForwardKL(Rehearsal):
    """f(u) = u - 1 - log u, whose mean is KL(warm start || policy).

    The log-ratio is held to [-20, 20] and the value to [-10, 10].
    """

    def divergence(self, log_u: Tensor) -> Tensor:
        held = log_u.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
        return (torch.expm1(held) - held).clamp(-VALUE_BOUND, VALUE_BOUND)


@objective(
    "dph-js",
    paper=PAPER,
    defaults={"coefficient": 0.05, **COMMON},
    space=SPACE,
    families=("rlvr",),
    system="dph-rl",
    confidence="partly",
)
class JensenShannon(Rehearsal):
    """f(u) = u log u - (u + 1) log((u + 1)/2), whose mean is twice the Jensen-Shannon divergence."""

    def divergence(self, log_u: Tensor) -> Tensor:
        u = torch.exp(log_u)
        return u * log_u - (u + 1.0) * torch.log((u + 1.0) / 2.0)


@objective(
    "dph-alpha",
    paper=PAPER,
    defaults={"alpha": 0.2, "coefficient": 0.01, **COMMON},
    space={**SPACE, "alpha": Uniform(0.05, 0.95)},
    families=("rlvr",),
    system="dph-rl",
    confidence="partly",
)
@dataclass
class Alpha(Rehearsal):
    """f(u) = (u^(1 - alpha) - (1 - alpha) u - alpha) / (alpha (alpha - 1))."""

    alpha: float = 0.2

    def divergence(self, log_u: Tensor) -> Tensor:
        a = self.alpha
        u = torch.exp(log_u)
        return (u ** (1.0 - a) - (1.0 - a) * u - a) / (a * (a - 1.0))
