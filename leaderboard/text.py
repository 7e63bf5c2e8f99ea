"""Numbers and words as the pages print them."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from suite.stats import Interval

MINUS = "−"
MISSING = "–"
MOST_LETTERS = 8
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class SlotWords(NamedTuple):
    """What a slot's table is called and what its methods decide, in words for readers."""

    title: str
    sentence: str


SLOT_WORDS = {
    "activation": SlotWords("Activations", "The nonlinearity, the same at every place of the network that has one."),
    "optimizer": SlotWords("Optimizers", "The rule that turns gradients into weight updates."),
    "gradient": SlotWords("Gradient steps", "What happens to the gradient before the update: clipping, extra passes."),
    "schedule": SlotWords("Learning-rate schedules", "How the learning rate rises and falls over the budget."),
    "averaging": SlotWords("Weight averaging", "Which average of the weights is evaluated in place of the last ones."),
    "init": SlotWords("Initialisation", "How the weights are drawn before training."),
    "norm": SlotWords("Normalisation", "The layer that rescales activations inside the network."),
    "block": SlotWords("Feed-forward blocks", "The part of each layer that transforms features position by position."),
    "architecture": SlotWords("Architectures", "The whole network, in place of the task's own."),
    "attention": SlotWords("Attention", "How tokens exchange information."),
    "reparam": SlotWords("Reparametrisation", "The form in which weights are stored and trained."),
    "regularizer": SlotWords("Regularisers", "A penalty added to the training loss."),
    "loss": SlotWords("Losses", "The training loss; every method is scored by the same test metric."),
    "sampler": SlotWords("Collocation samplers", "Where a physics-informed network is asked to satisfy its equation."),
    "pde-method": SlotWords("PDE methods", "How equation and boundary conditions become one training loss."),
    "objective": SlotWords("RLVR objectives", "How verified answers become a policy gradient."),
    "offline-objective": SlotWords("Offline objectives", "What is learnt from a fixed set of right and wrong answers."),
    "data": SlotWords("Data", "Which examples are trained on, and how their answers are judged."),
}  # fmt: skip

TIER_WORDS = {
    "smoke": "Two seconds a run. It shows that everything works and is not evidence about any method.",
    "quick": "Embedded or generated data, some ten seconds a run on one core.",
    "standard": "Real data, about a minute a run on a GPU.",
    "full": "Full-size runs.",
}


def slot_words(slot: str) -> SlotWords:
    """The words of a slot; combinations and slots of other packages get plain ones."""
    if slot in SLOT_WORDS:
        return SLOT_WORDS[slot]
    if "+" in slot:
        return SlotWords("Combinations", "Several slots changed at once.")
    return SlotWords(slot or "Other", "")


def number(value: float | None, digits: int = 4) -> str:
    """`digits` significant digits; "–" for what is missing."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:.{digits}g}"
    if "e" in text and 1e-5 <= abs(value) < 1e6:
        text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return text.replace("-", MINUS)


def decimals(interval: Interval) -> int | None:
    """Decimals that show two digits of the half width; None where there is none to go by."""
    half = (interval.high - interval.low) / 2
    if not math.isfinite(half) or half <= 0 or not 1e-9 < half < 1e6:
        return None
    return min(8, max(0, 1 - math.floor(math.log10(half))))


def fixed(value: float, places: int | None, sign: bool = False) -> str:
    """`value` with `places` decimals (three significant digits where None), the sign always shown on request."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    text = f"{abs(value):.{places}f}" if places is not None else number(abs(value), 3)
    if float(text.replace(MINUS, "-")) == 0:
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


def score_text(interval: Interval) -> str:
    """A mean with as many digits as its interval supports."""
    places = decimals(interval)
    return number(interval.value) if places is None else fixed(interval.value, places)


def gain_text(interval: Interval) -> str:
    """A signed difference with as many digits as its interval supports."""
    return fixed(interval.value, decimals(interval), sign=True)


