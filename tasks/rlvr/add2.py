"""Two-digit addition with a verifier."""

from __future__ import annotations

import numpy as np

from suite import Metric, Tier, define_task
from suite.train.rlvr import RlvrTask, WarmStart

SIZES = {
    "prompts": 32, "samples": 8, "refresh": 4,
    "eval_prompts": 64, "eval_samples": 4, "test_prompts": 512, "test_samples": 16,
}  # fmt: skip
SMOKE = {**SIZES, "prompts": 8, "eval_prompts": 16, "test_prompts": 64}


@define_task(
    "add2-rlvr",
    title="Two-digit addition by verified rewards",
    family="rlvr",
    version=2,
    unit="generated tokens",
    metric=Metric("pass@1", "share", "max", floor=1.0, chance=0.0),
    slots=("objective", "optimizer", "gradient", "schedule", "averaging", "regularizer", "data"),
    recipe={
        "objective": "grpo",
        "optimizer": ("adamw", {"lr": 6e-4, "weight_decay": 0.0}),
        "gradient": ("grad-clip", {"max_norm": 1.0}),
        "schedule": ("constant", {"warmup": 0.02}),
        "averaging": "last",
        "data": "all-data",
    },
    tiers={
        "smoke": Tier(4_000, evals=2, sizes=SMOKE),
        "quick": Tier(500_000, evals=20, sizes=SIZES),
    },
    noise={"quick": {"sd": 0.013, "floor": 0.005, "n": 5, "per_doubling": 0.12}},
)  # fmt: skip
class Add2(RlvrTask):
    """``37+48=`` is answered by ``58``: the sum, least significant digit first.

    All 10,000 pairs of numbers from 00 to 99; a + b and b + a share a split.

    On one core ``quick`` takes 20 s. GRPO reaches a pass@1 of .906 (5 seeds). Seeds differ by
    .013: all begin at the same warm start, whose own seed matters most.
    """

    alphabet = "0123456789+="
    answer_alphabet = "0123456789"
    limit = 4
    warm_start = WarmStart(
        steps=510, file="add2-rlvr", sha256="bd1d0f6ab9c415967d905e3a96c891babbbee555262288ce329b99cf2f55d1e8"
    )

    def space(self) -> list[str]:
        return [f"{a:02d}+{b:02d}=" for a in range(100) for b in range(100)]

    def combination(self, prompt: str) -> str:
        return "+".join(sorted(prompt.rstrip("=").split("+")))

    def solve(self, prompts: np.ndarray) -> np.ndarray:
        digits = prompts.astype(np.int64) - 1
        total = 10 * (digits[:, 0] + digits[:, 3]) + digits[:, 1] + digits[:, 4]
        return reversed_digits(total, self.limit)


def reversed_digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """(n, width) uint8 tokens of (n,) whole numbers, least significant digit first, without leading zeros."""
    powers = 10 ** np.arange(width)
    digits = numbers[:, None] // powers % 10
    shown = (numbers[:, None] >= powers) | (powers == 1)
    return np.where(shown, digits + 1, 0).astype(np.uint8)
