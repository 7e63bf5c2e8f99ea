"""Gradients sent as their K largest entries, with error feedback; one worker.

K is a share of all parameters together: the entries compete across tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from suite import LogUniform, Paper, gradient
from suite.train.step import Closure, Stepper

DEFAULTS = {"density": 0.05}
SPACE = {"density": LogUniform(0.005, 0.5)}
FAMILIES = ("vision", "language")


def top_k(vector: Tensor, count: int) -> Tensor:
    """`vector` (n,) with all but its `count` largest absolute entries set to zero."""
    kept = vector.abs().topk(count, sorted=False).indices
    return torch.zeros_like(vector).index_copy_(0, kept, vector[kept])


class Compressed(Stepper):
    """A stepper that works on the gradient of all parameters as one vector.

    Parameters
    ----------
    density : share of the entries that are sent.
    """

    def __init__(self, optimizer: Optimizer, *, density: float) -> None:
        super().__init__(optimizer)
        self.trainable: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self.count = max(1, round(density * sum(p.numel() for p in self.trainable)))
        self.memory = torch.cat([torch.zeros_like(p).flatten() for p in self.trainable])

    def compressed(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """The gradients to step with, in the order of `trainable`."""
        raise NotImplementedError

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        with torch.no_grad():
            dense = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.trainable]
            for p, sent in zip(self.trainable, self.compressed(dense), strict=True):
                p.grad = sent.view_as(p)
        return loss

    def split(self, vector: Tensor) -> Sequence[Tensor]:
        """Copies of the parts of `vector` that belong to the parameters."""
        return vector.clone().split([p.numel() for p in self.trainable])

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.copy_(state["memory"])


@gradient(
    "ef21",
    paper=Paper(
        "EF21: A New, Simpler, Theoretically Better, and Practically Faster Error Feedback",
        arxiv="2106.05203",
        year=2021,
    ),
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    confidence="partly",
)
class Ef21(Compressed):
    """EF21 with Top-K: h <- h + TopK(g - h), and h is the gradient of the step; h starts at TopK(g_0).

    EF21-W has the same iterates with this compressor at equal step size.

    Parameters
    ----------
    density : K over the number of parameters.
    """

    def compressed(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        vector = torch.cat([g.flatten() for g in gradients])
        self.memory += top_k(vector - self.memory, self.count)
        return self.split(self.memory)


@gradient(
    "ef-classic",
    paper=Paper(
        "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training of Speech DNNs",
        url="https://doi.org/10.21437/Interspeech.2014-274",
        year=2014,
    ),
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="ef21",
    confidence="known",
)
class EfClassic(Compressed):
    """Classic error feedback with Top-K: p = lr g + e, send TopK(p), e <- p - TopK(p).

    The memory e is in units of the update, so that it stays right while the
    learning rate moves; the optimizer gets TopK(p) / lr. At a learning rate of 0
    nothing is sent.

    Parameters
    ----------
    density : K over the number of parameters.
    """

    def compressed(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        lrs = [float(group["lr"]) for group in self.optimizer.param_groups for _ in group["params"]]
        rates = torch.cat([torch.full_like(g, lr).flatten() for lr, g in zip(lrs, gradients, strict=True)])
        proposed = self.memory + rates * torch.cat([g.flatten() for g in gradients])
        sent = top_k(proposed * (rates > 0), self.count)
        self.memory = proposed - sent
        return self.split(torch.where(rates > 0, sent / rates, 0.0))
