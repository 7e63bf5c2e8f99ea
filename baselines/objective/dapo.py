from dataclasses import dataclass

from torch import Tensor

from suite import IntUniform, Paper, Uniform, objective
from suite.train.objective import Objective, Rollouts, clipped, mixed, ratio, standardized


@objective(
    "dapo",
    paper=Paper("DAPO: An Open-Source LLM Reinforcement Learning System at Scale", arxiv="2503.14476", year=2025),
    defaults={"clip_low": 0.2, "clip_high": 0.28, "rounds": 10},
    space={"clip_low": Uniform(0.05, 0.5), "clip_high": Uniform(0.05, 0.5), "rounds": IntUniform(1, 16)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class DAPO(Objective):
    """Decoupled clipping and dynamic sampling: GRPO's advantages, clip-higher, mean over all tokens.

    Groups whose rewards are all equal are dropped, and prompts are drawn until
    the batch is full or `rounds` rounds are used up; every generated token
    counts against the budget. The paper's penalty on overlong completions is
    left out: an answer that is cut off earns nothing here.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    rounds: int = 10

    def keep(self, rewards: Tensor) -> Tensor:
        return mixed(rewards)

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        return standardized(rewards)

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        return clipped(ratio(batch, logp), advantages, self.clip_low, self.clip_high)
