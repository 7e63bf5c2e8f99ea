from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from suite import LogUniform, Paper, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective, averaged, group_mean, right, summed


@offline_objective(
    "pro",
    paper=Paper("Preference Ranking Optimization for Human Alignment", arxiv="2306.17492", year=2024),
    defaults={"sft": 0.05},
    space={"sft": LogUniform(1e-3, 1.0)},
    families=("rlvr",),
    confidence="known",
)
@dataclass
class PRO(OfflineObjective):
    """Preference ranking optimization: each right trace against all wrong ones of its prompt at once; no reference.

    -log [exp(s) / (exp(s) + sum over wrong traces of exp(s_l))] - sft n^2 log p, mean over a prompt's right
    traces, then over prompts; s is a trace's mean token log-probability, n the number of its rivals. The paper
    divides each score by a temperature 1/(reward gap), which is 1 between right and wrong and leaves
    no gradient between wrong traces, so that a ranking is one right trace before the wrong ones.
    """

    sft: float = 0.05

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        good, score = right(batch), averaged(batch, logp)
        gaps = (score[:, None, :] - score[:, :, None]).masked_fill(good[:, None, :], -torch.inf)
        ranking = functional.pad(gaps, (1, 0)).logsumexp(2)
        rivals = (~good).sum(1, keepdim=True).to(score)
        return group_mean(ranking - self.sft * rivals**2 * summed(batch, logp), good).mean()
