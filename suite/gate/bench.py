"""Micro-benchmarks held against each other: the exact counters and time ratios of two pytest-benchmark files."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.gate.quality import FAIL, INCONCLUSIVE, PASS, Verdict
from suite.gate.report import Report
from suite.gate.speed import COUNTERS, TIME_MARGIN, Timing, counters, known

UNSTATED = 0.07  # what a growth loses whose ratios state no interval: 2 sd of two interleaved ratios of 2.6% each
ALONE = 2.0  # margins (log) that the lower bound has to pass where no second file confirms
Extra = dict[str, Any]


def read(path: Path) -> dict[str, Extra]:
    """Benchmark id (its full name) -> what it left in ``extra_info``.

    Raises
    ------
    ValueError : not the JSON of pytest-benchmark, no benchmarks in it, or an id twice.
    """
    found: dict[str, Extra] = {}
    for entry in _entries(_load(path), path):
        if entry["fullname"] in found:
            raise ValueError(f"{path}: {entry['fullname']} stands in it twice; an id names one benchmark")
        found[entry["fullname"]] = dict(entry.get("extra_info") or {})
    return found


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); write it with pytest --benchmark-json") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path}: not the JSON of pytest-benchmark; write it with pytest --benchmark-json")
    return data


def _entries(data: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    entries = data.get("benchmarks")
    if not isinstance(entries, list) or not all(map(_is_benchmark, entries)):
        raise ValueError(f"{path}: not the JSON of pytest-benchmark; write it with pytest --benchmark-json")
    if not entries:
        raise ValueError(f"{path}: holds no benchmark: did pytest collect any?")
    return entries


def _is_benchmark(entry: Any) -> bool:
    """Whether an entry has a name, and what it left beside its times has keys."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("fullname"), str)
        and isinstance(entry.get("extra_info"), dict | None)
    )


def compare(base: Mapping[str, Extra], heads: Sequence[Mapping[str, Extra]], margin: float = TIME_MARGIN) -> Report:
    """Hold every benchmark of `base` against the same id of `heads`.

    The ids of `base` are pinned: one that is missing or renamed fails, and so
    does a counter or ratio that is gone or not a number. Exact counters may
    grow by 5%. A time ratio (to a baseline in its own run) fails when the lower
    bound of its growth passes `margin` in every head, or, with one head alone,
    passes it twice over.

    Parameters
    ----------
    base : id -> extra_info.
    heads : one or more measurements of head; the first holds the counters.
    margin : growth of a time ratio that counts.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"--margin takes a growth above 0 (0.1 is 10%), got {margin:g}")
    verdicts: list[Verdict] = []
    notes: list[str] = []
    head = heads[0]
    new = sorted(set(head) - set(base))
    for name, was in sorted(base.items()):
        file, _, test = name.partition("::")
        if name not in head:
            near = difflib.get_close_matches(name, new, n=1, cutoff=0.0)
            hint = f"; {near[0]} is new: a rename is a failure too" if near else ""
            verdicts.append(Verdict(file, test, "presence", FAIL, f"the benchmark is gone{hint}"))
            continue
        held = _held(file, test, was, [h[name] for h in heads if name in h], margin)
        verdicts += held
        if not held:
            notes.append(f"{name}: states neither a counter nor a ratio; nothing of it is held")
        more = [key for key in head[name] if key not in was and (key in COUNTERS or _is_ratio(key))]
        notes += [f"{name}: {key} is new in head, not held yet" for key in sorted(more)]
    notes += [f"new in head, not held yet: {name}" for name in new]
    return Report(verdicts, notes, title="levelfield bench compare", kinds=("file", "benchmark"))


def _held(file: str, test: str, was: Extra, now: Sequence[Extra], margin: float) -> list[Verdict]:
    """Verdicts on one benchmark's counters and ratio."""
    verdicts = counters(file, test, was, now[0])
    for column, question in COUNTERS.items():
        if column in was and not known(was[column]):
            verdicts.append(
                Verdict(file, test, question, FAIL, f"base's {column} is {was[column]!r}: write base again")
            )
    return verdicts + [_ratio(file, test, key, was, now, margin) for key in sorted(was) if _is_ratio(key)]


def _is_ratio(key: str) -> bool:
    """Whether a key states a time over that of a baseline of the same run: "ratio", "adamw_ratio"."""
    return key == "ratio" or key.endswith("_ratio")


def _ratio(file: str, test: str, key: str, was: Extra, now: Sequence[Extra], margin: float) -> Verdict:
    question = key.replace("_", " ")
    sides = [("base", was), *(("head", row) for row in now)]
    wrong = [f"{side}'s {key} is {row.get(key, 'missing')!r}" for side, row in sides if not _positive(row.get(key))]
    if wrong:
        return Verdict(file, test, question, FAIL, "; ".join(wrong), margin=margin)
    growths = [_growth(key, was, row) for row in now]
    held = math.log1p(margin) * (ALONE if len(now) == 1 else 1.0)
    last = growths[-1]
    if all(growth.low > held for growth in growths):
        verdict, why = FAIL, "slower"
    elif last.high < math.log1p(margin):
        verdict, why = PASS, "no slower"
    else:
        verdict, why = INCONCLUSIVE, "cannot tell: measure head once more and give both files"
    rule = f"{why}: {key} {was[key]:.4g} before, {', '.join(f'{row[key]:.4g}' for row in now)} now"
    effect, low, high = (math.expm1(v) for v in (last.value, last.low, last.high))
    detectable = math.expm1(held + (last.value - last.low))
    return Verdict(file, test, question, verdict, rule, effect, low, high, margin, detectable)


def _positive(value: Any) -> bool:
    return known(value) and value > 0


def _growth(key: str, was: Extra, now: Extra) -> Timing:
    """Log growth of a ratio with the intervals that the two state; without them `UNSTATED` below, nothing above.

    The bounds of "ratio" are "ratio_low" and "ratio_high", those of "adamw_ratio" "adamw_low" and "adamw_high".
    """
    value = math.log(now[key] / was[key])
    low, high = (f"{key.removesuffix('_ratio')}_{end}" for end in ("low", "high"))
    if all(_positive(row.get(bound)) for row in (was, now) for bound in (low, high)):
        return Timing(value, math.log(now[low] / was[high]), math.log(now[high] / was[low]))
    return Timing(value, value - UNSTATED, value)


COLUMNS = ("time", "commit", "benchmark", "key", "value")


def trend_rows(path: Path) -> list[tuple[str, str, str, str, float]]:
    """One row a number that a benchmark left in its extra_info: (time, commit, benchmark, key, value)."""
    data = _load(path)
    stated = data.get("commit_info")
    time, commit = str(data.get("datetime", "")), str(stated.get("id", "")) if isinstance(stated, dict) else ""
    return [
        (time, commit, entry["fullname"], key, float(value))
        for entry in sorted(_entries(data, path), key=lambda e: e["fullname"])
        for key, value in sorted((entry.get("extra_info") or {}).items())
        if known(value)
    ]
