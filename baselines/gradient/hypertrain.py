"""Hyper-training: a hypernetwork gives the weights for every strength of their penalty, and the strength is learned."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from suite import IntUniform, LogUniform, Paper, Uniform, gradient
from suite.train.step import Closure, Stepper

PAPER = Paper("Stochastic Hyperparameter Optimization through Hypernetworks", arxiv="1802.09419", year=2018)
FAMILIES = ("vision", "language")
WEIGHTS = ("matrix", "conv", "embedding", "head")
BETAS, EPS = (0.9, 0.999), 1e-8
PRIOR = 1.5  # standard deviation of the hyper-parameter in the global variant

Group = dict[str, Any]


class HyperTraining(Stepper):
    """What the variants share: weights w = b + V f(h), with b and V trained by the recipe's optimizer.

    h is the logarithm of the strength of a penalty on the weights, exp(h - start) *
    strength * ||w||^2. V is zero at first, so that training starts from the model's own weights. Between
    steps the model holds the weights that belong to the current h. h goes down the
    loss of held-out batches (of the validation split), through the weights alone, by Adam.

    An optimizer that evaluates its loss itself keeps h where it starts.

    Parameters
    ----------
    strength : of the penalty at the start.
    hyper_rate : Adam's rate for h.
    units : length of f(h).
    """

    start = 1.0

    def __init__(self, optimizer: Optimizer, *, strength: float, hyper_rate: float, units: int = 1) -> None:
        super().__init__(optimizer)
        self.strength, self.hyper_rate = strength, hyper_rate
        self.held_out: Closure | None = None
        self.count = 0
        self.hyper = torch.tensor([self.start, 0.0, 0.0, 0.0], dtype=torch.float64)  # h, Adam's moments and step
        self.stream = torch.Generator().manual_seed(0)
        groups: list[Group] = [] if self.needs_closure else list(optimizer.param_groups)
        self.tensors: list[Tensor] = [p for group in groups for p in group["params"]]
        self.base = [p.detach().clone() for p in self.tensors]
        self.slopes: list[Tensor] = []
        for group in groups:
            self.add(group, [torch.zeros((units, *p.shape), dtype=p.dtype, device=p.device) for p in group["params"]])

    def add(self, group: Group, slopes: list[Tensor]) -> None:
        """Give the optimizer a group of V's tensors, with the settings of another."""
        self.slopes += [slope.requires_grad_() for slope in slopes]
        self.optimizer.add_param_group({**group, "params": slopes, "role": "other", "weight_decay": 0.0})

    def set_held_out(self, closure: Closure) -> None:
        """Take what leaves the gradients of a fresh held-out batch."""
        self.held_out = closure

    @property
    def h(self) -> float:
        """The current hyper-parameter."""
        return float(self.hyper[0])

    def draw(self) -> float:
        """The hyper-parameter at which the hypernetwork takes its next step: the current one."""
        return self.h

    def features(self, h: float) -> Tensor:
        """f(h), (units,)."""
        return torch.tensor([h], dtype=torch.float64)

    def slope_of_features(self, h: float) -> Tensor:
        """f'(h), (units,)."""
        return torch.ones(1, dtype=torch.float64)

    def step(self, closure: Closure) -> Tensor:
        if self.needs_closure:
            return self.optimizer.step(lambda: self.penalised(closure, self.start))  # type: ignore[arg-type, return-value]
        self.count += 1
        return self.weight_step(closure)

    def weight_step(self, closure: Closure) -> Tensor:
        """One step of b and V, at a drawn hyper-parameter."""
        h = self.draw()
        self.show(h)
        loss = self.penalised(closure, h)
        self.pass_on(h)
        with torch.no_grad():
            torch._foreach_copy_(self.tensors, self.base)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.base, self.tensors)
        self.show(self.h)
        return loss

    def penalised(self, closure: Closure, h: float) -> Tensor:
        """The closure's loss; leaves the gradients of the loss and of the penalty."""
        loss = self.gradients(closure)
        factor = 2 * self.strength * math.exp(h - self.start)
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None and _is_weight(group, p):
                    p.grad.add_(p.detach(), alpha=factor)
        return loss

    @torch.no_grad()
    def show(self, h: float) -> None:
        """Put the weights that belong to `h` into the model."""
        features = self.features(h)
        for p, base, slope in zip(self.tensors, self.base, self.slopes, strict=True):
            p.copy_(base + torch.tensordot(features.to(p.device, p.dtype), slope, 1))

    @torch.no_grad()
    def pass_on(self, h: float) -> None:
        """Give V the gradients that follow from the weights' at `h`."""
        features = self.features(h)
        for p, slope in zip(self.tensors, self.slopes, strict=True):
            if p.grad is not None:
                slope.grad = torch.tensordot(features.to(p.device, p.dtype), p.grad, 0)

    @torch.no_grad()
    def along(self) -> list[Tensor | None]:
        """<gradient, V>, (units,), of each weight that has a gradient."""
        return [
            None if p.grad is None else slope.reshape(len(slope), -1) @ p.grad.flatten()
            for p, slope in zip(self.tensors, self.slopes, strict=True)
        ]

    def strength_step(self) -> Tensor | None:
        """One step of h down the loss of a held-out batch; returns that loss."""
        if self.held_out is None:
            return None
        loss = self.held_out()
        products = [product.double().cpu() for product in self.along() if product is not None]
        slope = sum(float(product @ self.slope_of_features(self.h)) for product in products)
        for p in self.tensors:
            p.grad = None
        h, mean, square, count = self.hyper.tolist()
        mean = BETAS[0] * mean + (1 - BETAS[0]) * slope
        square = BETAS[1] * square + (1 - BETAS[1]) * slope**2
        root = math.sqrt(square / (1 - BETAS[1] ** (count + 1))) + EPS
        h -= self.hyper_rate * mean / (1 - BETAS[0] ** (count + 1)) / root
        self.hyper = torch.tensor([h, mean, square, count + 1], dtype=torch.float64)
        self.show(h)
        return loss

    def state_dict(self) -> dict[str, Any]:
        tensors = {f"base.{i}": t for i, t in enumerate(self.base)}
        tensors |= {f"slope.{i}": t.detach() for i, t in enumerate(self.slopes)}
        return {"count": self.count, "hyper": self.hyper, "stream": self.stream.get_state(), **tensors}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.hyper = state["count"], state["hyper"].clone()
        self.stream.set_state(state["stream"])
        for i, base in enumerate(self.base):
            base.copy_(state[f"base.{i}"])
        for i, slope in enumerate(self.slopes):
            slope.copy_(state[f"slope.{i}"])


