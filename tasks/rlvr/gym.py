"""Every generator of the package reasoning-gym as a task with an exact verifier."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
from collections.abc import Iterable, Mapping

import numpy as np

from suite import Metric, Tier, cache, define_task
from suite.data import DataUnavailable
from suite.fingerprint import package_version, source_hash
from suite.train import warmstart
from suite.train.policy import Policy
from suite.train.rlvr import RlvrTask, WarmStart, pass_at_k
from suite.train.workload import DoesNotApply

LONGEST_QUESTION, LONGEST_ANSWER = 120, 24  # characters
LARGEST_ALPHABET = 255
PADDING = " "
# Item i of a data set is drawn from Random(seed + i), so that data sets of near seeds share all but a few items.
FIRST_SEED = {"test": 1_000_000, "validation": 2_000_000, "train": 3_000_000}
WANTED = {"test": 512, "validation": 128, "train": 6_000}
FEWEST = {"test": 512, "validation": 64, "train": 1_000}
DRAWS = 8  # items drawn, at most, for each that is wanted
FIRST_LOOK = 50  # items after which a generator that loses too many is given up
TRIES, LEAST_SOLVED = 16, 0.1  # pass@16 of a warm start that leaves anything to learn from
SIZES = {
    "prompts": 32, "samples": 8, "refresh": 4,
    "eval_prompts": 64, "eval_samples": 4, "test_prompts": 512, "test_samples": 16,
}  # fmt: skip
SMOKE = {**SIZES, "prompts": 8, "eval_prompts": 16, "test_prompts": 64}

Pairs = dict[str, list[tuple[str, str]]]  # split -> (question, answer) of each item


@define_task(
    "gym-*",
    title="* of reasoning-gym by verified rewards",
    family="rlvr",
    version=1,
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
        "quick": Tier(1_000_000, evals=20, sizes=SIZES),
    },
    noise={},
    requires="reasoning_gym",
    members="reasoning_gym.factory:DATASETS",
)  # fmt: skip
class Gym(RlvrTask):
    """Any generator of reasoning-gym (gym-chain-sum is its chain_sum); pip install 'levelfield[reasoning-gym]'.

    Questions are the prompts, character by character, without the words that
    all of them begin or end with, padded on the left with spaces to one length.
    A completion is right when it is the item's answer, character for character;
    the package's own score, which pays parts of a point for near misses, is
    never asked, and where a question has several right answers the item's is
    the only one.

    Items come from the generator's default configuration, from three ranges of
    seeds a million apart. An item is dropped when an earlier one, of its own or
    another split, has its question, and when its question is longer than 120
    characters or its answer longer than 24. A generator that keeps too few of
    its items, or whose warm start solves too few of its validation prompts, is
    refused. Many a default is hard for so small a model (chain_sum, products):
    look at the warm start's pass@1 before reading anything into a comparison.

    The warm start is trained on first use, for 800 steps or until its pass@1 on
    validation prompts is .3, and kept in the cache. Its bits follow from the
    package, the code, torch and the machine: compare results where these are
    the same.
    """

    warm_start = WarmStart(steps=800, enough=0.3)

    @property
    def generator(self) -> str:
        """The package's own name of the generator."""
        return self.info.member.replace("-", "_")

    @functools.cached_property
    def items(self) -> Pairs:
        """(question, answer) pairs of "test", "validation" and "train", drawn once for a version of the package.

        Questions are without the words that all of them begin or end with.

        Raises
        ------
        DataUnavailable : the package is not installed.
        DoesNotApply : the generator's items do not make a task.
        """
        if self.info.member_names() is None:
            raise DataUnavailable(
                f"{self.name} needs the package reasoning-gym, which is not installed: "
                "pip install 'levelfield[reasoning-gym]'"
            )
        key = f"{self.generator} {package_version(self.info.requires)} {source_hash(self.info.path)}"
        drawn = cache.content(f"gym-{self.info.member}", key, lambda: json.dumps(draw(self.generator)).encode())
        return without_frame(json.loads(drawn))

    @functools.cached_property
    def _pairs(self) -> list[tuple[str, str]]:
        return list(itertools.chain(*self.items.values()))

    @functools.cached_property
    def alphabet(self) -> str:
        return _characters([PADDING, *itertools.chain(*self._pairs)])

    @functools.cached_property
    def answer_alphabet(self) -> str:
        return _characters(answer for _, answer in self._pairs)

    @functools.cached_property
    def limit(self) -> int:
        return max(len(answer) for _, answer in self._pairs) + 1

    def split(self) -> dict[str, list[str]]:
        width = max(len(question) for question, _ in self._pairs)
        return {split: [q.rjust(width, PADDING) for q, _ in pairs] for split, pairs in self.items.items()}

    def space(self) -> list[str]:
        return list(itertools.chain(*self.split().values()))

    def combination(self, prompt: str) -> str:
        return prompt

    @functools.cached_property
    def _answers(self) -> dict[bytes, np.ndarray]:
        """(limit,) tokens of the answer, by the bytes of the prompt's tokens."""
        found = {}
        for prompt, (_, answer) in zip(self.encode(self.space()), self._pairs, strict=True):
            padded = np.zeros(self.limit, dtype=np.uint8)
            padded[: len(answer)] = self.encode([answer])[0]
            found[prompt.tobytes()] = padded
        return found

    def solve(self, prompts: np.ndarray) -> np.ndarray:
        answers = [self._answers[prompt.tobytes()] for prompt in prompts.astype(np.uint8)]
        return np.array(answers, dtype=np.uint8).reshape(len(prompts), self.limit)

    def policy(self) -> Policy:
        """A fresh copy of the warm start.

        Raises
        ------
        DoesNotApply : it solves so few validation prompts that there is nothing to learn from.
        """
        if self._start_solves < LEAST_SOLVED:
            raise DoesNotApply(
                f"reasoning-gym's {self.generator} is too hard for the small model: its warm start solves "
                f"{self._start_solves:.0%} of the validation prompts in {TRIES} tries, fewer than {LEAST_SOLVED:.0%}; "
                "choose another generator"
            )
        return super().policy()

    @functools.cached_property
    def _start_solves(self) -> float:
        """pass@16 of the warm start on validation prompts."""
        return pass_at_k(warmstart.solved(self, super().policy(), TRIES), TRIES)


