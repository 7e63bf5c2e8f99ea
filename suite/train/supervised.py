"""Supervised workloads: minibatches of examples, a loss of the slot ``loss``, logits out."""

from __future__ import annotations

import inspect
import math
import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.facts import Tier
from suite.train.build import Build
from suite.train.workload import Context, Predictions, Task, Workload


@dataclass(frozen=True)
class Splits:
    """Frozen data of one tier; the test answers are not in it.

    Attributes
    ----------
    train_x, train_y : training inputs (n, ...) and class indices (n, ...).
    val_x, val_y : validation split.
    test_x : test inputs.
    """

    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor
    test_x: Tensor

    def to(self, device: torch.device) -> Splits:
        return Splits(*(t.to(device) for t in vars(self).values()))

    def alone(self) -> Splits:
        """The same tensors, none of them a part of a larger one that may hold test answers as well."""
        return Splits(*(t if _is_whole(t) else t.clone() for t in vars(self).values()))


class SupervisedTask(Task):
    """A task that learns class indices from examples (of images, or of every token of a sequence).

    A tier's sizes hold ``batch`` and ``eval_batch`` (examples).
    """

    channels_last = False

    @abstractmethod
    def splits(self, tier: Tier) -> Splits:
        """The tier's frozen data."""

    @abstractmethod
    def model(self, build: Build, tier: Tier) -> nn.Module:
        """The model, its replaceable parts made by `build`; returns (batch, ..., classes) logits."""

    def augment(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A training batch's inputs, augmented; the identity unless a task says otherwise."""
        return x

    def workload(self, context: Context) -> Workload:
        return SupervisedWorkload(self, context)

    def score(self, predictions: Predictions, answers: np.ndarray) -> dict[str, float]:
        """Mean cross-entropy (nats) and accuracy of ``logits`` (n, ..., classes) against (n, ...) answers."""
        return classification_metrics(predictions["logits"], answers)


class SupervisedWorkload(Workload):
    """Minibatch training on data that lie in memory, one reshuffled epoch after another."""

    def __init__(self, task: SupervisedTask, context: Context) -> None:
        self.task, self.context = task, context
        sizes: Mapping[str, Any] = context.tier.sizes
        self.batch, self.eval_batch = int(sizes["batch"]), int(sizes.get("eval_batch", 512))
        data = task.splits(context.tier)
        if task.channels_last:
            data = Splits(*(_channels_last(t) for t in vars(data).values()))
        self.data = data.to(context.device).alone()
        build = Build(context)
        model = build.finish(task.model(build, context.tier), lambda: self._calibration_inputs(data.train_x))
        if task.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model
        self.sites = build.sites
        self.passes += build.passes
        self.targets = self.batch * math.prod(data.train_y.shape[1:])
        self.criterion = context.recipe["loss"].make()
        factory = context.recipe["loss"].entry.factory
        taken = inspect.signature(factory).parameters
        self.times = "progress" in taken
        self.kept: dict[str, Tensor] = {}
        if "features" in taken:
            build.classifier.register_forward_pre_hook(self._keep_features)
        self.bound = first_of_each(self.data.train_y) if getattr(factory, "binds_examples", False) else None
        self.estimators: list[Any] = [part for part in model.modules() if hasattr(part, "score_loss")]
        self.sites["loss"] += 1
        self.order_stream = context.generator("order")
        self.augment_stream = context.generator("augment")
        self.held_out_stream = context.generator("held-out")
        self.order = torch.empty(0, dtype=torch.long)
        self.position = 0
        self.x = self.y = torch.empty(0)

    def next(self) -> None:
        count = len(self.data.train_x)
        if self.position + self.batch > len(self.order):
            self.order = torch.randperm(count, generator=self.order_stream).to(self.data.train_x.device)
            self.position = 0
        index = self.order[self.position : self.position + self.batch]
        self.position += self.batch
        self.x = self.task.augment(self.data.train_x[index], self.augment_stream)
        self.y = self.data.train_y[index]
        if self.bound is not None:
            self.x = torch.cat([self.x, self.data.train_x[self.bound]])
            self.y = torch.cat([self.y, self.data.train_y[self.bound]])
        self.examples += len(self.y)

    def loss(self) -> Tensor:
        return self._loss(self.x, self.y)

    def held_out_loss(self) -> Tensor:
        """Loss of examples of the validation split, drawn with replacement, of a training batch's size."""
        rows = torch.randint(len(self.data.val_x), (self.batch,), generator=self.held_out_stream)
        rows = rows.to(self.data.val_x.device)
        return self._loss(self.data.val_x[rows], self.data.val_y[rows])

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self.model(x)
        flat, classes = (logits, y) if y.ndim == 1 else (logits.flatten(0, -2), y.flatten())
        if not (self.times or self.kept or self.estimators):
            return self.criterion(flat, classes)
        timed = {"progress": self.progress} if self.times else {}
        features = {name: kept.flatten(0, -2) for name, kept in self.kept.items()}
        self.kept.clear()
        loss = self.criterion(flat, classes, **features, **timed)
        if not self.estimators:
            return loss
        pairs = zip(logits.detach(), y, strict=True)
        each = torch.stack([self.criterion(z.view(-1, z.shape[-1]), t.view(-1), **timed) for z, t in pairs])
        return torch.stack([loss, *(part.score_loss(each) for part in self.estimators)]).sum()

    def _keep_features(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.model.training:
            self.kept["features"] = inputs[0]

    def _calibration_inputs(self, x: Tensor) -> Tensor:
        return x[torch.randint(len(x), (self.batch,), generator=self.context.generator("calibration"))]

    def validate(self) -> dict[str, float]:
        return self.task.score({"logits": self._logits(self.data.val_x)}, self.data.val_y.cpu().numpy())

    def forget(self) -> None:
        """Empty the caches of the task's module, unless validation needs them again."""
        if not hasattr(self.task, "validation_answers"):
            for value in vars(sys.modules[type(self.task).__module__]).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()

    def predict(self) -> dict[str, np.ndarray]:
        return {"logits": self._logits(self.data.test_x)}

    @torch.no_grad()
    def _logits(self, x: Tensor) -> np.ndarray:
        return torch.cat([self.model(part) for part in x.split(self.eval_batch)]).float().cpu().numpy()


def first_of_each(classes: Tensor) -> Tensor:
    """Indices of the first example of each class that occurs in (n,) class indices, in the order of the classes."""
    return torch.stack([(classes == c).nonzero()[0, 0] for c in classes.unique()])


def _is_whole(t: Tensor) -> bool:
    return t.untyped_storage().nbytes() == t.numel() * t.element_size()


def _channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t


def classification_metrics(logits: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Mean cross-entropy ("ce", nats) and accuracy ("accuracy", share).

    Parameters
    ----------
    logits : (n, ..., classes), any float type.
    answers : (n, ...) class indices.

    Raises
    ------
    ValueError : the shapes do not belong together.
    """
    classes = logits.shape[-1]
    if logits.shape[:-1] != answers.shape:
        raise ValueError(f"predictions of shape {logits.shape} do not fit answers of shape {answers.shape}")
    flat, truth = logits.reshape(-1, classes).astype(np.float64), answers.reshape(-1)
    shifted = flat - flat.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(truth)), truth]
    return {"ce": float(losses.mean()), "accuracy": float((flat.argmax(axis=1) == truth).mean())}
