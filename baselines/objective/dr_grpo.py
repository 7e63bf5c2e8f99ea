from dataclasses import dataclass

from torch import Tensor

from suite import Paper, Uniform, objective
from suite.train.objective import Objective, Rollouts, clipped, constant_length, ratio


@objective(
    "dr-grpo",
    paper=Paper("Understanding R1-Zero-Like Training: A Critical Perspective", arxiv="2503.20783", year=2025),
    defaults={"clip": 0.2},
    space={"clip": Uniform(0.05, 0.5)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class DrGRPO(Objective):
    """GRPO done right: no division by the standard deviation or by a completion's own length.

    A = r - group mean; clipped token losses are summed and divided by
    completions times the longest allowed completion.
    """

    clip: float = 0.2

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        return clipped(ratio(batch, logp), advantages, self.clip, self.clip)

    def aggregate(self, batch: Rollouts, losses: Tensor) -> Tensor:
        return constant_length(batch, losses)
