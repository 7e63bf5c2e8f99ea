from dataclasses import dataclass

from torch import Tensor

from suite import LogUniform, Paper, Uniform, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective, preference, summed


@offline_objective(
    "h-dpo",
    paper=Paper("Entropy Controllable Direct Preference Optimization", arxiv="2411.07595", year=2024),
    defaults={"alpha": 0.95, "beta": 0.1},
    space={"alpha": Uniform(0.5, 1.2), "beta": LogUniform(0.01, 2.0)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class HDPO(OfflineObjective):
    """DPO with the policy's entropy as a dial: the score of a trace is beta (alpha log p - log p of the warm start).

    alpha = 1 is DPO; below 1 the optimal policy is sharper.
    """

    alpha: float = 0.95
    beta: float = 0.1

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return preference(batch, self.beta * summed(batch, self.alpha * logp - batch.old_logp))
