"""Positive and negative sample reinforcement: rewards of fixed sign and size, no baseline.

Token ratios are clipped to [1 - clip, 1 + clip]; the loss is the mean over all
tokens, those of completions without advantage included.
"""

from dataclasses import dataclass

from torch import Tensor

from suite import Paper, Uniform, objective
from suite.train.objective import Objective, Rollouts, clipped, ratio

PAPER = Paper("The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning", arxiv="2506.01347", year=2025)
CLIP = {"clip": Uniform(0.05, 0.5)}


@dataclass
class Signed(Objective):
    """A = positive r - negative (1 - r)."""

    positive: float = 1.0
    negative: float = 1.0
    clip: float = 0.2

    def advantages(self, rewards: Tensor, batch: Rollouts | None = None) -> Tensor:
        return self.positive * rewards - self.negative * (1.0 - rewards)

    def token_losses(self, batch: Rollouts, logp: Tensor, advantages: Tensor) -> Tensor:
        return clipped(ratio(batch, logp), advantages, self.clip, self.clip)


@objective("psr", paper=PAPER, defaults={"clip": 0.2}, space=CLIP, families=("rlvr",), confidence="verified")
@dataclass
class PSR(Signed):
    """Positive sample reinforcement: A = 1 for right completions, 0 for wrong ones."""

    negative: float = 0.0


@objective("nsr", paper=PAPER, defaults={"clip": 0.2}, space=CLIP, families=("rlvr",), confidence="verified")
@dataclass
class NSR(Signed):
    """Negative sample reinforcement: A = -1 for wrong completions, 0 for right ones."""

    positive: float = 0.0


@objective(
    "w-reinforce",
    paper=PAPER,
    defaults={"positive": 0.1, "clip": 0.2},
    space={**CLIP, "positive": Uniform(0.0, 1.0)},
    families=("rlvr",),
    confidence="verified",
)
@dataclass
class WReinforce(Signed):
    """Weighted REINFORCE: A = `positive` (0.1) for right completions, -1 for wrong ones."""

    positive: float = 0.1