def bounds_text(interval: Interval, sign: bool = False) -> str:
    """The interval in words; what keeps it from being known where it is not."""
    if interval.n == 0:
        return MISSING
    if not math.isfinite(interval.low):
        return "one seed" if interval.n == 1 else "spread unknown"
    places = decimals(interval)
    if places is None:
        return f"{fixed(interval.low, None, sign)} to {fixed(interval.high, None, sign)}"
    return f"{fixed(interval.low, places, sign)} to {fixed(interval.high, places, sign)}"


def tie_text(letters: str, rank: tuple[int, int, int] | None) -> str:
    """Tie letters while they can be read; else how many methods are tied with this one."""
    if rank is None or (letters and len(re.findall(r"[A-Za-z]\d*", letters)) <= MOST_LETTERS):
        return letters
    return f"with {plural(rank[2] - rank[1], 'other')}"


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:,.0f}"


def plural(n: int, word: str, many: str = "") -> str:
    """``3 runs``, ``1 run``."""
    return f"{n:,} {word if n == 1 else many or word + 's'}"


def listing(words: Iterable[str], most: int = 12) -> str:
    """``a, b and c``; the tail as a count when there are more than `most`."""
    items = list(words)
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def too_few(methods: int) -> str:
    """What is said of methods that have no rank, for they were run on too few tasks; "" of none."""
    if not methods:
        return ""
    stand, them = ("stands", "it") if methods == 1 else ("stand", "them")
    return (
        f"{plural(methods, 'method')} {stand} last, without a rank: run on fewer than half of the tasks that are meant "
        f"for {them} and that most methods of the slot were run on."
    )


def better(direction: str) -> str:
    """Which way is up."""
    return "lower is better" if direction == "min" else "higher is better"


def slug(name: str) -> str:
    """`name` as a file name: itself where it is plain, else its plain characters and a hash."""
    if _PLAIN.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9+-]+", "_", name).strip("_.")[:40]
    return f"{plain or 'x'}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def seed_words(seeds: Iterable[int]) -> str:
    """Seed indices as ``levelfield run --seeds`` takes them: a count where they are 0 to n - 1, else a list."""
    listed = sorted(seeds)
    if listed == list(range(len(listed))) and listed:
        return str(len(listed))
    return ",".join(map(str, listed)) + ("," if len(listed) == 1 else "")


def command(words: Iterable[Any]) -> str:
    """A line ready to paste into a shell."""
    return shlex.join(str(w) for w in words)


METRIC_WORDS = {
    "ce": "cross-entropy",
    "excess": "loss above the source's entropy",
    "accuracy": "accuracy",
    "log10_l2re": "log₁₀ relative L2 error",
    "l2re": "relative L2 error",
    "linf": "relative largest error",
    "pass@1": "pass@1",
}
UNIT_WORDS = {"log10": "decades", "share": "share of answers"}
FAMILY_WORDS = {"vision": "vision", "language": "language", "pde": "PDE", "rlvr": "RLVR"}
VERDICT_WORDS = {
    "better": "better",
    "worse": "worse",
    "tied": "not separated",
    "same": "identical scores",
    "open": "one pair, no interval",
    "failed": "every run failed",
    "skipped": "not run here",
    "reference": "the reference",
}


def metric_words(name: str) -> str:
    """A metric's name as readers know it."""
    return METRIC_WORDS.get(name, name.replace("_", " "))


def unit_words(unit: str) -> str:
    """A unit as readers know it."""
    return UNIT_WORDS.get(unit, unit)


def factor(value: float) -> str:
    """A ratio, ``1.25×``."""
    if not math.isfinite(value):
        return MISSING
    return (f"{value:.2f}" if 0.095 <= value < 9.995 else number(value, 3)) + "×"


@functools.lru_cache(maxsize=4096)
def hyperparameter_text(stored: str) -> str:
    """A row's hyper-parameters (JSON) in words."""
    return hyperparameters(json.loads(stored or "{}"))


def hyperparameters(hp: Mapping[str, Any]) -> str:
    """``lr = 0.001, betas = (0.9, 0.999)``."""
    return ", ".join(f"{k} = {plain_value(v)}" for k, v in hp.items()) or "none"


def plain_value(value: Any) -> str:
    """A hyper-parameter without the last digits of binary fractions."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(plain_value, value)) + ")"
    return str(value)
