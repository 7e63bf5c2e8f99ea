"""Nested brackets with leaves: a context-free source with an exact loss floor."""

from __future__ import annotations

from suite import Metric, Noise, Tier, define_task
from tasks.language.sources import DyckSource
from tasks.language.tokens import SourceTask

MODEL = {"context": 32, "features": 32, "layers": 2, "heads": 2}
LARGE = {"context": 128, "features": 128, "layers": 4, "heads": 4, "batch": 64, "eval_batch": 128}
HARD = {"types": 32, "leaves": 32, "limit": 16}


@define_task(
    "dyck-gpt",
    title="Nested brackets, 28k GPT",
    family="language",
    version=1,
    metric=Metric("excess", "nats", "min", floor=0.0, chance=1.075),
    slots=(
        "activation", "optimizer", "gradient", "schedule", "averaging", "init", "norm", "block", "attention",
        "reparam", "regularizer", "loss",
    ),
    recipe={
        "activation": "gelu",
        "optimizer": ("adamw", {"lr": 0.005, "weight_decay": 0.1}),
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
        "standard": Tier(3000, evals=20, sizes={**LARGE, "train": 192000, "val": 512, "test": 2048, "source": HARD}),
    },
    lr_scale=3.0,
    noise={"quick": Noise(0.0035, floor=0.0005, n=5, per_doubling=0.041)},
    target=0.0168,
)  # fmt: skip
class DyckGPT(SourceTask):
    """Well-nested brackets of 8 types with 8 leaves between them, from an LL(1) probabilistic grammar.

    Sequences of 32 tokens, each from the grammar's start behind a start token;
    28k parameters (2 layers of 32 channels). The score is the cross-entropy's
    excess over the source's exact Bayes loss on the same 4,096 test sequences
    (about 2.10 nats a token). It is decomposed by kind of token (``excess.closing``:
    which bracket closes is certain, when it does is not) and by nesting depth
    (``excess.depth3``). Fresh sequences up to four budgets, so that nothing is seen
    twice. ``standard``: 32 types, 32 leaves, depth 16, 128 tokens, 4 layers of 128
    channels.

    On one core ``quick`` takes 8 s. The reference reaches an excess of 0.016 (an
    untrained model has 1.24). Its learning rate is the best of .003 (.0203), .005
    (.0205), .007 (.024) and .01 (.028) at seed 0 within noise; with GPT-2's own
    init scale of .02, made for 768 channels, the best of five rates leaves .039.
    """

    def source(self, tier: Tier) -> DyckSource:
        return DyckSource.made(**tier.sizes.get("source", {}))
