from torch import Tensor

from suite import Paper, data_method
from suite.train.data import DataMethod


@data_method(
    "self-prompts",
    paper=Paper(
        "The Reasoning Boundary Paradox: How Reinforcement Learning Constrains Language Models",
        arxiv="2510.02230",
        year=2025,
    ),
    families=("rlvr",),
    confidence="verified",
)
class SelfPrompts(DataMethod):
    """SELF: of a step's prompts only those that the policy's greedy answer gets wrong are trained on.

    The greedy answers are charged. A step that has no prompt left changes nothing.
    """

    asks_greedily = True

    def prompts(self, solved: Tensor) -> Tensor:
        return ~solved