def draw(generator: str) -> Pairs:
    """(question, answer) pairs of each split, no question in two of them.

    Raises
    ------
    DoesNotApply : too few of the items have a short question and a short answer, or there are none to be had.
    """
    create_dataset = importlib.import_module("reasoning_gym").create_dataset
    seen: set[str] = set()
    drawn: Pairs = {}
    for split, seed in FIRST_SEED.items():
        try:
            dataset = create_dataset(generator, size=DRAWS * WANTED[split], seed=seed)
            drawn[split] = _fitting(generator, split, dataset, seen)
        except DoesNotApply:
            raise
        except Exception as error:  # the package's generators raise what they like
            raise DoesNotApply(
                f"reasoning-gym's {generator} makes no items by itself ({type(error).__name__}: {error}); "
                "choose another generator"
            ) from error
    if (count := len(_characters(itertools.chain(*itertools.chain(*drawn.values()))))) >= LARGEST_ALPHABET:
        raise DoesNotApply(
            f"reasoning-gym's {generator} uses {count} different characters, {LARGEST_ALPHABET - 1} are the most that "
            "a task may have; choose another generator"
        )
    return drawn


def _fitting(
    generator: str, split: str, dataset: Iterable[Mapping[str, object]], seen: set[str]
) -> list[tuple[str, str]]:
    """The first items of a data set that are short enough and new; their questions' words are added to `seen`."""
    kept: list[tuple[str, str]] = []
    short = drawn = 0
    for drawn, item in enumerate(itertools.islice(dataset, DRAWS * WANTED[split]), start=1):
        question, answer = str(item["question"]).strip(), item["answer"]
        fits = len(question) <= LONGEST_QUESTION and isinstance(answer, str) and 0 < len(answer) <= LONGEST_ANSWER
        short += fits
        words = " ".join(question.split())  # padded questions may differ in their spaces alone
        if fits and words not in seen:
            seen.add(words)
            kept.append((question, str(answer)))
        if len(kept) == WANTED[split] or (drawn == FIRST_LOOK and short * DRAWS < drawn):
            break
    if len(kept) < FEWEST[split]:
        raise DoesNotApply(
            f"reasoning-gym's {generator} makes no task: of {drawn} items {short} have a question of at most "
            f"{LONGEST_QUESTION} characters and an answer of at most {LONGEST_ANSWER}, {len(kept)} of these are "
            f"different and in no other split, and {split} needs {FEWEST[split]}; choose another generator"
        )
    return kept


def without_frame(drawn: Pairs) -> Pairs:
    """The same pairs, without the words that every question begins with and those that every question ends with."""
    questions = [question for pairs in drawn.values() for question, _ in pairs]
    start = _common_start(questions)
    start = start[: start.rfind(" ") + 1]
    end = _common_start([question[len(start) :][::-1] for question in questions])[::-1]
    end = end[end.find(" ") :] if " " in end else ""
    return {s: [(q[len(start) : len(q) - len(end)], a) for q, a in pairs] for s, pairs in drawn.items()}


def _common_start(texts: Iterable[str]) -> str:
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return "".join(column[0] for column in alike)


def _characters(texts: Iterable[str]) -> str:
    return "".join(sorted(set(itertools.chain(*texts))))
