"""Nested brackets with leaves: a context-free source with an exact loss floor."""

from __future__ import annotations

from suite import Metric, Noise, Tier, define_task
from tasks.language.sources import InContextMarkovSource, MarkovSource, Source
from tasks.language.tokens import SourceTask

MODEL = {"context": 32, "features": 32, "layers": 2, "heads": 2}
LARGE = {"context": 128, "features": 128, "layers": 4, "heads": 4, "batch": 64, "eval_batch": 128, "in_context": True}


@define_task(
    "markov-gpt",
    title="Order-2 Markov chain, 28k GPT",
    family="language",
    version=1,
    metric=Metric("excess", "nats", "min", floor=0.0, chance=1.357),
    slots=(
        "activation", "optimizer", "gradient", "schedule", "averaging", "init", "norm", "block", "attention",
        "reparam", "regularizer", "loss",
    ),
    recipe={
        "activation": "gelu",
        "optimizer": ("adamw", {"lr": 0.0169, "weight_decay": 1.56e-4}),
        "gradient": ("grad-clip", {"max_norm": 1.0}),
        "schedule": ("linear", {"warmup": 0.05}),
        "init": ("gpt2", {"std": 0.1}),
        "norm": "layernorm",
        "block": "ffn",
        "attention": "softmax-attention",
        "loss": ("cross-entropy", {"label_smoothing": 0.0}),
    },
    tiers={
        "smoke": Tier(60, evals=3, sizes={**MODEL, "batch": 32, "train": 4096, "val": 256, "test": 512}),
        "quick": Tier(1200, evals=20, sizes={**MODEL, "batch": 32, "train": 153600, "val": 512, "test": 4096}),
        "standard": Tier(3000, evals=20, sizes={**LARGE, "train": 192000, "val": 512, "test": 2048}),
    },
    lr_scale=3.0,
    noise={"quick": Noise(0.0005, floor=0.0005, n=5, per_doubling=0.024)},
    target=0.0239,
)  # fmt: skip
class MarkovGPT(SourceTask):
    """A Markov chain of order 2 over 16 tokens, scored by the excess over its exact loss.

    The rows are drawn once from a Dirichlet law of concentration 0.15: the model
    has to learn a table of 256 rows. Sequences of 32 tokens, each from the start
    mark; 27k parameters; 4,096 test sequences (floor about 1.415 nats).
    ``standard`` is learning in context: a fresh chain of order 1 over 8 tokens for
    every sequence of 128, whose floor is the Dirichlet posterior's.

    On one core ``quick`` takes 8 s. The reference reaches an excess of 0.0238 (5
    seeds; an untrained model has 1.51, the best first-order table 1.12). Its optimizer is
    the best of 16 trials of `levelfield tune`; before them it had .0262 at a learning rate
    of .01 and a weight decay of .1. Seeds differ by .0005, a fiftieth of the excess: all are scored on the
    same sequences against their exact loss, so that the draw of the test set cancels.
    """

    def source(self, tier: Tier) -> Source:
        return InContextMarkovSource.made() if tier.sizes.get("in_context") else MarkovSource.made()
