from torch import Tensor

from suite import Paper, objective
from suite.train.objective import Objective, Rollouts, sequence_sum


@objective(
    "reinforce",
    paper=Paper(
        "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
        url="https://doi.org/10.1007/BF00992696",
        year=1992,
    ),
    families=("rlvr",),
    confidence="known",
)
class Reinforce(Objective):
    """REINFORCE without a baseline, -r log p(completion), mean over completions; no ratio, no clipping."""

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        return rewards

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        return -advantages * logp

    def aggregate(self, batch: Rollouts, losses: Tensor) -> Tensor:
        return sequence_sum(batch, losses)
