"""Parity of twelve bits with a written scratchpad and a verifier."""

from __future__ import annotations

import numpy as np

from suite import Metric, Tier, define_task
from suite.train.rlvr import RlvrTask, WarmStart

BITS = 12
SIZES = {
    "prompts": 32, "samples": 8, "refresh": 4,
    "eval_prompts": 64, "eval_samples": 4, "test_prompts": 256, "test_samples": 16,
}  # fmt: skip
SMOKE = {**SIZES, "prompts": 4, "eval_prompts": 16, "test_prompts": 32}


@define_task(
    "parity12-rlvr",
    title="Parity of twelve bits, scratchpad, by verified rewards",
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
        "smoke": Tier(4_000, evals=2, sizes=SMOKE),
        "quick": Tier(300_000, evals=20, sizes=SIZES),
    },
    noise={"quick": {"sd": 0.011, "floor": 0.005, "n": 5, "per_doubling": 0.25}},
)  # fmt: skip
class Parity12(RlvrTask):
    """``011010011011=`` is answered by ``010011101101``: the parity of the first 1, 2, ..., 12 bits.

    The whole scratchpad must be right: a reward on the last bit alone would pay
    half to a guess. All 4,096 bit strings.

    On one core ``quick`` takes 12 s. GRPO reaches a pass@1 of .955 (5 seeds). Seeds differ by
    .011: all begin at the same warm start, whose own seed matters most.
    """

    alphabet = "01="
    answer_alphabet = "01"
    limit = BITS + 1
    warm_start = WarmStart(steps=165, sha256="f38687aea08b3db529d2fe0e68ab3eb4fb18bd80eb23228f8bc5a911e070ee47")

    def space(self) -> list[str]:
        return [f"{i:0{BITS}b}=" for i in range(2**BITS)]

    def combination(self, prompt: str) -> str:
        return prompt

    def solve(self, prompts: np.ndarray) -> np.ndarray:
        bits = prompts[:, :BITS].astype(np.int64) - 1
        running = np.cumsum(bits, axis=1) % 2 + 1
        return np.pad(running, ((0, 0), (0, self.limit - BITS))).astype(np.uint8)
