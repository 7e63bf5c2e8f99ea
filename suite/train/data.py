"""The slot ``data``: which examples are trained on, and what is said about them."""

from __future__ import annotations

import torch
from torch import Tensor


class DataMethod:
    """What a run learns from; the base class, whose hooks change nothing, of every method of slot ``data``.

    A factory takes hyper-parameters only, so one method serves every family;
    the workload calls the hooks that its family has. Evaluation never passes
    through them. `generator` is a stream of the run's own on the CPU, the same
    for every method. Tokens or passes that a hook asks for are charged.

    Attributes
    ----------
    asks_greedily : RLVR: before each rollout the policy answers the step's
        prompts greedily, and `prompts` is told which answers are right.
    """

    asks_greedily = False

    def subset(self, inputs: Tensor, targets: Tensor | None, generator: torch.Generator) -> Tensor:
        """Indices of the training examples to keep, asked for once, before the first step.

        Parameters
        ----------
        inputs : (n, ...) training inputs; prompts (n, S) in RLVR.
        targets : (n, ...) their targets; None where there are none.
        """
        return torch.arange(len(inputs))

    def prompts(self, solved: Tensor) -> Tensor:
        """RLVR: (P,) bool, the step's prompts to roll out, where (P,) bool `solved` says which the policy gets right.

        Asked only with `asks_greedily`.
        """
        return torch.ones_like(solved)

    def rewards(self, rewards: Tensor, generator: torch.Generator) -> Tensor:
        """RLVR: the rewards that training sees of (..., G) verified ones, 0 or 1."""
        return rewards
