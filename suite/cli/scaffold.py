"""Files to start a method from, one a slot: each works as it is and says where the formula goes.

A template has three blanks: ``{name}``, the method's name, and ``{cls}`` and
``{function}``, the same as names of a class and of a function.
"""

from __future__ import annotations

TEMPLATES = {
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
    "sampler": '''from torch import Tensor

from suite import Paper, sampler
from suite.train.pinn import Sampler


@sampler("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
class {cls}(Sampler):
    """State where the points lie; these are uniform, new in every step."""

    def points(self) -> Tensor:
        return self.domain.uniform(self.count, self.generator)
''',
    "averaging": '''from torch import Tensor, nn

from suite import Paper, Uniform, averaging
from suite.train.average import Averager


@averaging(
    "{name}",
    paper=Paper("title of the paper", arxiv="0000.00000"),
    defaults={{"decay": 0.99}},
    space={{"decay": Uniform(0.9, 0.9999)}},
)
class {cls}(Averager):
    """State the average here; this one is a <- decay a + (1 - decay) w after every update."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        super().__init__(model)
        self.decay = decay
        self.average = {{n: t.clone() for n, t in self.tensors().items() if t.is_floating_point()}}

    def update(self, step: float, total: float) -> None:
        live = self.tensors()
        for name, tensor in self.average.items():
            tensor.lerp_(live[name], 1.0 - self.decay)

    def weights(self) -> dict[str, Tensor]:
        return self.average

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.average)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.average = {{name: tensor.clone() for name, tensor in state.items()}}
''',
    "init": '''import torch
from torch import Tensor

from suite import Paper, init
from suite.train.roles import ParamInfo


@init("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
def {function}(tensor: Tensor, info: ParamInfo, generator: torch.Generator) -> None:
    """State the distribution here; this one is normal with variance 1/fan_in, norms one and biases nothing."""
    if info.role == "norm":
        tensor.fill_(0.0 if info.name.endswith("bias") else 1.0)
    elif info.fan_in:
        tensor.normal_(0.0, info.fan_in**-0.5, generator=generator)
    else:
        tensor.zero_()
''',
    "norm": '''import torch
from torch import Tensor, nn

from suite import Paper, norm


@norm("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
class {cls}(nn.Module):
    """State the normalisation here; this one divides by the channels' root mean square, with a gain."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        channels = 1 if x.ndim == 4 else -1
        gain = self.gain[:, None, None] if x.ndim == 4 else self.gain
        return x * torch.rsqrt(x.square().mean(channels, keepdim=True) + 1e-6) * gain
''',
    "block": '''from collections.abc import Callable

from torch import Tensor, nn

from suite import Paper, block
from suite.train.roles import mark_residual


@block("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
class {cls}(nn.Module):
    """State the block here; this one is W2 act(W1 x + b1) + b2."""

    def __init__(self, features: int, hidden: int, activation: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.up = nn.Linear(features, hidden)
        self.activation = activation(hidden)
        width = int(hidden * getattr(self.activation, "width_factor", 1))
        self.down = nn.Linear(width, features)
        mark_residual(self.down)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))
''',
    "attention": '''import math

import torch
from torch import Tensor, nn

from suite import Paper, attention
from suite.train.roles import mark_residual


@attention("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
class {cls}(nn.Module):
    """State how tokens are mixed here; this one is softmax(Q K^T / sqrt(d)) V in every head."""

    def __init__(self, features: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.inward = nn.Linear(features, 3 * features, bias=False)
        self.outward = nn.Linear(features, features, bias=False)
        mark_residual(self.outward)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, features = x.shape
        split = self.inward(x).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = split.unbind(0)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if self.causal:
            later = torch.ones(time, time, dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        mixed = scores.softmax(-1) @ v
        return self.outward(mixed.transpose(1, 2).reshape(batch, time, features))
''',
    "reparam": '''import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from suite import Paper, reparam
from suite.train.roles import named_parameters


class Form(nn.Module):
    """The weight from what is trained, and back: here w = tanh(v)."""

    def forward(self, trained: Tensor) -> Tensor:
        return torch.tanh(trained)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return torch.atanh(weight.clamp(-0.99, 0.99))


@reparam("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
def {function}(model: nn.Module) -> None:
    """State what stands for the weights here; this one trains v of w = tanh(v), from the recipe's weights."""
    for _, info in list(named_parameters(model)):
        if info.role in ("matrix", "conv"):
            parametrize.register_parametrization(info.module, info.name.rpartition(".")[2], Form())
''',
    "regularizer": '''from collections.abc import Callable

from torch import Tensor, nn

from suite import LogUniform, Paper, regularizer
from suite.train.roles import named_parameters


@regularizer(
    "{name}",
    paper=Paper("title of the paper", arxiv="0000.00000"),
    defaults={{"strength": 1e-4}},
    space={{"strength": LogUniform(1e-6, 1e-2)}},
)
def {function}(model: nn.Module, *, strength: float) -> Callable[[], Tensor]:
    """State the penalty here; this one is strength/2 times the squared weights."""
    penalised = [p for p, info in named_parameters(model) if info.role in ("matrix", "conv", "head")]
    return lambda: 0.5 * strength * sum((p.square().sum() for p in penalised[1:]), penalised[0].square().sum())
''',
    "pde-method": '''from torch import Tensor

from suite import Paper, pde_method
from suite.train.pinn import PdeMethod


@pde_method("{name}", paper=Paper("title of the paper", arxiv="0000.00000"), families=("pde",))
class {cls}(PdeMethod):
    """State how the training loss is formed here; this one averages the residual's square."""

    def penalty(self, residual: Tensor) -> Tensor:
        return residual.square()
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
    "architecture": '''from torch import nn

from suite import Paper, architecture
from suite.train.build import Build, Interface


@architecture("{name}", paper=Paper("title of the paper", arxiv="0000.00000"))
def {function}(build: Build, interface: Interface) -> nn.Module:
    """State the network here; this one is the task's own.

    `interface` says what goes in and comes out; norms, activations, blocks and the head come from `build`.
    """
    return interface.own()
''',
}
