from dataclasses import dataclass

from torch import Tensor

from suite import LogUniform, Paper, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective, log_ratio, preference


@offline_objective(
    "dpo",
    paper=Paper(
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", arxiv="2305.18290", year=2023
    ),
    defaults={"beta": 0.1},
    space={"beta": LogUniform(0.01, 2.0)},
    families=("rlvr",),
    confidence="known",
)
@dataclass
class DPO(OfflineObjective):
    """Direct preference optimization: -log sigmoid(beta [log-ratio of right - log-ratio of wrong]), mean over pairs.

    Log-ratios are of whole traces, policy over warm start; pairs are all right
    with all wrong traces of a prompt.
    """

    beta: float = 0.1

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return preference(batch, self.beta * log_ratio(batch, logp))
