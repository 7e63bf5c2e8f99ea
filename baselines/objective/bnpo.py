from dataclasses import dataclass

from torch import Tensor

from baselines.objective.grpo import GRPO
from suite import Uniform, objective
from suite.train.objective import Rollouts, token_mean


@objective(
    "bnpo",
    defaults={"clip": 0.2},
    space={"clip": Uniform(0.05, 0.5)},
    families=("rlvr",),
    confidence="known",
)
@dataclass
class BNPO(GRPO):
    """GRPO's clipped loss divided by the generated tokens of the batch (TRL's ``loss_type="bnpo"``)."""

    def aggregate(self, batch: Rollouts, losses: Tensor) -> Tensor:
        return token_mean(batch, losses)
