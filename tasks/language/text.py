"""Next-character and next-byte tasks on one long text."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch

from suite.facts import Tier
from suite.train.supervised import Splits
from suite.train.workload import Context, Workload
from tasks.language.tokens import TokenTask, TokenWorkload


@dataclass(frozen=True)
class Text:
    """A text's splits as uint8 tokens, each (characters,), and the size of the vocabulary."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    vocabulary: int


class TextWorkload(TokenWorkload):
    """Training windows that start anywhere in the text, drawn with replacement."""

    def next(self) -> None:
        text, length = self.data.train_x, self.context.tier.sizes["context"]
        starts = torch.randint(len(text) - length, (self.batch,), generator=self.order_stream).to(text.device)
        windows = text[starts[:, None] + torch.arange(length + 1, device=text.device)].long()
        self.x, self.y = windows[:, :-1], windows[:, 1:]
        self.examples += self.batch


class TextTask(TokenTask):
    """Windows of a text, scored by the mean cross-entropy of every character of the held-out windows.

    A tier's sizes also hold ``val`` and ``test``, the number of held-out
    windows: they do not overlap and are spread evenly over their split.
    """

    @abstractmethod
    def text(self) -> Text:
        """The whole text, split."""

    def vocabulary(self, tier: Tier) -> tuple[int, int]:
        size = self.text().vocabulary
        return size, size

    def splits(self, tier: Tier) -> Splits:
        text = self.text()
        train = torch.from_numpy(text.train)
        val = torch.from_numpy(self._windows(text.val, tier, "val"))
        test = torch.from_numpy(self._windows(text.test, tier, "test"))
        return Splits(train, train, val[:, :-1], val[:, 1:], test[:, :-1])

    def samples(self, tier: Tier) -> dict:
        """A few training windows."""
        from suite.samples import texts

        windows = spread_windows(self.text().train, 4, tier.sizes["context"])
        return texts(self.spelled(window) for window in windows)

    def spelled(self, tokens: np.ndarray) -> str:
        """Tokens that are bytes as text."""
        return bytes(tokens.astype(np.uint8)).decode("utf-8", errors="replace")

    def answers(self, tier: Tier) -> np.ndarray:
        return self._windows(self.text().test, tier, "test")[:, 1:]

    def validation_answers(self, tier: Tier) -> np.ndarray:
        return self._windows(self.text().val, tier, "val")[:, 1:]

    def workload(self, context: Context) -> Workload:
        return TextWorkload(self, context)

    def _windows(self, text: np.ndarray, tier: Tier, split: str) -> np.ndarray:
        return spread_windows(text, tier.sizes[split], tier.sizes["context"])


def spread_windows(text: np.ndarray, count: int, length: int) -> np.ndarray:
    """`count` windows of `length` + 1 tokens, int64, evenly spread; neighbours share at most one token.

    Raises
    ------
    ValueError : the text is too short for as many.
    """
    stride = (len(text) - 1) // count
    if stride < length:
        raise ValueError(f"a text of {len(text)} tokens has no {count} windows of {length}")
    starts = np.arange(count) * stride
    return text[starts[:, None] + np.arange(length + 1)].astype(np.int64)


def characters(content: bytes) -> tuple[np.ndarray, int]:
    """Tokens (uint8) of single-byte characters, numbered in the order of their codes, and how many there are."""
    codes = np.frombuffer(content, dtype=np.uint8)
    alphabet = np.unique(codes)
    table = np.zeros(256, dtype=np.uint8)
    table[alphabet] = np.arange(len(alphabet))
    return table[codes], len(alphabet)
