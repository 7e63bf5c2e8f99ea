from torch import Tensor

from baselines.objective.grpo import GRPO
from suite import LogUniform, Paper, objective
from suite.train.objective import Rollouts, clipped, sequence_ratio


@objective(
    "gspo",
    paper=Paper("Group Sequence Policy Optimization", arxiv="2507.18071", year=2025),
    defaults={"clip_low": 3e-4, "clip_high": 4e-4},
    space={"clip_low": LogUniform(1e-4, 0.3), "clip_high": LogUniform(1e-4, 0.3)},
    families=("rlvr",),
    confidence="verified",
)
class GSPO(GRPO):
    """GRPO with one ratio a completion, the geometric mean of its token ratios, clipped as a whole.

    s = exp(mean over tokens of log rho); the loss is the mean over completions
    of -min(s A, clip(s) A).
    """

    def __init__(self, clip_low: float = 3e-4, clip_high: float = 4e-4) -> None:
        self.clip_low, self.clip_high = clip_low, clip_high

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        return clipped(sequence_ratio(batch, logp), advantages, self.clip_low, self.clip_high)
