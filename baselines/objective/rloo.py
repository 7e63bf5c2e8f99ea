from torch import Tensor

from suite import Paper, objective
from suite.train.objective import Objective, Rollouts, centred, sequence_sum


@objective(
    "rloo",
    paper=Paper(
        "Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in LLMs",
        arxiv="2402.14740",
        year=2024,
    ),
    families=("rlvr",),
    confidence="verified",
)
class RLOO(Objective):
    """REINFORCE with a leave-one-out baseline.

    A = r - mean of the other G - 1 rewards = G/(G - 1) (r - group mean);
    unclipped token ratios, summed over each completion, mean over completions.
    """

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        group = rewards.shape[1]
        return centred(rewards) * (group / (group - 1))

    def aggregate(self, batch: Rollouts, losses: Tensor) -> Tensor:
        return sequence_sum(batch, losses)
