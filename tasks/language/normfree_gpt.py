"""A GPT without normalisation on nested brackets."""

from __future__ import annotations

from suite import Metric, Noise, Tier, define_task
from tasks.language.sources import DyckSource
from tasks.language.tokens import SourceTask

MODEL = {"context": 32, "features": 32, "layers": 2, "heads": 2}


@define_task(
    "normfree-gpt",
    title="Nested brackets, GPT without norms",
    family="language",
    version=1,
    metric=Metric("excess", "nats", "min", floor=0.0, chance=1.075),
    slots=(
        "activation", "optimizer", "gradient", "schedule", "averaging", "init", "block", "attention",
        "reparam", "regularizer", "loss",
    ),
    recipe={
        "activation": "gelu",
        "optimizer": ("adamw", {"lr": 0.02, "weight_decay": 0.1}),
        "gradient": ("grad-clip", {"max_norm": 1.0}),
        "schedule": ("linear", {"warmup": 0.05}),
        "init": "torch-default",
        "block": "ffn",
        "attention": "softmax-attention",
        "loss": ("cross-entropy", {"label_smoothing": 0.0}),
    },
    lr_scale=3.0,
    tiers={
        "smoke": Tier(40, evals=3, sizes={**MODEL, "batch": 32, "train": 4096, "val": 256, "test": 512}),
        "quick": Tier(1000, evals=20, sizes={**MODEL, "batch": 32, "train": 128000, "val": 512, "test": 4096}),
    },
    noise={"quick": Noise(0.00089, floor=0.0005, n=5, per_doubling=0.035)},
    target=0.0106,
)  # fmt: skip
class NormfreeGPT(SourceTask):
    """The brackets of `dyck-gpt` with a GPT that has no normalisation at all.

    Without norms the activation, the init and the learning rate carry the scale
    of the signal alone. Model and data are those of `dyck-gpt` otherwise.

    On one core ``quick`` takes 6 s. The reference reaches an excess of 0.011 (an
    untrained model has 1.46). Learning rate from .005 (.054), .01 (.021) and .02
    (.012) at seed 0.
    """

    normalise = False

    def source(self, tier: Tier) -> DyckSource:
        return DyckSource.made()
