"""The training loop: one for every family, owned by the suite, read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from suite.recipe import Recipe
from suite.train.average import Averager
from suite.train.checkpoint import Checkpoint
from suite.train.roles import param_groups, without_roles
from suite.train.step import Stepper, hessian_vector
from suite.train.workload import Workload

CHECK_EVERY = 32  # steps between looks at the loss for NaN


@dataclass(frozen=True)
class Point:
    """One evaluation on the validation split.

    Attributes
    ----------
    spent : budget used, in the task's unit.
    steps, examples : updates and training examples so far.
    seconds : training seconds so far; evaluation and set-up are not in it.
    train_loss : mean training loss since the previous point (NaN at the first).
    metrics : the task's metrics on the validation split.
    """

    spent: float
    steps: int
    examples: int
    seconds: float
    train_loss: float
    metrics: dict[str, float]


@dataclass
class History:
    """What a finished or diverged training leaves."""

    curve: list[Point] = field(default_factory=list)
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    diverged: str = ""


class Trainer:
    """A workload and its recipe, ready to step.

    The optimizer and the model's modules may define ``set_progress(share)``, called
    before each step with the share of the budget used. The model's modules may
    define ``auxiliary_loss()``: a scalar of the last training-mode forward pass,
    whose mean over these modules is added to the loss.
    """

    def __init__(self, workload: Workload, recipe: Recipe, budget: float) -> None:
        self.workload = workload
        self.budget = budget
        model = workload.model
        groups = param_groups(model)
        if "gradient" not in recipe and _is_torchs(recipe["optimizer"].entry.factory):
            groups = without_roles(groups)  # the same updates; each group costs a step some microseconds
        self.optimizer = recipe["optimizer"].make(groups)
        self.stepper: Stepper = (
            recipe["gradient"].make(self.optimizer) if "gradient" in recipe else Stepper(self.optimizer)
        )
        self.schedule: Callable[..., float] = recipe["schedule"].make()
        self.averager: Averager = recipe["averaging"].make(model) if "averaging" in recipe else Averager(model)
        self.penalty = recipe["regularizer"].make(model) if "regularizer" in recipe else None
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        _tell(self.optimizer, "set_horizon", budget)
        _tell(self.optimizer, "set_targets", workload.targets * budget)
        _tell(self.optimizer, "set_hessian_vector", self.hessian_vector)
        _tell(self.stepper, "set_horizon", budget)
        _tell(self.stepper, "set_model", model)
        _tell(self.stepper, "set_held_out", self.held_out)
        parts: list[Any] = list(model.modules())
        listeners = [self.optimizer, self.stepper, *parts]
        self.listeners = [part.set_progress for part in listeners if hasattr(part, "set_progress")]
        self.auxiliaries = [part.auxiliary_loss for part in parts if hasattr(part, "auxiliary_loss")]
        self.followers = [part.after_step for part in parts if callable(getattr(part, "after_step", None))]

    def loss(self) -> Tensor:
        """Training loss of the current batch at the current weights, penalties of regularizer and modules in it."""
        loss = self.workload.loss()
        if self.penalty is not None:
            loss = loss + self.penalty()
        if self.auxiliaries:
            loss = loss + torch.stack([auxiliary() for auxiliary in self.auxiliaries]).mean()
        return loss

    def closure(self) -> Tensor:
        """Loss and gradients of the current batch at the current weights: one counted pass."""
        return self._backward(self.loss)

    def held_out(self) -> Tensor:
        """Loss and gradients of a fresh held-out batch, without any penalty: one counted pass."""
        return self._backward(self.workload.held_out_loss)

    def _backward(self, compute: Callable[[], Tensor]) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = compute()
        loss.backward()
        self.workload.passes += 1
        return loss.detach()

    def hessian_vector(self, parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """Hessian of the current batch's training loss times `vectors`: two counted passes."""
        self.workload.passes += 2
        return hessian_vector(self.loss, parameters, vectors)

    def step(self) -> Tensor:
        """Draw a batch and update the weights once; returns the training loss before the update."""
        workload = self.workload
        workload.next()
        spent = workload.spent
        multiplier = self.schedule(spent, self.budget)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier
        workload.progress = spent / self.budget
        for listen in self.listeners:
            listen(workload.progress)
        loss = self.stepper.step(self.closure)
        for follow in self.followers:
            follow()
        workload.steps += 1
        self.averager.update(workload.spent, self.budget)
        return loss

    def evaluate(self) -> dict[str, float]:
        """Validation metrics with the evaluation weights; training goes on as if nothing had happened."""
        with self.evaluating():
            return self.workload.validate()

    def evaluating(self) -> _Evaluating:
        """Context in which the model holds its evaluation weights, in evaluation mode."""
        return _Evaluating(self)

    def state_dict(self, history: History) -> dict[str, Any]:
        """Everything that the rest of the run depends on; tensors and plain values only."""
        return {
            "model": self.workload.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stepper": self.stepper.state_dict(),
            "averager": self.averager.state_dict(),
            "workload": self.workload.state_dict(),
            "torch": torch.get_rng_state(),
            "history": asdict(history),
        }

    def load_state_dict(self, state: dict[str, Any]) -> History:
        """Go on from a checkpoint; returns the history up to it."""
        self.workload.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stepper.load_state_dict(state["stepper"])
        self.averager.load_state_dict(state["averager"])
        self.workload.load_state_dict(state["workload"])
        torch.set_rng_state(state["torch"])
        curve = [Point(**point) for point in state["history"].pop("curve")]
        return History(curve, **state["history"])

    def run(self, evals: int, checkpoint: Checkpoint | None = None) -> History:
        """Train until the budget is used; the last step may pass it, none follows.

        Parameters
        ----------
        evals : evaluations after the one at the start, evenly spaced over the budget.
        checkpoint : where to leave the state at evaluations, and to go on from when it is there.
        """
        workload = self.workload
        stored = checkpoint.load() if checkpoint else None
        if stored is not None:
            history = self.load_state_dict(stored)
        else:
            history = History()
            self._evaluate(history, math.nan)
        marks = [self.budget * (i + 1) / evals for i in range(evals)]
        marks = [m for m in marks if m > workload.spent] or [math.inf]
        losses: list[Tensor] = []
        total, count = 0.0, 0
        _synchronize(workload)
        started = time.perf_counter()
        while workload.spent < self.budget:
            losses.append(self.step())
            due = workload.spent >= marks[0]
            if due or len(losses) == CHECK_EVERY:
                for loss in torch.stack(losses).flatten().tolist():
                    total += loss  # one after the other: the sum's last bit is part of the curve
                count += len(losses)
                losses.clear()
                if not math.isfinite(total):
                    history.train_seconds += time.perf_counter() - started
                    history.diverged = f"training loss is not finite at step {workload.steps}"
                    return history
            if due:
                history.train_seconds += time.perf_counter() - started
                marks = [m for m in marks if m > workload.spent] or [math.inf]
                self._evaluate(history, total / count)
                total, count = 0.0, 0
                if checkpoint is not None and checkpoint.due():
                    checkpoint.save(self.state_dict(history))
                started = time.perf_counter()
        return history

    def _evaluate(self, history: History, train_loss: float) -> None:
        started = time.perf_counter()
        metrics = self.evaluate()
        workload = self.workload
        point = Point(workload.spent, workload.steps, workload.examples, history.train_seconds, train_loss, metrics)
        history.curve.append(point)
        _synchronize(workload)
        history.eval_seconds += time.perf_counter() - started


class _Evaluating:
    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def __enter__(self) -> None:
        trainer = self.trainer
        _switch(trainer.optimizer, "eval")
        trainer.workload.model.eval()
        self.weights = trainer.averager.applied()
        self.weights.__enter__()

    def __exit__(self, *error: object) -> None:
        trainer = self.trainer
        self.weights.__exit__(None, None, None)
        trainer.workload.model.train()
        _switch(trainer.optimizer, "train")


def _is_torchs(factory: object) -> bool:
    """Whether an optimizer is one of torch's own classes, which treat every parameter alike."""
    return isinstance(factory, type) and factory.__module__.startswith("torch.optim")


def _tell(part: object, hook: str, fact: object) -> None:
    """Give `fact` to a part that has the hook (see `suite.train.step`)."""
    if hasattr(part, hook):
        getattr(part, hook)(fact)


def _switch(optimizer: object, mode: str) -> None:
    """Schedule-free optimizers keep two sets of weights and say which is in place."""
    switch = getattr(optimizer, mode, None)
    if callable(switch):
        switch()


def _synchronize(workload: Workload) -> None:
    if torch.cuda.is_available() and any(p.is_cuda for p in workload.model.parameters()):
        torch.cuda.synchronize()
