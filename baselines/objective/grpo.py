from dataclasses import dataclass

from torch import Tensor

from suite import Paper, Uniform, objective
from suite.train.objective import Objective, Rollouts, clipped, ratio, sequence_mean, standardized


@objective(
    "grpo",
    paper=Paper("DeepSeekMath: Pushing the Limits of Mathematical Reasoning", arxiv="2402.03300", year=2024),
    defaults={"clip": 0.2},
    space={"clip": Uniform(0.05, 0.5)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class GRPO(Objective):
    """Group relative policy optimization, without a KL term.

    A = (r - group mean) / (group std + 1e-6) with the unbiased standard
    deviation; token ratios clipped to [1 - clip, 1 + clip]; mean over each
    completion's tokens, then over completions.
    """

    clip: float = 0.2

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        return standardized(rewards)

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        return clipped(ratio(batch, logp), advantages, self.clip, self.clip)

    def aggregate(self, batch: Rollouts, losses: Tensor) -> Tensor:
        return sequence_mean(batch, losses)
