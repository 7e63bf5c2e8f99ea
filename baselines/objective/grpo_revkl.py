from dataclasses import dataclass

from torch import Tensor

from baselines.objective.grpo import GRPO
from suite import LogUniform, Paper, Uniform, objective
from suite.train.objective import Rollouts, k3


@objective(
    "grpo-revkl",
    paper=Paper("DeepSeekMath: Pushing the Limits of Mathematical Reasoning", arxiv="2402.03300", year=2024),
    defaults={"coefficient": 0.01, "clip": 0.2},
    space={"coefficient": LogUniform(1e-4, 0.3), "clip": Uniform(0.05, 0.5)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class GRPOReverseKL(GRPO):
    """GRPO with a penalty on KL(policy || warm start): `coefficient` times the k3 estimate of each token."""

    coefficient: float = 0.01
    needs_reference = True

    def penalty(self, batch: Rollouts, logp: Tensor, entropy: Tensor | None) -> Tensor:
        if batch.reference_logp is None:
            raise ValueError("grpo-revkl needs Rollouts.reference_logp")
        return self.coefficient * k3(logp, batch.reference_logp)
