"""``levelfield new``: a file to start a method from."""

from __future__ import annotations

import keyword
import sys
from pathlib import Path
from typing import Annotated

import typer

from suite.registry import UnknownName, registry
from suite.slots import SLOTS

_TEMPLATES = {
    "activation": '''import torch
from torch import Tensor, nn

from suite import Paper, activation


@activation("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
class {cls}(nn.Module):
    """State the formula here; this one is x * sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)
''',
    "optimizer": '''import torch

from suite import LogUniform, Paper, optimizer


@optimizer(
    "{name}",
    paper=Paper("title of the paper", arxiv="0000.00000"),
    defaults={{"lr": 0.1}},
    space={{"lr": LogUniform(1e-3, 1.0)}},
)
class {cls}(torch.optim.Optimizer):
    """State the update here; this one is w <- w - lr * g."""

    def __init__(self, groups, lr: float = 0.1) -> None:
        super().__init__(groups, {{"lr": lr}})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"])
''',
    "schedule": '''from suite import Paper, schedule


@schedule("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
def {function}(step: float, total: float) -> float:
    """State the multiplier of the learning rate here; this one is 1 - t/T."""
    return 1.0 - step / total
''',
    "loss": '''import torch.nn.functional as F
from torch import Tensor

from suite import Paper, loss


@loss("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
def {function}(logits: Tensor, targets: Tensor) -> Tensor:
    """State the loss here; this one is the cross-entropy."""
    return F.cross_entropy(logits, targets)
''',
    "gradient": '''from torch import Tensor

from suite import Paper, gradient
from suite.train.step import Closure, Stepper


@gradient("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
class {cls}(Stepper):
    """State what happens to the gradient here; this one leaves it as it is."""

    def gradients(self, closure: Closure) -> Tensor:
        loss = closure()
        for p in self.parameters():
            p.grad.mul_(1.0)
        return loss
''',
    "objective": '''from torch import Tensor

from suite import Paper, objective
from suite.train.objective import Objective


@objective("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
class {cls}(Objective):
    """State the advantage here; this one is the reward less the group's mean."""

    def advantages(self, rewards: Tensor, batch=None) -> Tensor:
        return rewards - rewards.mean(dim=1, keepdim=True)
''',
    "offline-objective": '''from torch import Tensor

from suite import Paper, offline_objective
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective, summed


@offline_objective("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
class {cls}(OfflineObjective):
    """State the loss here; this one is -r log p of whole traces, mean over traces."""

    def trace_loss(self, batch: Rollouts, logp: Tensor) -> Tensor:
        return -(batch.rewards * summed(batch, logp)).mean()
''',
    "data": '''import torch
from torch import Tensor

from suite import Paper, data_method
from suite.train.data import DataMethod


@data_method("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
class {cls}(DataMethod):
    """State what is kept here; this is every other training example."""

    def subset(self, inputs: Tensor, targets: Tensor | None, generator: torch.Generator) -> Tensor:
        return torch.arange(0, len(inputs), 2)
''',
    "sampler": '''from torch import Tensor

from suite import Paper, sampler
from suite.train.pinn import Sampler


@sampler("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
class {cls}(Sampler):
    """State where the points lie; these are uniform, new in every step."""

    def points(self) -> Tensor:
        return self.domain.uniform(self.count, self.generator)
''',
}


def new(
    slot: Annotated[str, typer.Argument(help="The slot it fills.")],
    name: Annotated[str, typer.Argument(help="Its name: lower case, '-' between words.")],
    folder: Annotated[Path, typer.Option(help="Where the file goes.")] = Path("."),
) -> None:
    """Write a file that works already; fill in the formula, then `levelfield check FILE`."""
    if slot not in SLOTS:
        raise UnknownName(f"no slot named {slot!r}; slots: {', '.join(SLOTS)}")
    if slot not in _TEMPLATES:
        raise ValueError(f"no template for slot {slot!r} yet; signature: {SLOTS[slot].signature}")
    if name in registry().methods:
        raise ValueError(f"{name!r} is taken ({registry().method(name).path}); choose another name")
    if not name.strip("-") or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
        raise ValueError(f"a name is lower-case letters, digits and '-', got {name!r}")
    path = folder / f"{name.replace('-', '_')}.py"
    if path.exists():
        raise ValueError(f"{path} is there already")
    cls = "".join(part.capitalize() for part in name.split("-"))
    function = name.replace("-", "_")
    cls, function = (word if _usable(word) else f"_{word}" for word in (cls, function))
    path.write_text(_TEMPLATES[slot].format(name=name, cls=cls, function=function))
    sys.stdout.write(f"{path}: fill in the formula and the paper, then: levelfield check {path}\n")


def _usable(word: str) -> bool:
    """Whether a class or function may have this name."""
    return word.isidentifier() and not keyword.iskeyword(word)
