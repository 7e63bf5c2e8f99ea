"""``levelfield compare``: pairs, failures by name, only what is missing is run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from suite.store.files import read

Levelfield = Callable[..., tuple[int, str, str]]
QUICKLY = ("--tier", "smoke", "--cost", "0", "--workers", "1")


def test_a_comparison_runs_what_is_missing_and_names_what_failed(levelfield: Levelfield, toy: Path) -> None:
    out = toy / "out"
    names = ("toy-plain", "reference", "toy-nan", "toy-missing")
    code, text, _ = levelfield("compare", *names, "--tasks", "toy", "--seeds", "3", "--out", out, *QUICKLY)
    assert code == 1
    assert re.search(r"^toy +reference .* 0 +0 to 0 +3 +0 +1 +0 +does not separate$", text, re.M)
    assert re.search(r"^toy +toy-nan +- +- +0 +3 of 3 .* failed$", text, re.M)
    assert "not finished: toy, 3 runs (toy-nan): diverged" in text
    assert re.search(r"not finished: toy, 3 runs \(toy-missing\): skipped", text)
    assert "Each of the 2 verdicts holds by itself at 5%" in text
    assert len((toy / "log").read_text().splitlines()) == 9

    code, text, err = levelfield(
        "compare", "toy-plain", "toy-more", "--tasks", "toy", "--seeds", "3", "--out", out, "--json", *QUICKLY
    )
    assert code == 0, err
    found = json.loads(text)
    assert (found["base"], found["failures"]) == ("toy-plain", [])
    base, other = found["rows"]
    assert (base["verdict"], base["n"], base["difference"]) == ("", 3, None)
    assert (other["pairs"], other["difference"], other["verdict"]) == (3, 0.0, "does not separate")
    assert len((toy / "log").read_text().splitlines()) == 12  # the three runs of toy-more alone
    assert {r["method"] for r in read(out).table.to_pylist()} == {*names, "toy-more"}


def test_a_method_that_does_not_fit_a_task_leaves_the_others(levelfield: Levelfield, toy: Path) -> None:
    code, text, err = levelfield(
        "compare", "toy-plain", "toy-more", "nesterov", "--tasks", "toy,add2-rlvr", "--seeds", "2",
        "--out", toy / "out", "--json", *QUICKLY,
    )  # fmt: skip
    assert code == 0
    assert "add2-rlvr is left out: it takes no two methods of which toy-plain is one" in err
    assert [(r["task"], r["method"]) for r in json.loads(text)["rows"]] == [
        ("toy", "toy-plain"), ("toy", "toy-more"), ("toy", "nesterov"),
    ]  # fmt: skip


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("golu --tasks toy", "a comparison needs two methods"),
        ("golu golu --tasks toy", "a comparison needs two methods"),
        ("golo gelu --tasks toy", "no method named 'golo'; did you mean golu"),
        ("golu gelu --tasks toyy", "no task named 'toyy'; did you mean toy"),
        ("gelu grpo --tasks toy --tier smoke", "grpo \\(objective\\) fits none of the chosen tasks"),
        ("gelu relu --tasks toy --tier quick", "nothing to compare: toy has no tier 'quick'"),
        ("gelu relu --tasks toy --tier smoke --seeds none", "--seeds takes a count"),
        ("toy-missing toy-plain --tasks toy --tier smoke --seeds 2 --cost 0", "nothing to compare: .*skipped"),
    ],
)
def test_what_cannot_be_compared_is_one_message(
    arguments: str, message: str, levelfield: Levelfield, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = levelfield("compare", *arguments.split())
    assert code == 2
    assert re.search(message, err), err
    assert out == ""
