"""TinyStories by bytes."""

from __future__ import annotations

import functools

import numpy as np

from suite import Metric, Paper, Tier, data, define_task
from tasks.language.text import Text, TextTask

SMALL = {"context": 64, "features": 32, "layers": 2, "heads": 2, "batch": 16, "eval_batch": 64}
LARGE = {"context": 512, "features": 512, "layers": 8, "heads": 8, "batch": 32, "eval_batch": 16}
BYTES = 256
HELD_OUT = 0.01


@define_task(
    "tinystories-gpt",
    title="TinyStories, byte GPT",
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
    data="tinystories",
    paper=Paper("TinyStories: How Small Can Language Models Be and Still Speak Coherent English?", arxiv="2305.07759"),
)  # fmt: skip
class TinyStoriesGPT(TextTask):
    """TinyStories by bytes: the data set's first part, its last 2% held out to validate and test.

    No CPU tier but ``smoke``; ``standard`` has 8 layers of 512 channels (25 million
    parameters) and windows of 512. Bytes in place of a tokenizer make scores
    comparable. The learning rate is the customary one of the size; it was not
    swept, and score and noise are not measured.
    """

    def text(self) -> Text:
        return _text()


@functools.lru_cache(maxsize=1)
def _text() -> Text:
    stories = np.frombuffer(data.text("tinystories"), dtype=np.uint8)
    held = int(HELD_OUT * len(stories))
    first, second = len(stories) - 2 * held, len(stories) - held
    return Text(stories[:first].copy(), stories[first:second].copy(), stories[second:].copy(), BYTES)
