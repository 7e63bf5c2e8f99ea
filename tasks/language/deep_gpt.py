"""A deep and narrow GPT on nested brackets."""

from __future__ import annotations

from suite import Metric, Tier, define_task
from tasks.language.sources import DyckSource
from tasks.language.tokens import SourceTask

MODEL = {"context": 32, "features": 24, "layers": 16, "heads": 2}


@define_task(
    "deep-gpt",
    title="Nested brackets, 16-layer GPT",
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
    lr_scale=3.0,
    tiers={
        "smoke": Tier(15, evals=2, sizes={**MODEL, "batch": 16, "train": 4096, "val": 128, "test": 256}),
        "quick": Tier(500, evals=10, sizes={**MODEL, "batch": 16, "train": 32000, "val": 256, "test": 4096}),
    },
    noise={"quick": {"sd": 0.0097, "floor": 0.001, "n": 5, "per_doubling": 0.12}},
    target=0.115,
)  # fmt: skip
class DeepGPT(SourceTask):
    """The brackets of `dyck-gpt` with a deep and narrow GPT: 16 pre-norm layers of 24 channels (116k parameters).

    For what depth makes hard: the residual stream's growth, the scale of the
    branches, norms, inits.

    On one core ``quick`` takes 15 s. The reference reaches an excess of 0.114, an untrained model
    has 1.22. Learning rate from .003 (.111), .005 (.078) and .01
    (.101) at seed 0 and 600 steps.
    """

    def source(self, tier: Tier) -> DyckSource:
        return DyckSource.made()
