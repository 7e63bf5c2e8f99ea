from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from suite import Choice, LogUniform, Paper, gradient
from suite.train.step import Closure, Stepper

KERNELS = ("matrix", "conv", "head", "embedding")
STILL = 1e-7
PAPER = Paper(
    "Layer rotation: a surprisingly powerful indicator of generalization in deep networks?",
    arxiv="1806.01603",
    year=2019,
)
SPACE = {"rotation": LogUniform(3e-4, 0.3), "train_rest": Choice(False, True)}


@gradient(
    "layca-sgd",
    paper=PAPER,
    defaults={"rotation": 0.037037037037037035, "train_rest": False},
    space=SPACE,
    families=("vision",),
    system="layca",
    confidence="verified",
)
@gradient(
    "layca-adam",
    paper=PAPER,
    defaults={"rotation": 0.00411522633744856, "train_rest": False},
    space=SPACE,
    families=("vision",),
    system="layca",
    confidence="verified",
)
class Layca(Stepper):
    """Layca, controlled layer rotation: every kernel turns by the same angle a step and keeps its norm.

    With w a kernel and s the optimizer's step per unit of learning rate,
    s <- s - <s, w> w / ||w||^2, s <- s ||w|| / ||s|| (0 where ||s|| <= 1e-7),
    w <- w - r s, and w is rescaled to its initial norm. The rotation r follows the
    schedule: the rate below times lr / initial_lr. The two entries wrap any
    optimizer and differ in the published rate, 3^-3 for steps like SGD's and 3^-5
    for steps like Adam's.

    Kernels are the groups of role matrix, conv, head and embedding (tensors of two
    or more dimensions where a group has no role). A kernel that starts at zero has
    no direction to turn from and takes the plain step.

    Parameters
    ----------
    rotation : tangent of the angle of one step at the peak of the schedule.
    train_rest : let gains, biases and the like take the plain step; as published
        they stay at their initial values.
    """

    def __init__(self, optimizer: Optimizer, *, rotation: float, train_rest: bool) -> None:
        super().__init__(optimizer)
        self.rotation = rotation
        self.train_rest = train_rest
        groups = optimizer.param_groups
        self.peaks = [float(group.get("initial_lr", group["lr"])) for group in groups]
        self.tensors: list[Tensor] = [p for group in groups for p in group["params"]]
        self.kernel = [_is_kernel(group, p) for group in groups for p in group["params"]]
        self.norms = torch._foreach_norm([p.detach() for p in self.tensors])
        self.turns = [bool(norm > 0) for norm in self.norms]

    def step(self, closure: Closure) -> Tensor:
        before = [p.detach().clone() for p in self.tensors]
        loss = super().step(closure)
        with torch.no_grad():
            for i, (lr, relative) in enumerate(self._rates()):
                if self.kernel[i] and self.turns[i]:
                    self.tensors[i].copy_(self._turned(i, before[i], lr, relative) if lr > 0 else before[i])
                elif not self.kernel[i] and not self.train_rest:
                    self.tensors[i].copy_(before[i])
        return loss

    def _rates(self) -> Iterator[tuple[float, float]]:
        """For each tensor its learning rate now, and that over its peak."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            yield from ((float(group["lr"]), float(group["lr"]) / peak) for _ in group["params"])

    def _turned(self, i: int, before: Tensor, lr: float, relative: float) -> Tensor:
        return rotated(before, (before - self.tensors[i]) / lr, self.norms[i], self.rotation * relative)

    def state_dict(self) -> dict[str, Any]:
        return {f"norm.{i}": tensor for i, tensor in enumerate(self.norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for i, tensor in enumerate(self.norms):
            tensor.copy_(state[f"norm.{i}"])
        self.turns = [bool(norm > 0) for norm in self.norms]


def rotated(weight: Tensor, step: Tensor, norm: Tensor, rotation: float) -> Tensor:
    """`weight` turned against `step` by atan(rotation), at `norm`; unchanged where the step is radial."""
    tangent = step - (step * weight).sum() / weight.square().sum() * weight
    length = torch.linalg.vector_norm(tangent)
    turned = weight - torch.where(length > STILL, rotation * norm / length, 0.0) * tangent
    return turned * (norm / torch.linalg.vector_norm(turned))


def _is_kernel(group: dict[str, Any], p: Tensor) -> bool:
    return group["role"] in KERNELS if "role" in group else p.ndim > 1
