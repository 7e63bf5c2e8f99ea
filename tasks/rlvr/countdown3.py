"""Countdown with three numbers and a verifier."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from suite import Metric, Tier, define_task
from suite.train.rlvr import RlvrTask, WarmStart

OPERATORS = "+-*"
LARGEST_TARGET = 99
SIZES = {
    "prompts": 128, "samples": 4, "refresh": 2,
    "eval_prompts": 64, "eval_samples": 4, "test_prompts": 512, "test_samples": 16,
}  # fmt: skip
SMOKE = {**SIZES, "prompts": 4, "eval_prompts": 16, "test_prompts": 32}


@define_task(
    "countdown3-rlvr",
    title="Countdown with three numbers by verified rewards",
    family="rlvr",
    version=5,
    unit="generated tokens",
    metric=Metric("pass@1", "share", "max", floor=1.0, chance=0.0),
    slots=("objective", "optimizer", "gradient", "schedule", "averaging", "regularizer", "data"),
    recipe={
        "objective": "grpo",
        "optimizer": ("adamw", {"lr": 8e-4, "weight_decay": 0.0}),
        "gradient": ("grad-clip", {"max_norm": 1.0}),
        "schedule": ("linear", {"warmup": 0.02}),
        "averaging": "last",
        "data": "all-data",
    },
    tiers={
        "smoke": Tier(3_000, evals=2, sizes=SMOKE),
        "quick": Tier(750_000, evals=20, sizes=SIZES),
    },
    noise={"quick": {"sd": 0.012, "floor": 0.005, "n": 5, "per_doubling": 0.15}},
)  # fmt: skip
class Countdown3(RlvrTask):
    """``3,5,8:43=`` asks for 43 from 3, 5 and 8, each used once; ``8*5+3`` is one right answer.

    Numbers are 1 to 9, operators +, - and * with the usual precedence and no
    brackets, targets 0 to 99. Every reachable target of every ordered triple.
    Prompts with the same numbers and target share a split. The verifier reads
    the completion as digit, operator, digit, operator, digit, and evaluates
    that; nothing is parsed or run as code.

    On one core ``quick`` takes 25 s. GRPO reaches a pass@1 of .433 (5 seeds), .283 with half and .513
    with twice the tokens; four times as many add little (.535), so that longer runs would tell methods
    apart less. Seeds differ by .012: all begin at the same warm start, whose own seed matters most.
    """

    alphabet = "0123456789+-*,:="
    answer_alphabet = "0123456789+-*"
    limit = 6
    test_tenths = 1
    warm_start = WarmStart(steps=500, sha256="b356c43baed9ed9c9a78bc244c423301dbff3e2c0ad9e7dce7d477e1c97b020b")

    def space(self) -> list[str]:
        triples = itertools.product(range(1, 10), repeat=3)
        return [f"{a},{b},{c}:{t:02d}=" for a, b, c in triples for t in sorted(solutions(tuple(sorted((a, b, c)))))]

    def combination(self, prompt: str) -> str:
        numbers, target = prompt.rstrip("=").split(":")
        return f"{sorted(numbers.split(','))}:{target}"

    def solve(self, prompts: np.ndarray) -> np.ndarray:
        return self._pad([self._solutions(prompt)[0] for prompt in prompts])

    def examples(self) -> tuple[np.ndarray, np.ndarray]:
        """Every right answer of every training prompt: showing one each would cost the warm start its diversity."""
        prompts = self.prompts("train").numpy()
        answers = [self._solutions(prompt) for prompt in prompts]
        return np.repeat(prompts, [len(a) for a in answers], axis=0), self._pad(list(itertools.chain(*answers)))

    def _solutions(self, prompt: np.ndarray) -> list[str]:
        numbers, target = self.decode(prompt).rstrip("=").split(":")
        a, b, c = sorted(map(int, numbers.split(",")))
        return solutions((a, b, c))[int(target)]

    def _pad(self, texts: list[str]) -> np.ndarray:
        return np.pad(self.encode(texts), ((0, 0), (0, self.limit - len(texts[0]))))

    def verify(self, prompts: np.ndarray, completions: np.ndarray) -> np.ndarray:
        digits = prompts.astype(np.int64) - 1
        given, target = digits[:, [0, 2, 4]], 10 * digits[:, 6] + digits[:, 7]
        used = completions[:, [0, 2, 4]].astype(np.int64) - 1
        same = (np.sort(used, axis=1) == np.sort(given, axis=1)).all(axis=1)
        return self.formed(completions) & same & (self._value(completions) == target)

    def formed(self, completions: np.ndarray) -> np.ndarray:
        digits, operators = completions[:, [0, 2, 4]], completions[:, [1, 3]]
        plus, times = self.alphabet.index("+") + 1, self.alphabet.index("*") + 1
        return (
            ((digits >= 1) & (digits <= 10)).all(axis=1)
            & ((operators >= plus) & (operators <= times)).all(axis=1)
            & (completions[:, 5:] == 0).all(axis=1)
        )

    def _value(self, completions: np.ndarray) -> np.ndarray:
        """(n,) values of digit-operator-digit-operator-digit completions; the product binds first."""
        a, b, c = (completions[:, i].astype(np.int64) - 1 for i in (0, 2, 4))
        plus = self.alphabet.index("+") + 1
        first, second = (completions[:, i].astype(np.int64) - plus for i in (1, 3))
        return np.where(
            (second == 2) & (first != 2),
            _apply(first, a, b * c),
            _apply(second, _apply(first, a, b), c),
        )


def _apply(operator: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left + right, left - right or left * right where `operator` is 0, 1 or 2."""
    return np.select([operator == 0, operator == 1], [left + right, left - right], left * right)


@functools.cache
def solutions(numbers: tuple[int, int, int]) -> dict[int, list[str]]:
    """Expressions of the three numbers, in any order, by the value from 0 to 99 that they have."""
    found: dict[int, list[str]] = {}
    for a, b, c in sorted(set(itertools.permutations(numbers))):
        for first, second in itertools.product(OPERATORS, repeat=2):
            value = evaluate(a, first, b, second, c)
            if 0 <= value <= LARGEST_TARGET:
                found.setdefault(value, []).append(f"{a}{first}{b}{second}{c}")
    return found


def evaluate(a: int, first: str, b: int, second: str, c: int) -> int:
    """Value of ``a first b second c`` with the usual precedence."""
    if second == "*" and first != "*":
        return a + b * c if first == "+" else a - b * c
    left = {"+": a + b, "-": a - b, "*": a * b}[first]
    return {"+": left + c, "-": left - c, "*": left * c}[second]
