"""Nested brackets with leaves: a context-free source with an exact loss floor."""

from __future__ import annotations

from suite import Metric, Tier, define_task
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
)  # fmt: skip
class DyckGPT(SourceTask):
    """Dyck-8 with 8 leaves from an LL(1) probabilistic grammar."""

    def source(self, tier: Tier) -> DyckSource:
        return DyckSource.made(**tier.sizes.get("source", {}))
