"""`levelfield bench`: pinned ids, exact counters and time ratios of pytest-benchmark files."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from suite.gate.bench import compare, read
from suite.gate.quality import FAIL, INCONCLUSIVE, PASS, Verdict

Levelfield = Callable[..., tuple[int, str, str]]
COUNTS = {"flops": 1000.0, "elementwise": 200.0, "saved_bytes": 4096, "state_bytes": 0}
ID = "benchmarks/test_methods.py::test_activation[golu]"
OTHER = "benchmarks/test_methods.py::test_optimizer_step[lion]"
BASE = {ID: {**COUNTS, "ratio": 1.5}, OTHER: {**COUNTS, "ratio": 2.0}}


def held(head: dict[str, Any], *again: dict[str, Any], base: dict[str, Any] = BASE) -> dict[tuple[str, str], Verdict]:
    report = compare(base, [head, *again])
    return {(f"{v.task}::{v.method}", v.question): v for v in report.verdicts}


def changed(**more: Any) -> dict[str, Any]:
    return {**BASE, ID: {**BASE[ID], **more}}


def test_an_unchanged_file_passes() -> None:
    assert compare(BASE, [BASE]).verdict == PASS
    assert {v.question for v in held(BASE).values()} == {"flops", "elements", "memory", "optimizer state", "ratio"}


@pytest.mark.parametrize(("key", "question"), [("flops", "flops"), ("saved_bytes", "memory")])
def test_counters_may_grow_by_five_percent(key: str, question: str) -> None:
    assert held(changed(**{key: COUNTS[key] * 1.04}))[ID, question].verdict == PASS
    assert held(changed(**{key: COUNTS[key] * 1.06}))[ID, question].verdict == FAIL
    assert held(changed(**{key: COUNTS[key] * 0.5}))[ID, question].verdict == PASS


def test_a_renamed_or_missing_id_fails_however_fast_it_is() -> None:
    renamed = {OTHER: BASE[OTHER], ID.replace("golu", "gompertz"): BASE[ID]}
    report = compare(BASE, [renamed])
    (gone,) = [v for v in report.verdicts if v.verdict == FAIL]
    assert gone.question == "presence"
    assert "test_activation[gompertz] is new: a rename is a failure too" in gone.rule
    assert any("new in head" in note for note in report.notes)
    assert compare(BASE, [{ID: BASE[ID]}]).verdict == FAIL


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, None, "fast", True])
@pytest.mark.parametrize(("key", "question"), [("flops", "flops"), ("ratio", "ratio")])
def test_what_is_not_a_number_fails_on_either_side(key: str, question: str, value: object) -> None:
    assert held(changed(**{key: value}))[ID, question].verdict == FAIL
    assert held(BASE, base=changed(**{key: value}))[ID, question].verdict == FAIL


@pytest.mark.parametrize(("key", "question"), [("elementwise", "elements"), ("ratio", "ratio")])
def test_a_counter_that_is_gone_fails_and_a_new_one_is_noted(key: str, question: str) -> None:
    without = {**BASE, ID: {k: v for k, v in BASE[ID].items() if k != key}}
    assert held(without)[ID, question].verdict == FAIL
    assert compare(without, [BASE]).verdict == PASS
    assert any(key in note for note in compare(without, [BASE]).notes)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.5], PASS),
        ([1.0], PASS),
        ([1.64], PASS),  # 9% more
        ([1.8], INCONCLUSIVE),  # 20% more, measured once
        ([1.8, 1.8], FAIL),
        ([1.8, 1.5], PASS),
        ([1.5, 1.8], INCONCLUSIVE),
        ([2.0], FAIL),  # 33% more
    ],
)
def test_a_ratio_fails_when_it_is_slower_twice_or_far_slower_once(ratios: list[float], expected: str) -> None:
    assert held(*(changed(ratio=r) for r in ratios))[ID, "ratio"].verdict == expected


def test_the_intervals_of_ratios_count_where_they_are_stated() -> None:
    base = {ID: {"ratio": 1.0, "ratio_low": 0.98, "ratio_high": 1.02}}

    def verdict(low: float, value: float, high: float) -> str:
        head = {ID: {"ratio": value, "ratio_low": low, "ratio_high": high}}
        return held(head, head, base=base)[ID, "ratio"].verdict

    assert verdict(1.0, 1.03, 1.06) == PASS
    assert verdict(0.9, 1.03, 1.2) == INCONCLUSIVE
    assert verdict(1.15, 1.2, 1.25) == FAIL
    cost = {ID: {"adamw_ratio": 1.0, "adamw_low": 1.0, "adamw_high": 1.0}}
    slower = {ID: {"adamw_ratio": 1.5, "adamw_low": 1.5, "adamw_high": 1.5}}
    assert held(slower, base=cost)[ID, "adamw ratio"].verdict == FAIL
    assert held({ID: {}}, base=cost)[ID, "adamw ratio"].verdict == FAIL


def test_a_benchmark_that_states_nothing_is_named() -> None:
    report = compare({ID: {"rows": 5}, OTHER: BASE[OTHER]}, [{ID: {}, OTHER: BASE[OTHER]}])
    assert report.verdict == PASS
    assert any("nothing of it is held" in note for note in report.notes)
    assert compare({ID: {}}, [{ID: {}}]).verdict == FAIL  # nothing at all was held


# ---------------------------------------------------------------- the command


def write(path: Path, found: dict[str, Any]) -> Path:
    entries = [
        {"fullname": name, "name": name.partition("::")[2], "extra_info": extra} for name, extra in found.items()
    ]
    info = {"id": "abc123", "dirty": False}
    path.write_text(json.dumps({"datetime": "2026-01-02T03:04:05", "commit_info": info, "benchmarks": entries}))
    return path


def test_the_command_reports_in_every_form(levelfield: Levelfield, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.json", BASE), write(tmp_path / "b.json", changed(flops=2000.0, ratio=1.8))
    code, out, _ = levelfield("bench", "compare", a, a)
    assert code == 0
    assert "| file | benchmark | question |" in out
    junit = tmp_path / "j.xml"
    code, out, err = levelfield("bench", "compare", a, b, "--json", "--junit", junit, "--annotations")
    assert code == 1
    cells = {(c["method"], c["question"]): c["verdict"] for c in json.loads(out)["cells"]}
    assert cells["test_activation[golu]", "flops"] == FAIL
    assert cells["test_activation[golu]", "ratio"] == INCONCLUSIVE
    assert "::error title=levelfield bench compare%3A flops" in err
    assert ElementTree.parse(junit).find(".//failure") is not None
    slower = write(tmp_path / "c.json", changed(ratio=1.8))
    assert levelfield("bench", "compare", a, slower)[0] == 4
    assert levelfield("bench", "compare", a, slower, slower)[0] == 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("no json", "not JSON"),
        ("[]", "not the JSON of pytest-benchmark"),
        ('{"benchmarks": 3}', "not the JSON of pytest-benchmark"),
        ('{"benchmarks": [{"fullname": 3}]}', "not the JSON of pytest-benchmark"),
        ('{"benchmarks": [{"fullname": "a::b", "extra_info": [1]}]}', "not the JSON of pytest-benchmark"),
        ("[" * 100_000, "not JSON"),
        ('{"benchmarks": []}', "holds no benchmark"),
        ('{"benchmarks": [{"fullname": "a::b"}, {"fullname": "a::b"}]}', "stands in it twice"),
    ],
)
def test_a_file_that_is_something_else_is_an_error(
    levelfield: Levelfield, tmp_path: Path, text: str, word: str
) -> None:
    a, bad = write(tmp_path / "a.json", BASE), tmp_path / "bad.json"
    bad.write_text(text)
    for files in ((a, bad), (bad, a)):
        code, _, err = levelfield("bench", "compare", *files)
        assert code == 2
        assert word in err
    assert levelfield("bench", "compare", a, tmp_path / "none.json")[0] == 2


@pytest.mark.parametrize("margin", [0.0, -0.5, -1.0, math.nan, math.inf])
def test_a_margin_that_is_none_is_an_error(levelfield: Levelfield, tmp_path: Path, margin: float) -> None:
    a = write(tmp_path / "a.json", BASE)
    code, _, err = levelfield("bench", "compare", a, a, f"--margin={margin}")
    assert (code, "--margin takes a growth above 0" in err) == (2, True)


def test_what_pytest_benchmark_writes_is_read(tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text("def test_sum(benchmark):\n    benchmark.extra_info['flops'] = 3\n    benchmark(sum, [1, 2])\n")
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "test_it.py",
        "--benchmark-json",
        "out.json",
    ]
    free = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}  # a worker of xdist does not measure
    subprocess.run([*words, "--benchmark-max-time=0.01"], cwd=tmp_path, check=True, capture_output=True, env=free)
    assert read(tmp_path / "out.json") == {"test_it.py::test_sum": {"flops": 3}}


def test_the_trend_grows_by_a_line_a_value(levelfield: Levelfield, tmp_path: Path) -> None:
    a, trend = write(tmp_path / "a.json", changed(ratio=math.nan, note="words")), tmp_path / "trend.csv"
    for _ in range(2):
        assert levelfield("bench", "trend", a, "--into", trend)[0] == 0
    with open(trend, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 9  # ten numbers, one of them no number
    assert rows[0] == {
        "time": "2026-01-02T03:04:05", "commit": "abc123", "benchmark": ID, "key": "elementwise", "value": "200.0"
    }  # fmt: skip
