"""Sorting six digits with a verifier."""

from __future__ import annotations

import numpy as np

from suite import Metric, Tier, define_task
from suite.train.rlvr import RlvrTask, WarmStart

PROMPTS = 20_000
STRIDE = 618_033  # prime to 10**6, near the golden section: an even spread over all digit strings
SIZES = {
    "prompts": 32, "samples": 8, "refresh": 4,
    "eval_prompts": 64, "eval_samples": 4, "test_prompts": 512, "test_samples": 16,
}  # fmt: skip
SMOKE = {**SIZES, "prompts": 8, "eval_prompts": 16, "test_prompts": 64}


@define_task(
    "sort6-rlvr",
    title="Sorting six digits by verified rewards",
    family="rlvr",
    version=2,
    unit="generated tokens",
    metric=Metric("pass@1", "share", "max", floor=1.0, chance=0.0),
    slots=("objective", "optimizer", "gradient", "schedule", "averaging", "regularizer", "data"),
    recipe={
        "objective": "grpo",
        "optimizer": ("adamw", {"lr": 3e-4, "weight_decay": 0.0}),
        "gradient": ("grad-clip", {"max_norm": 1.0}),
        "schedule": ("constant", {"warmup": 0.02}),
        "averaging": "last",
        "data": "all-data",
    },
    tiers={
        "smoke": Tier(6_000, evals=2, sizes=SMOKE),
        "quick": Tier(700_000, evals=20, sizes=SIZES),
    },
    noise={"quick": {"sd": 0.0086, "floor": 0.005, "n": 5, "per_doubling": 0.13}},
)  # fmt: skip
class Sort6(RlvrTask):
    """``582190=`` is answered by ``012589``: the six digits in ascending order.

    20,000 digit strings, spread evenly over all; strings with the same digits share a split.

    On one core ``quick`` takes 24 s. GRPO reaches a pass@1 of .860 (5 seeds). Seeds differ by
    .009: all begin at the same warm start, whose own seed matters most.
    """

    alphabet = "0123456789="
    answer_alphabet = "0123456789"
    limit = 7
    warm_start = WarmStart(steps=95, sha256="16bd5f0326b8822e9abd0cdb7512d136ccc6ac13e8a7e1b86776e9c165707bcc")

    def space(self) -> list[str]:
        return [f"{i * STRIDE % 10**6:06d}=" for i in range(PROMPTS)]

    def combination(self, prompt: str) -> str:
        return "".join(sorted(prompt.rstrip("=")))

    def solve(self, prompts: np.ndarray) -> np.ndarray:
        ordered = np.sort(prompts[:, :6].astype(np.uint8), axis=1)
        return np.pad(ordered, ((0, 0), (0, self.limit - 6)))
