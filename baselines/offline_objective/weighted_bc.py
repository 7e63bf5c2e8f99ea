"""Reward-weighted imitation: behaviour cloning and GOLD, means over all traces of the batch."""

from dataclasses import dataclass

from torch import Tensor

from suite import LogUniform, Paper, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective, summed


@offline_objective("weighted-bc", families=("rlvr",), confidence="verified")
class WeightedBC(OfflineObjective):
    """Reward-weighted behaviour cloning, -r log p of whole traces."""

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return -(batch.rewards * summed(batch, logp)).mean()


@offline_objective(
    "reward-gold",
    paper=Paper("Text Generation by Learning from Demonstrations", arxiv="2009.07839", year=2020),
    defaults={"floor": 0.1},
    space={"floor": LogUniform(0.01, 1.0)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class RewardGOLD(OfflineObjective):
    """GOLD with the reward as return: -r times the sum over tokens of stopgrad(max(p, floor)) log p."""

    floor: float = 0.1

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        weights = logp.detach().exp().clamp(min=self.floor)
        return -(batch.rewards * summed(batch, weights * logp)).mean()
