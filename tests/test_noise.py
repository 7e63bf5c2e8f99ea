"""A task's noise: derived from a ladder, and written into the task's source without moving its hash."""

from __future__ import annotations

import ast
import difflib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import suite
from suite.facts import Noise
from suite.fingerprint import source_hash
from suite.noise import noise_facts, write_noise
from suite.registry import RegistryError, TaskInfo, scan
from suite.stats.power import minimum_detectable_effect

Levelfield = Callable[..., tuple[int, str, str]]
MEASURED = Noise(0.0123, floor=0.002, n=5, per_doubling=-0.4)


def rung(budget: float, *scores: float | None) -> list[dict[str, Any]]:
    return [{"budget": budget, "score": s, "status": "diverged" if s is None else "ok"} for s in scores]


def test_noise_follows_from_the_ladder() -> None:
    """sd of 1, 2, 3 is 1; the half budget's mean is 5, the full one's 2, and lower is better: a doubling is worth 3."""
    frame = pd.DataFrame([*rung(50, 4.0, 6.0), *rung(100, 1.0, 2.0, 3.0, None), *rung(400, 0.5)])
    found = noise_facts(frame, 100, 1, floor=0.25)
    assert found["noise"] == Noise(1.0, floor=0.25, n=3, per_doubling=3.0)
    assert noise_facts(frame, 100, -1)["noise"].per_doubling == -3.0
    assert [(r["share"], r["n"], r["failed"]) for r in found["ladder"]] == [(0.5, 2, 0), (1.0, 3, 1), (4.0, 1, 0)]
    assert found["detectable"][5] == pytest.approx(minimum_detectable_effect(5, 2**0.5))


def test_a_ladder_that_cannot_tell_says_so() -> None:
    assert noise_facts(pd.DataFrame(rung(100, 1.0, None)), 100, 1)["noise"] is None
    assert noise_facts(pd.DataFrame(rung(50, 1.0)), 100, 1)["noise"] is None
    assert noise_facts(pd.DataFrame([*rung(50, None), *rung(100, 1.0, 2.0)]), 100, 1)["noise"].per_doubling is None


def copied(task: TaskInfo, folder: Path) -> TaskInfo:
    return replace(task, path=shutil.copy(task.path, folder))


def changed_lines(before: str, after: str) -> list[str]:
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line[2:] for line in lines if line[0] in "+-"]


@pytest.mark.parametrize("name", [task.name for task in suite.tasks()])
def test_writing_noise_into_a_task_touches_nothing_else(name: str, tmp_path: Path) -> None:
    task = copied(suite.registry().task(name), tmp_path)
    path = Path(task.path)
    before, code = path.read_text(), source_hash(path)
    tier = next(iter(task.tiers))
    assert write_noise(task, tier, MEASURED)
    after = path.read_text()
    assert source_hash(path) == code
    found = {t.name: t for t in scan(path)}
    assert found[name].noise == {**task.noise, tier: MEASURED}
    for other in scan(Path(suite.registry().task(name).path)):
        if other.name != name:
            assert found[other.name].noise == other.noise
    assert all(re.search(r'noise=|Noise\(|"sd": |^ *\}?\)?,?$', line) for line in changed_lines(before, after))
    assert max(map(len, after.splitlines())) <= 120
    written = next(k.value for n in ast.walk(ast.parse(after)) if isinstance(n, ast.Call) for k in n.keywords
                   if k.arg == "noise" and ast.unparse(k.value) not in ast.unparse(ast.parse(before)))  # fmt: skip
    assert ("Noise" in ast.unparse(written)) == ("Noise" in before)
    assert not write_noise(replace(found[name], path=str(path)), tier, MEASURED)  # it stands there already


def test_noise_may_be_a_plain_dict_of_what_noise_has(tmp_path: Path) -> None:
    text = Path(suite.registry().task("digits-cnn").path).read_text()
    stated = re.search(r"noise=\{.*\},\n", text)
    assert stated
    for literal, wanted in (('{"sd": 0.5, "n": 3}', Noise(0.5, n=3)), ('{"mood": 1}', None)):
        (tmp_path / "t.py").write_text(text.replace(stated[0], f'noise={{"quick": {literal}}},\n'))
        if wanted is None:
            with pytest.raises(RegistryError, match=r"t\.py:\d+: noise: .*mood"):
                scan(tmp_path / "t.py")
        else:
            (task,) = scan(tmp_path / "t.py")
            assert task.noise == {"quick": wanted}


def test_the_command_measures_several_tasks_and_writes_what_it_found(
    levelfield: Levelfield, toy: Path, toy_file: Path, entry: Callable[..., Path]
) -> None:
    file = entry(toy_file.read_text().replace('"toy', '"doll'), "dolls.py")
    arguments = ("reference", "doll,doll-long", "--tier", "smoke", "--seeds", "2", "--out", toy / "out")
    code, out, _ = levelfield(*arguments, "--json")
    first = json.loads(out)
    assert (code, [f["task"] for f in first]) == (0, ["doll", "doll-long"])
    assert [r["share"] for r in first[1]["ladder"]] == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert {r["n"] for r in first[1]["ladder"]} == {2}
    assert first[1]["noise"]["sd"] > 0
    assert [f["written"] for f in first] == [False, False]
    code, out, _ = levelfield(*arguments, "--write")
    assert out.count(f"written to {file}") == 2
    assert re.search(r"a doubling of the budget is worth -?[\d.e-]+ squared units", out)
    found = {t.name: t for t in scan(file)}
    assert found["doll-long"].noise == {"smoke": Noise(**first[1]["noise"])}
    assert found["doll-slow"].noise == {}


def test_a_tasks_noise_is_shown(levelfield: Levelfield) -> None:
    assert (
        "quick: sd 0.003 over 5 seeds; a doubling of the budget is worth 0.0085\n"
        in levelfield("show", "digits-cnn")[1]
    )
    assert Noise(0.003).detectable(5) == pytest.approx(minimum_detectable_effect(5, 2**0.5 * 0.003))


def test_tasks_are_named_or_all_are_taken(levelfield: Levelfield, tmp_path: Path) -> None:
    for arguments in ((), ("digits-cnn", "--all")):
        code, _, err = levelfield("reference", *arguments, "--out", tmp_path)
        assert (code, err) == (2, "levelfield: name the tasks, comma-separated, or take --all\n")
    assert "has no tier 'huge'" in levelfield("reference", "digits-cnn", "--tier", "huge", "--out", tmp_path)[2]


def test_every_quick_task_states_its_noise_and_the_difference_that_never_counts() -> None:
    for task in suite.tasks():
        if "quick" in task.tiers:
            found = task.noise["quick"]
            assert found.sd >= 0 and found.n >= 5, task.name
            assert 0 < found.floor < 0.1, task.name
