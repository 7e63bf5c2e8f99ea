"""Next-token tasks: the workload and the tasks' common base."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.facts import Tier
from suite.train.build import Build
from suite.train.supervised import Splits, SupervisedTask, SupervisedWorkload
from suite.train.workload import Context, Predictions, Workload
from tasks.language.gpt import GPT
from tasks.language.sources import Source

TEST_SEED, VALIDATION_SEED, TRAIN_SEED = 1, 2, 3


class TokenWorkload(SupervisedWorkload):
    """Minibatches of token sequences; validation is scored as the test is."""

    task: TokenTask

    def validate(self) -> dict[str, float]:
        return self.task.score(
            {"logits": self._logits(self.data.val_x)}, self.task.validation_answers(self.context.tier)
        )

    def predict(self) -> dict[str, np.ndarray]:
        self._refuse_foresight()
        return super().predict()

    @torch.no_grad()
    def _refuse_foresight(self) -> None:
        """Teacher-forced inputs hold the targets of earlier positions: no logit may depend on a later token."""
        x = self.data.test_x[: min(4, self.eval_batch)]
        half = x.shape[1] // 2
        other = torch.cat([x[:, :half], x[:, half:].roll(1, 0).flip(1)], dim=1)
        seen, unseen = self.model(x)[:, :half], self.model(other)[:, :half]
        if not torch.allclose(seen, unseen, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ValueError(
                "the model's predictions change with later tokens: a causal method may use earlier ones only"
            )


class TokenTask(SupervisedTask):
    """A task that predicts every token of a sequence from the earlier ones.

    A tier's sizes hold ``features``, ``layers``, ``heads`` and ``context`` beside the batch sizes.
    """

    normalise = True

    @abstractmethod
    def vocabulary(self, tier: Tier) -> tuple[int, int]:
        """Sizes of the input and of the output vocabulary."""

    @abstractmethod
    def validation_answers(self, tier: Tier) -> Any:
        """As `answers`, for the validation split."""

    def model(self, build: Build, tier: Tier) -> nn.Module:
        inputs, outputs = self.vocabulary(tier)
        sizes = {name: tier.sizes[name] for name in ("context", "features", "layers", "heads")}
        return GPT(build, inputs=inputs, outputs=outputs, normalise=self.normalise, **sizes)

    def workload(self, context: Context) -> Workload:
        return TokenWorkload(self, context)


class SourceTask(TokenTask):
    """Sequences of a random source, scored by the excess over its exact Bayes loss on the same tokens.

    A tier's sizes also hold ``train``, ``val`` and ``test`` (sequences). Inputs
    are the sequence shifted by one behind a start token.
    """

    @abstractmethod
    def source(self, tier: Tier) -> Source:
        """The source at this tier."""

    def vocabulary(self, tier: Tier) -> tuple[int, int]:
        outputs = self.source(tier).vocabulary
        return outputs + 1, outputs

    def splits(self, tier: Tier) -> Splits:
        train, val = (
            self._with_start(tier, "train", TRAIN_SEED),
            self._with_start(tier, "val", VALIDATION_SEED),
        )
        test = self._with_start(tier, "test", TEST_SEED)
        return Splits(train[:, :-1], train[:, 1:], val[:, :-1], val[:, 1:], test[:, :-1])

    def samples(self, tier: Tier) -> dict:
        """The beginnings of a few training sequences."""
        from suite.samples import texts

        source = self.source(tier)
        return texts((source.spelled(row) for row in self._frozen(tier, "train", TRAIN_SEED)[:6]), source.spelled())

    def answers(self, tier: Tier) -> dict[str, np.ndarray]:
        """Test tokens, their exact losses and the masks of the decomposition, each (n, context)."""
        return self._answers(tier, "test", TEST_SEED)

    def validation_answers(self, tier: Tier) -> dict[str, np.ndarray]:
        return self._answers(tier, "val", VALIDATION_SEED)

    def score(self, predictions: Predictions, answers: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Excess cross-entropy over the floor, both in nats a token, accuracy, and the excess by kind of token."""
        return source_metrics(predictions["logits"], answers)

    def _frozen(self, tier: Tier, split: str, seed: int) -> np.ndarray:
        return self.source(tier).frozen(tier.sizes[split], tier.sizes["context"], seed)

    def _with_start(self, tier: Tier, split: str, seed: int) -> Tensor:
        tokens = self._frozen(tier, split, seed)
        start = np.full((len(tokens), 1), self.source(tier).vocabulary, dtype=tokens.dtype)
        return torch.from_numpy(np.concatenate([start, tokens], axis=1).astype(np.int64))

    def _answers(self, tier: Tier, split: str, seed: int) -> dict[str, np.ndarray]:
        source, tokens = self.source(tier), self._frozen(tier, split, seed)
        kinds = {f"kind.{name}": mask for name, mask in source.kinds(tokens).items()}
        return {"tokens": tokens, "floor": source.losses(tokens), **kinds}


def token_losses(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[token] in nats, float64.

    Parameters
    ----------
    logits : (n, time, classes), any float type.
    tokens : (n, time) class indices.

    Raises
    ------
    ValueError : the shapes do not belong together.
    """
    if logits.shape[:-1] != tokens.shape:
        raise ValueError(f"predictions of shape {logits.shape} do not fit answers of shape {tokens.shape}")
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, tokens[..., None].astype(np.int64), axis=-1)[..., 0]
    return np.log(np.exp(shifted, out=shifted).sum(axis=-1)) - chosen


def source_metrics(logits: np.ndarray, answers: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics of a model on a source's tokens.

    Parameters
    ----------
    logits : (n, time, vocabulary).
    answers : "tokens" and "floor" (n, time), and masks under "kind.<name>".

    Returns
    -------
    "excess", "ce", "floor" (nats a token), "excess_se" (standard error of the
    excess over sequences), "accuracy", and "excess.<name>", the mean excess of
    the tokens of each kind that occurs.
    """
    losses = token_losses(logits, answers["tokens"])
    excess = losses - answers["floor"]
    metrics = {
        "excess": float(excess.mean()),
        "ce": float(losses.mean()),
        "floor": float(answers["floor"].mean()),
        "excess_se": float(excess.mean(axis=1).std(ddof=1) / np.sqrt(len(excess))),
        "accuracy": float((logits.argmax(axis=-1) == answers["tokens"]).mean()),
    }
    for key, mask in answers.items():
        if key.startswith("kind.") and mask.any():
            metrics[f"excess.{key.removeprefix('kind.')}"] = float(excess[mask].mean())
    return metrics
