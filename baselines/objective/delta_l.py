from dataclasses import dataclass

from torch import Tensor

from suite import Paper, Uniform, objective
from suite.train.objective import Objective, Rollouts, clipped, ratio, standardized


@objective(
    "delta-l",
    paper=Paper("ΔL Normalization: Rethink Loss Aggregation in RLVR", arxiv="2509.07558", year=2025),
    defaults={"alpha": 1.0, "clip_low": 0.2, "clip_high": 0.3},
    space={"alpha": Uniform(0.0, 1.0), "clip_low": Uniform(0.05, 0.5), "clip_high": Uniform(0.05, 0.5)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class DeltaL(Objective):
    """Length weights of least variance: completion i weighs L_i^-alpha / mean_j L_j^-alpha over the batch.

    GRPO's advantages; weighted clipped token losses are summed and divided by
    completions times the padded length, the width of the mask. alpha = 1 has the
    least gradient variance, alpha = 0 weighs all tokens alike.
    """

    alpha: float = 1.0
    clip_low: float = 0.2
    clip_high: float = 0.3

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        return standardized(rewards)

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        return clipped(ratio(batch, logp), advantages, self.clip_low, self.clip_high)

    def aggregate(self, batch: Rollouts, losses: Tensor) -> Tensor:
        weights = batch.lengths**-self.alpha
        return (losses * (weights / weights.mean())[:, None]).mean()
