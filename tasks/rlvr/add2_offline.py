"""Two-digit addition learnt from a fixed set of right and wrong answers."""

from __future__ import annotations

from suite import Metric, Tier, define_task
from suite.train.offline import FrozenTraces, OfflineTask
from tasks.rlvr.add2 import Add2

SIZES = {
    "trace_prompts": 384, "prompts": 32,
    "eval_prompts": 64, "eval_samples": 4, "test_prompts": 512, "test_samples": 16,
}  # fmt: skip
SMOKE = {**SIZES, "trace_prompts": 128, "prompts": 16, "eval_prompts": 16, "test_prompts": 64}


@define_task(
    "add2-offline",
    title="Two-digit addition from fixed right and wrong answers",
    family="rlvr",
    version=1,
    metric=Metric("pass@1", "share", "max", floor=1.0, chance=0.0),
    slots=("offline-objective", "optimizer", "gradient", "schedule", "averaging", "regularizer", "loss", "data"),
    recipe={
        "offline-objective": "sft",
        "optimizer": ("adamw", {"lr": 2e-3, "weight_decay": 0.0}),
        "gradient": ("grad-clip", {"max_norm": 1.0}),
        "schedule": ("linear", {"warmup": 0.1}),
        "averaging": "last",
        "loss": ("cross-entropy", {"label_smoothing": 0.0}),
        "data": "all-data",
    },
    lr_scale=2.0,
    tiers={
        "smoke": Tier(20, evals=2, sizes=SMOKE),
        "quick": Tier(300, evals=10, sizes=SIZES),
    },
    noise={"quick": {"sd": 0.0052, "floor": 0.005, "n": 5, "per_doubling": 0.12}},
)  # fmt: skip
class Add2Offline(OfflineTask, Add2):
    """``add2-rlvr`` without rollouts: 384 prompts, each with eight answers that the warm start once gave.

    A third of the answers are right. Prompts without a right or without a wrong
    one are left out, which leaves 357. Wrong answers are near misses, two
    thirds of them by one digit. A step sees 32 prompts, 256 answers; the run
    goes through the traces 26 times.

    On one core ``quick`` takes 6 s. The warm start has a pass@1 of .34, the
    reference reaches .79 (sd .006 over three seeds). Data limit it, not steps: with 2,048
    prompts every imitation nears 1. Learning rate from 1e-3 to 4e-3 (.835, but
    below the warm start in the first tenth, which no method that refers to the
    warm start would survive). Preference losses at their published strength
    push near misses so far down that they end below the warm start; with ten
    times the pull to the warm start DPO ends at .51.
    """

    frozen = FrozenTraces(
        prompts=384, samples=8, sha256="d093602c9d5768833bb209f04bdc0eeaad03cdf20bd0f825d0a5077c06928fb8"
    )
