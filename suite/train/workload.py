"""What a training loop needs of a task: one interface for every family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.facts import Tier
from suite.recipe import Recipe
from suite.registry import TaskInfo
from suite.seeds import seed_for
from suite.train.checkpoint import attribute_state, load_attribute_state, load_plain_state, plain_state


class DoesNotApply(ValueError):
    """A method has no meaning on this task (a causal sampler without a time axis); the message says why.

    The run is then skipped with this reason; it is no failure of the method.
    """


Predictions = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Context:
    """Everything that fixes one run apart from its budget.

    Attributes
    ----------
    task : the task's stated facts.
    tier : the tier's sizes.
    tier_name : its name.
    recipe : the reference with the method under test in its slot.
    seed : seed index; streams come from `generator`.
    device : where the run computes.
    """

    task: TaskInfo
    tier: Tier
    tier_name: str
    recipe: Recipe
    seed: int
    device: torch.device

    def generator(self, purpose: str, *more: str | int, device: str | torch.device = "cpu") -> torch.Generator:
        """A random stream of its own for `purpose`, the same for every method."""
        generator = torch.Generator(device=device)
        generator.manual_seed(seed_for(self.task.name, purpose, self.seed, *more))
        return generator


class Workload(ABC):
    """One run's data, model and loss. The loop owns everything else.

    Attributes
    ----------
    model : what is trained.
    passes : forward-backward passes so far (the loop counts them).
    steps : updates so far (the loop counts them).
    examples : training examples consumed so far.
    progress : share of the budget used before the current step, 0 to 1.
    targets : predictions that one step's loss averages over (examples, or every token of them);
        0 where a family does not count them.
    """

    model: nn.Module
    targets: int = 0
    passes: int = 0
    steps: int = 0
    examples: int = 0
    progress: float = 0.0

    @property
    def spent(self) -> float:
        """Budget used so far, in the task's unit; updates unless a family counts otherwise."""
        return self.steps

    @abstractmethod
    def next(self) -> None:
        """Move to the next step's batch (or rollouts, or collocation points)."""

    @abstractmethod
    def loss(self) -> Tensor:
        """Training loss of the current batch at the current weights."""

    def held_out_loss(self) -> Tensor:
        """Loss of a fresh batch that is not trained on, for methods that learn hyper-parameters from one.

        Raises
        ------
        DoesNotApply : the family has no such batches.
        """
        raise DoesNotApply("the task holds no examples out for methods that learn hyper-parameters")

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Metrics on the validation split; the model is in evaluation mode."""

    @abstractmethod
    def predict(self) -> dict[str, np.ndarray]:
        """Predictions on the test inputs, to be scored where the answers are."""

    def forget(self) -> None:  # noqa: B027 an optional hook
        """Let go of what holds test answers beside the data that training needs; called before training."""

    def parts(self) -> dict[str, Any]:
        """Objects beside the model whose state changes during training, by name; for checkpoints."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State between two steps, apart from the model: tensors, plain numbers and random streams."""
        return {"own": attribute_state(self), **{name: plain_state(part) for name, part in self.parts().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        load_attribute_state(self, state["own"])
        for name, part in self.parts().items():
            load_plain_state(part, state[name])

    def exhibits(self) -> dict[str, Any]:
        """A small JSON-ready thing to show on the page, with its "kind" ("pde-map", "transcripts"); after `predict`."""
        return {}


class Task(ABC):
    """A task: frozen data, model, loss and metric. Subclasses are registered with ``@define_task``."""

    def __init__(self, info: TaskInfo) -> None:
        self.info = info

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def recipe(self) -> Recipe:
        """The frozen reference recipe."""
        from suite.recipe import reference_recipe

        return reference_recipe(self.info)

    @abstractmethod
    def workload(self, context: Context) -> Workload:
        """Everything one run needs, built from its context."""

    def samples(self, tier: Tier) -> dict[str, Any]:
        """A few training examples for the task's page, as `suite.samples` makes them; {} for none.

        What is only shown moves no score: the method is left out of the task's content hash.
        """
        return {}

    @abstractmethod
    def answers(self, tier: Tier) -> Any:
        """Test answers; asked for only by the process that scores."""

    @abstractmethod
    def score(self, predictions: Predictions, answers: Any) -> dict[str, float]:
        """Metrics of predictions; the primary metric's name is among the keys."""
