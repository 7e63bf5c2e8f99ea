"""Loss weights that follow the gradients of the terms."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from suite.train.pinn import PdeMethod, Problem


class BalancedTerms(PdeMethod):
    """Weighs each loss term by a rule on the terms' gradients, refreshed every `period` steps.

    New weights enter a moving average that keeps `decay` of the old ones. Each
    refresh is charged one gradient evaluation a term; within a step the
    weights stay as they are.

    Parameters
    ----------
    problem : the equation and its conditions.
    period : steps between refreshes.
    decay : share of the old weights that stays.
    """

    def __init__(self, problem: Problem, *, period: int, decay: float) -> None:
        super().__init__(problem)
        self.period, self.decay = period, decay
        self.steps = 0
        self.due = False
        self.register_buffer("balance", torch.ones(1 + len(problem.conditions)))

    @abstractmethod
    def rule(self, network: nn.Module, points: Tensor, terms: list[Tensor]) -> Tensor:
        """New weights (terms,) from the current terms, each differentiable in the network's parameters."""

    def set_progress(self, fraction: float) -> None:
        self.due = self.steps % self.period == 0
        self.steps += 1

    def loss(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> Tensor:
        terms = self.terms(network, points, weights)
        if self.due:
            self.due = False
            self.problem.charged += len(terms)
            found = self.rule(network, points, terms).detach()
            fresh = torch.where(torch.isfinite(found), found, self.balance)
            self.balance.lerp_(fresh, 1 - self.decay)
        return (self.balance * torch.stack(terms)).sum()

    @staticmethod
    def parameters_of(network: nn.Module) -> list[Tensor]:
        """The network's trainable parameters."""
        return [p for p in network.parameters() if p.requires_grad]


def flat_gradient(value: Tensor, parameters: list[Tensor]) -> Tensor:
    """Gradient of a scalar with respect to all parameters, in one vector; the graph is kept."""
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in zip(found, parameters, strict=True)]
    )
