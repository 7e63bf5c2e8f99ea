from dataclasses import dataclass

from torch import Tensor

from suite import LogUniform, Paper, Uniform, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective, averaged, preference


@offline_objective(
    "simpo",
    paper=Paper("SimPO: Simple Preference Optimization with a Reference-Free Reward", arxiv="2405.14734", year=2024),
    defaults={"beta": 2.0, "margin": 0.5},
    space={"beta": LogUniform(0.1, 10.0), "margin": Uniform(0.0, 2.0)},
    families=("rlvr",),
    confidence="known",
)
@dataclass
class SimPO(OfflineObjective):
    """Simple preference optimization: the score of a trace is beta times its mean token log-probability; no reference.

    Mean of -log sigmoid(score of right - score of wrong - margin) over all pairs of a prompt.
    """

    beta: float = 2.0
    margin: float = 0.5

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return preference(batch, self.beta * averaged(batch, logp), self.margin)
