"""The guides state no interval that the stored results do not hold."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

import suite
from suite.registry import registry
from suite.stats import comparison_table

ROOT = Path(suite.__file__).parent.parent
SITE = ROOT / "leaderboard" / "site"  # `levelfield board --check` holds it against the rows
NUMBER = r"[−+]?\d*\.?\d+"
FINDING = re.compile(
    rf"({NUMBER})×?(?: [a-z]+)? \(({NUMBER})×? to ({NUMBER})×?(?:; ({NUMBER})×? to ({NUMBER})×?)?[,;)]"
)

PAIRS = {"SGD with momentum against AdamW": ("sgd", "adamw"), "Muon against AdamW": ("muon", "adamw")}  # of no claim

pytestmark = pytest.mark.skipif(not (SITE / "claims.csv").exists(), reason="no leaderboard beside the suite")


class Finding(NamedTuple):
    """A value with its interval, as a guide prints it, and the question and the tasks of its row of the table."""

    words: tuple[str, str, str]
    question: str
    tasks: frozenset[str]


def findings(text: str) -> Iterator[Finding]:
    """The findings of a text's tables; a second interval in a bracket is of the same value."""
    known = {task.name for task in registry().tasks.values()}
    for line in text.splitlines():
        if line.startswith("|"):
            named = frozenset(re.findall(r"`([^`]+)`", line)) & known
            question = line.split("|")[1].strip()
            for value, low, high, low_2, high_2 in FINDING.findall(line):
                yield Finding((value, low, high), question, named)
                if low_2:
                    yield Finding((value, low_2, high_2), question, named)


def is_rounded(word: str, value: float) -> bool:
    """Whether a printed number is the value, to the places it prints."""
    printed = float(word.replace("−", "-"))
    return abs(printed - value) <= 0.500001 * 10.0 ** -len(word.partition(".")[2])


@cache
def stored() -> dict[str, list[tuple[float, float, float]]]:
    """Task, "" for all together -> (value, low, high) of its cells, comparisons and standings."""
    found: dict[str, list[tuple[float, float, float]]] = {}

    def add(task: str, *words: str) -> None:
        if all(words):
            value, low, high = map(float, words)
            found.setdefault(task, []).append((value, low, high))

    for r in _rows("cells"):
        add(r["task"], r["gain"], r["gain_low"], r["gain_high"])
    for r in _rows("claims"):
        add(r["task"], r["difference"], r["low"], r["high"])
    for r in _rows("standings"):
        add("", r["value"], r["seeds_low"], r["seeds_high"])
        add("", r["value"], r["low"], r["high"])
    return found


@cache
def compared(first: str, second: str) -> dict[str, list[tuple[float, float, float]]]:
    """Task -> (difference, low, high) of one method against another, each at its default."""
    runs = pd.DataFrame([r for r in _rows("runs") if r["method"] in (first, second) and _is_default(r)])
    runs = runs.astype({"seed": int, "budget": float}).assign(score=pd.to_numeric(runs["score"]))
    found = comparison_table(runs, [second, first]).query("pairs > 1")
    return {r.task: [(r.difference, r.low, r.high)] for r in found.itertuples()}


def _is_default(row: dict[str, str]) -> bool:
    return (row["tier"], row["budget_kind"], row["trials"], row["set_hp"]) == ("quick", "steps", "0", "{}")


def _rows(name: str) -> list[dict[str, str]]:
    with open(SITE / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def is_stored(finding: Finding) -> bool:
    """Whether some stored difference, either way round, or some speedup prints like the finding."""
    value, low, high = finding.words
    pairs = next((pair for words, pair in PAIRS.items() if finding.question.startswith(words)), None)
    table = compared(*pairs) if pairs else stored()
    for task in ("", *finding.tasks):
        for v, lo, hi in table.get(task, ()):
            for a, b, c in ((v, lo, hi), (-v, -hi, -lo)):
                if is_rounded(value, a) and is_rounded(low, b) and is_rounded(high, c):
                    return True
    return False


@pytest.mark.parametrize("name", ["README.md", "results/README.md"])
def test_every_interval_of_a_guide_is_stored(name: str) -> None:
    found = list(findings((ROOT / name).read_text(encoding="utf-8")))
    assert len(found) > 20
    wrong = [
        f"{f.words[0]} ({f.words[1]} to {f.words[2]}) on {', '.join(sorted(f.tasks))}"
        for f in found
        if not is_stored(f)
    ]
    assert not wrong, f"{name} states what results/ does not hold (any more): {wrong}"


def test_a_wrong_figure_would_be_found() -> None:
    right = next(iter(findings((ROOT / "README.md").read_text(encoding="utf-8"))))
    value, low, high = right.words
    assert is_stored(right)
    assert not is_stored(right._replace(words=(value, low, high[:-1] + str((int(high[-1]) + 5) % 10))))
    assert [f.words for f in findings("| SOAP on `hmm-gpt` | 1.2× (1.0× to 1.4×; 0.9× to 1.6×), +.1 nats (−.1 to +.3, n = 3) |")] == [
        ("1.2", "1.0", "1.4"), ("1.2", "0.9", "1.6"), ("+.1", "−.1", "+.3")
    ]  # fmt: skip


def test_the_readme_counts_the_verdicts_of_the_ledger() -> None:
    whole = [r for r in _rows("claims") if r["task"] == "all"]
    counts = Counter(r["verdict"] for r in whole)
    named, stand = sum(bool(r["stands"]) for r in whole), sum(r["stands"] == "True" for r in whole)
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{len({r['claim'].partition('/')[0] for r in whole})} published claims are in the ledger" in text
    assert (
        f"{len(whole) - counts['not tested']} comparisons have runs: {counts['holds']} hold, {counts['opposite']} come "
        f"out the opposite, {counts['does not separate']} do not separate"
    ) in text
    assert f"Of the {named} that find a better side {stand} stand" in text
