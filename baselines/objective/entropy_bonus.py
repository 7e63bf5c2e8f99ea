from dataclasses import dataclass

from torch import Tensor

from baselines.objective.grpo import GRPO
from suite import LogUniform, Paper, Uniform, objective
from suite.train.objective import Rollouts


@objective(
    "entropy-bonus",
    paper=Paper(
        "Function Optimization Using Connectionist Reinforcement Learning Algorithms",
        url="https://doi.org/10.1080/09540099108946587",
        year=1991,
    ),
    defaults={"coefficient": 0.02, "clip": 0.2},
    space={"coefficient": LogUniform(1e-4, 0.3), "clip": Uniform(0.05, 0.5)},
    families=("rlvr",),
    confidence="known",
)
@dataclass
class EntropyBonus(GRPO):
    """GRPO with a reward on entropy: `coefficient` times each next-token distribution's entropy is subtracted."""

    coefficient: float = 0.02
    needs_entropy = True

    def penalty(self, batch: Rollouts, logp: Tensor, entropy: Tensor | None) -> Tensor:
        if entropy is None:
            raise ValueError("entropy-bonus needs the policy's token entropies")
        return -self.coefficient * entropy
