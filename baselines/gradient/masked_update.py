"""Fine-tuning of a chosen share of the entries of every hidden matrix; all else stays as it was."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from suite import IntUniform, LogUniform, Paper, gradient
from suite.train.step import Closure, Stepper

PAPER = Paper(
    "LIFT the Veil for the Truth: Principal Weights Emerge after Rank Reduction for "
    "Reasoning-Focused Supervised Fine-Tuning",
    arxiv="2506.00772",
    year=2025,
)
DEFAULTS = {"density": 0.05, "every": 50}
SPACE = {"density": LogUniform(0.01, 0.5), "every": IntUniform(10, 400)}
FAMILIES = ("language", "rlvr")


class MaskedUpdate(Stepper):
    """Updates, in each hidden matrix, only the entries of largest `score`.

    The other entries, and all parameters of other roles (embeddings, head, gains,
    biases), keep their values exactly, whatever the optimizer does. At a refresh
    the optimizer's per-entry state is kept inside the new mask and zero outside, so
    that entries new in the mask start from zero moments.

    Parameters
    ----------
    density : share of each matrix's entries that is trained.
    every : steps between refreshes of the masks, U; the first comes after U - 1 steps.
    """

    def __init__(self, optimizer: Optimizer, *, density: float, every: int) -> None:
        super().__init__(optimizer)
        self.density = density
        self.every = every
        self.steps = 0
        self.matrices: list[Tensor] = []
        self.frozen: list[Tensor] = []
        for group in optimizer.param_groups:
            for p in group["params"]:
                hidden = group["role"] == "matrix" if "role" in group else p.ndim == 2
                (self.matrices if hidden else self.frozen).append(p)
        self.masks = self.chosen()

    def score(self, index: int, matrix: Tensor) -> Tensor:
        """Importance of each entry of `matrix`, the `index`-th hidden one; same shape."""
        raise NotImplementedError

    def chosen(self) -> list[Tensor]:
        """Masks (True where trained) of the entries that score highest now."""
        masks = []
        for index, p in enumerate(self.matrices):
            score = self.score(index, p.detach()).flatten()
            kept = score.topk(max(1, round(self.density * score.numel())), sorted=False).indices
            mask = torch.zeros_like(score, dtype=torch.bool).index_fill_(0, kept, True)
            masks.append(mask.view_as(p))
        return masks

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        for p, mask in zip(self.matrices, self.masks, strict=True):
            if p.grad is not None:
                p.grad.mul_(mask)
        for p in self.frozen:
            p.grad = None
        return loss

    def step(self, closure: Closure) -> Tensor:
        before = [p.detach().clone() for p in (*self.matrices, *self.frozen)]
        loss = super().step(closure)
        with torch.no_grad():
            for p, old, mask in zip(self.matrices, before, self.masks, strict=False):
                p.copy_(torch.where(mask, p, old))
            for p, old in zip(self.frozen, before[len(self.matrices) :], strict=True):
                p.copy_(old)
        self.steps += 1
        if (self.steps + 1) % self.every == 0:
            self._refresh()
        return loss

    def _refresh(self) -> None:
        self.masks = self.chosen()
        for p, mask in zip(self.matrices, self.masks, strict=True):
            for value in self.optimizer.state.get(p, {}).values():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    value.mul_(mask)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, **{f"mask.{i}": mask for i, mask in enumerate(self.masks)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for i, mask in enumerate(self.masks):
            mask.copy_(state[f"mask.{i}"])


@gradient(
    "lift",
    paper=PAPER,
    defaults={**DEFAULTS, "rank": 8},
    space={**SPACE, "rank": IntUniform(1, 32)},
    families=FAMILIES,
    confidence="verified",
)
class Lift(MaskedUpdate):
    """LIFT: train the entries that are largest in the best rank-R approximation of each hidden matrix.

    The 5 % of the entries is the paper's figure; its ranks, 32 to 128, and its
    U = 400 are for models of 1 to 8 billion parameters, the defaults here for small
    ones.

    Parameters
    ----------
    rank : R, at most the matrix's own.
    """

    def __init__(self, optimizer: Optimizer, *, density: float, every: int, rank: int) -> None:
        self.rank = rank
        super().__init__(optimizer, density=density, every=every)

    def score(self, index: int, matrix: Tensor) -> Tensor:
        wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
        u, s, vh = torch.linalg.svd(wide, full_matrices=False)
        return ((u[:, : self.rank] * s[: self.rank]) @ vh[: self.rank]).abs()


@gradient(
    "magnitude-mask-ft",
    paper=PAPER,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="lift",
    confidence="known",
)
class MagnitudeMask(MaskedUpdate):
    """Train the entries of largest magnitude of each hidden matrix: `lift` without the rank reduction."""

    def score(self, index: int, matrix: Tensor) -> Tensor:
        return matrix.abs()


@gradient(
    "random-mask-ft",
    paper=PAPER,
    defaults=DEFAULTS,
    space=SPACE,
    families=FAMILIES,
    system="lift",
    confidence="known",
)
class RandomMask(MaskedUpdate):
    """Train a random share of the entries of each hidden matrix, drawn anew at each refresh: the control of `lift`.

    The draws are a fixed function of the step and the matrix's place in the model.
    """

    def score(self, index: int, matrix: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed((self.steps << 20) + index)
        return torch.rand(matrix.shape, generator=generator).to(matrix.device)
