from dataclasses import dataclass

from torch import Tensor

from suite import LogUniform, Paper, objective
from suite.train.objective import Objective, Rollouts, ratio, standardized


@objective(
    "cispo",
    paper=Paper(
        "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention", arxiv="2506.13585", year=2025
    ),
    defaults={"cap": 5.0},
    space={"cap": LogUniform(1.1, 10.0)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class CISPO(Objective):
    """Clipped importance weights, no clipped gradients: -stopgrad(min(rho, cap)) A log p.

    GRPO's advantages, mean over all tokens. Only the upper side is capped.
    """

    cap: float = 5.0

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        return standardized(rewards)

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        return -ratio(batch, logp).detach().clamp(max=self.cap) * advantages * logp