@gradient(
    "hypertrain-simplified",
    paper=PAPER,
    defaults={"strength": 1e-4, "hyper_rate": 0.1, "every": 10},
    space={"strength": LogUniform(1e-6, 1e-2), "hyper_rate": LogUniform(1e-3, 1.0), "every": IntUniform(1, 20)},
    families=FAMILIES,
    system="hypertrain",
    passes=1.1,
    confidence="verified",
)
class HyperTrainingSimplified(HyperTraining):
    """Hyper-training with a linear hypernetwork w = b + V h that is trained at the current strength only.

    b and V take the gradient g of the loss with its penalty as g and h g, so that weights move
    about twice as far as the learning rate says; every `every` steps, h takes one.

    Parameters
    ----------
    every : steps of the hypernetwork for each step of h.
    """

    def __init__(self, optimizer: Optimizer, *, strength: float, hyper_rate: float, every: int) -> None:
        super().__init__(optimizer, strength=strength, hyper_rate=hyper_rate)
        self.every = every

    def step(self, closure: Closure) -> Tensor:
        loss = super().step(closure)
        if not self.needs_closure and self.count % self.every == 0:
            self.strength_step()
        return loss


@gradient(
    "hypertrain-local",
    paper=PAPER,
    defaults={"strength": 1e-4, "hyper_rate": 0.1, "every": 10, "spread": 3.2e-3},
    space={
        "strength": LogUniform(1e-6, 1e-2),
        "hyper_rate": LogUniform(1e-3, 1.0),
        "every": IntUniform(1, 20),
        "spread": LogUniform(1e-3, 1.0),
    },
    families=FAMILIES,
    system="hypertrain",
    passes=1.1,
    confidence="verified",
)
class HyperTrainingLocal(HyperTrainingSimplified):
    """`hypertrain-simplified` with the hypernetwork trained around the current strength, at h + spread z, z ~ N(0, 1).

    Parameters
    ----------
    spread : the paper's variance is 1e-5.
    """

    def __init__(self, optimizer: Optimizer, *, spread: float, **hp: Any) -> None:
        super().__init__(optimizer, **hp)
        self.spread = spread

    def draw(self) -> float:
        return self.h + self.spread * _normal(self.stream)


