"""English novels by bytes."""

from __future__ import annotations

import functools

import numpy as np

from suite import Metric, Tier, data, define_task
from tasks.language.text import Text, TextTask

SMALL = {"context": 64, "features": 32, "layers": 2, "heads": 2, "batch": 16, "eval_batch": 64}
LARGE = {"context": 512, "features": 512, "layers": 8, "heads": 8, "batch": 32, "eval_batch": 16}
BYTES = 256


@define_task(
    "novels-gpt",
    title="English novels, byte GPT",
    family="language",
    version=1,
    metric=Metric("ce", "nats", "min", chance=5.545177),
    slots=(
        "activation", "optimizer", "gradient", "schedule", "averaging", "init", "norm", "block", "attention",
        "reparam", "regularizer", "loss",
    ),
    recipe={
        "activation": "gelu",
        "optimizer": ("adamw", {"lr": 0.001, "weight_decay": 0.1}),
        "gradient": ("grad-clip", {"max_norm": 1.0}),
        "schedule": ("linear", {"warmup": 0.05}),
        "init": "gpt2",
        "norm": "layernorm",
        "block": "ffn",
        "attention": "softmax-attention",
        "loss": ("cross-entropy", {"label_smoothing": 0.0}),
    },
    tiers={
        "smoke": Tier(20, evals=2, sizes={**SMALL, "val": 32, "test": 64}),
        "standard": Tier(1500, evals=10, sizes={**LARGE, "val": 64, "test": 128}),
    },
    data="english_novels",
)  # fmt: skip
class NovelsGPT(TextTask):
    """96 English novels of 1839 to 1927 by bytes: 84 to train on, 6 to validate and 6 to test, whole novels each.

    74 million bytes. No CPU tier but ``smoke``; ``standard`` has 8 layers of 512
    channels (25 million parameters) and windows of 512. Its learning rate is the
    customary one of the size; it was not swept, and its score and noise are not
    measured.
    """

    def text(self) -> Text:
        return _text()


@functools.lru_cache(maxsize=1)
def _text() -> Text:
    novels = data.documents("english_novels")
    parts = {
        "test": [novel for i, novel in enumerate(novels) if i % 16 == 7],
        "val": [novel for i, novel in enumerate(novels) if i % 16 == 15],
        "train": [novel for i, novel in enumerate(novels) if i % 16 not in (7, 15)],
    }
    joined = {split: np.frombuffer(b"".join(part), dtype=np.uint8).copy() for split, part in parts.items()}
    return Text(**joined, vocabulary=BYTES)
