from dataclasses import dataclass

from torch import Tensor

from suite import Paper, Uniform, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective, averaged, group_mean, right


@offline_objective(
    "redi",
    paper=Paper(
        "Harnessing Negative Signals: Reinforcement Distillation from Teacher Data for LLM Reasoning",
        arxiv="2505.24850",
        year=2025,
    ),
    defaults={"alpha": 0.8},
    space={"alpha": Uniform(0.0, 1.0)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class REDI(OfflineObjective):
    """Asymmetric log-likelihood: -(mean token log p of right) + alpha (mean token log p of wrong), mean over pairs.

    No reference policy. This is the paper's second stage; its first,
    supervised training on right answers, is what the warm start went through.
    """

    alpha: float = 0.8

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        score, good = averaged(batch, logp), right(batch)
        return (self.alpha * group_mean(score, ~good) - group_mean(score, good)).mean()