@gradient(
    "hypertrain-global",
    paper=PAPER,
    defaults={"strength": 1e-4, "hyper_rate": 0.1, "units": 50, "search": 0.1},
    space={
        "strength": LogUniform(1e-6, 1e-2),
        "hyper_rate": LogUniform(1e-3, 1.0),
        "units": IntUniform(5, 100),
        "search": Uniform(0.05, 0.5),
    },
    families=FAMILIES,
    system="hypertrain",
    confidence="verified",
)
class HyperTrainingGlobal(HyperTraining):
    """Hyper-training in two phases: first the hypernetwork, over a wide range of strengths, then the strength.

    w = b + V relu(u h + c)/sqrt(units), trained at h ~ N(0, 1.5^2) drawn anew for every batch. The
    root keeps the weights' steps near the learning rate; the paper trains without it,
    by Adam at 1e-4. Over the last share `search` of the budget the hypernetwork stays and each step is
    one of h, from 0, on a held-out batch, whose loss stands for the training loss. V holds `units`
    times the model's parameters.

    Parameters
    ----------
    units : hidden units; 50 in the paper.
    search : share of the budget for the second phase.
    """

    start = 0.0

    def __init__(self, optimizer: Optimizer, *, strength: float, hyper_rate: float, units: int, search: float) -> None:
        first = optimizer.param_groups[0]
        super().__init__(optimizer, strength=strength, hyper_rate=hyper_rate, units=units)
        self.search, self.share = search, 0.0
        drawn = torch.randn(2, units, generator=self.stream, dtype=torch.float64)
        self.inner = drawn.to(self.tensors[0].device if self.tensors else "cpu").requires_grad_()
        if not self.needs_closure:
            optimizer.add_param_group({**first, "params": [self.inner], "role": "other", "weight_decay": 0.0})

    def set_progress(self, share: float) -> None:
        """Share of the budget used."""
        self.share = share

    def draw(self) -> float:
        return PRIOR * _normal(self.stream)

    def features(self, h: float) -> Tensor:
        u, c = self.inner.detach()
        return (u * h + c).relu() / math.sqrt(len(u))

    def slope_of_features(self, h: float) -> Tensor:
        u, c = self.inner.detach().cpu()
        return u * (u * h + c > 0) / math.sqrt(len(u))

    def pass_on(self, h: float) -> None:
        super().pass_on(h)
        products = [product.double() for product in self.along() if product is not None]
        if products:
            active = (self.features(h) > 0) * torch.stack(products).sum(0) / math.sqrt(self.inner.shape[1])
            self.inner.grad = torch.stack([active * h, active])

    def step(self, closure: Closure) -> Tensor:
        if self.share >= 1 - self.search and self.held_out is not None and not self.needs_closure:
            found = self.strength_step()
            assert found is not None
            return found
        return super().step(closure)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "inner": self.inner.detach()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.inner.copy_(state["inner"])


def _normal(stream: torch.Generator) -> float:
    return float(torch.randn((), generator=stream, dtype=torch.float64))


def _is_weight(group: Group, p: Tensor) -> bool:
    return group["role"] in WEIGHTS if "role" in group else p.ndim > 1
