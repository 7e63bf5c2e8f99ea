"""The command line: one message for what is wrong, exit codes that tell, JSON wherever there is a table."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import suite
from suite.cli.run import parse_seeds, parse_settings, split
from suite.cli.scaffold import TEMPLATES
from suite.registry import RegistryError, scan
from suite.runner.pool import Progress
from suite.runner.spec import RunSpec
from suite.store.files import read, write_bytes
from suite.trust.static import check_method

Levelfield = Callable[..., tuple[int, str, str]]

# ---------------------------------------------------------------- listing


def test_tasks_and_methods_are_listed_as_tables_and_as_json(levelfield: Levelfield) -> None:
    code, out, _ = levelfield("tasks")
    assert code == 0
    assert re.search(r"^digits-cnn +vision +ce \(nats, min\)", out, re.M)
    code, out, _ = levelfield("tasks", "--family", "pde", "--json")
    listed = json.loads(out)
    assert {t["family"] for t in listed} == {"pde"}
    assert all({"name", "version", "metric", "slots", "recipe", "tiers", "source"} <= set(t) for t in listed)
    code, out, _ = levelfield("methods", "--slot", "activation")
    assert re.search(r"^golu +activation", out, re.M)
    assert "adamw" not in out
    code, out, _ = levelfield("methods", "--task", "digits-cnn", "--json")
    slots = {m["slot"] for m in json.loads(out)}
    assert "optimizer" in slots
    assert "objective" not in slots


def test_one_thing_is_shown_with_what_is_known_of_it(levelfield: Levelfield) -> None:
    for name, words in {
        "golu": ["2502.03654", "activation", "digits-cnn", "golu.py:"],
        "digits-cnn": ["ce, nats, min", "smoke: 30 steps", "optimizer: nesterov", "digits_cnn.py:"],
        "activation": ["factory(**hp) -> nn.Module", "golu"],
    }.items():
        code, out, _ = levelfield("show", name)
        assert code == 0
        assert [word for word in words if word not in out] == []
        code, out, _ = levelfield("show", name, "--json")
        assert json.loads(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("show digit-cnn", "no method, task or slot named 'digit-cnn'; did you mean digits-cnn"),
        ("show golo", "no method, task or slot named 'golo'; did you mean .*golu"),
        ("methods --slot activations", "no slot named 'activations'"),
        ("methods --task digits", "no task named 'digits'; did you mean digits-cnn"),
        ("run --methods golo --tasks digits-cnn", "no method named 'golo'; did you mean"),
        ("run --methods golu --tasks digits", "no task named 'digits'"),
        ("run --methods grpo --tasks digits-cnn", "nothing to run"),
        ("run --methods golu --tasks digits-cnn --tier huge", "nothing to run"),
        ("run --seeds none --methods golu --tasks digits-cnn", "--seeds takes a count"),
        ("run --set lr --methods golu --tasks digits-cnn", "--set takes name=value"),
        ("results query no-such-folder", "no such results folder"),
        ("results compact no-such-folder --into out", "no such results folder"),
        ("--entry none.py methods", "none.py: no such file"),
        ("methods --entry=none.py", "none.py: no such file"),
        ("methods --entry", "no such file"),
        ("new nonsense my-method", "no slot named 'nonsense'"),
        ("new activation golu", "'golu' is taken"),
        ("new activation My_Act", "a name is lower-case letters"),
        ("new activation --folder nowhere my-act", "nowhere"),
        ("check golo", "no method named 'golo'"),
        ("check none.py", "none.py is not there"),
        ("run-one none.json", "none.json"),
        ("data check cifar", "no data set named 'cifar'; there are: cifar10, "),
        ("data get cifar", "no data set named 'cifar'; there are: cifar10, "),
        ("run --methods golu --tasks digits-cnn --budget hours", "--budget takes steps or seconds, got 'hours'"),
        ("frobnicate", "No such command"),
        ("run --tier", "requires an argument"),
    ],
)
def test_what_is_wrong_is_one_message_with_exit_code_2(
    arguments: str, message: str, levelfield: Levelfield, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = levelfield(*arguments.split())
    assert code == 2
    assert re.search(message, err), err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_named_under_every_listing_and_hides_nothing(levelfield: Levelfield, tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    good = "from suite import activation\n@activation('sound')\nclass A: pass\n"
    file.write_text(good)
    code, out, err = levelfield("--entry", file, "methods", "--slot", "activation")
    assert (code, err) == (0, "")
    assert "sound" in out
    (tmp_path / "broken.py").write_text(good.replace("'sound'", "'So Und'"))
    code, _, err = levelfield("--entry", tmp_path / "broken.py", "methods")
    assert code == 2
    assert f"{tmp_path}/broken.py:2: a name is lower-case letters" in err


def test_entry_files_may_stand_anywhere_on_the_line(levelfield: Levelfield, toy_file: Path) -> None:
    for line in (["--entry", toy_file, "tasks"], ["tasks", "--entry", toy_file], [f"--entry={toy_file}", "tasks"]):
        code, out, _ = levelfield(*line)
        assert code == 0
        assert "toy-slow" in out


# ---------------------------------------------------------------- words


def test_seeds_are_a_count_or_a_list() -> None:
    assert parse_seeds("3") == [0, 1, 2]
    assert parse_seeds("0,4,7") == [0, 4, 7]
    assert parse_seeds("5,") == [5]
    for wrong in ("", "0", "-1", "1,-2", "a", "1.5", ","):
        with pytest.raises(ValueError, match="--seeds takes a count"):
            parse_seeds(wrong)


def test_settings_are_literals_or_words() -> None:
    found = parse_settings(["lr=1e-3", "k=3", "nesterov=True", "betas=(0.9, 0.99)", "mode=fast", "note=a=b"])
    assert found == {"lr": 1e-3, "k": 3, "nesterov": True, "betas": (0.9, 0.99), "mode": "fast", "note": "a=b"}
    for wrong in ("lr", "=3", ""):
        with pytest.raises(ValueError, match="--set takes name=value"):
            parse_settings([wrong])


def test_lists_are_separated_by_commas() -> None:
    assert split(" a, b ,,c ") == ["a", "b", "c"]


# ---------------------------------------------------------------- running


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan") / "out"


def command(plan: Path, *more: str) -> list[str]:
    return ["run", "--tasks", "toy", "--tier", "smoke", "--out", str(plan), *more]


def test_only_what_was_named_is_said_to_have_no_place(
    levelfield: Levelfield, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("suite.cli.run.launch", lambda specs, *_, **__: (Progress(), specs))
    command = ["run", "--tier", "smoke", "--out", tmp_path]
    assert "fits none" not in levelfield(*command, "--tasks", "digits-cnn")[2]
    err = levelfield(*command, "--tasks", "digits-cnn,novels-gpt", "--methods", "relu,grpo", "--tier", "quick")[2]
    assert err.splitlines()[:2] == [
        "levelfield: novels-gpt has no tier 'quick' (it has smoke, standard)",
        "levelfield: grpo (objective) fits none of the chosen tasks",
    ]


@pytest.mark.usefixtures("toy")
def test_a_plan_runs_resumes_and_retries_with_honest_exit_codes(levelfield: Levelfield, plan: Path) -> None:
    methods = ["--methods", "toy-more,toy-raises", "--seeds", "0,3"]
    code, out, err = levelfield(*command(plan, *methods, "--cost", "0.05"))
    assert code == 1, err
    assert "6 of 6 runs done, 2 failed" in out
    assert re.search(r"2 .*toy-raises.*error: ValueError: no line today", out)
    rows = {(r["method"], r["seed"]): r for r in read(plan).table.to_pylist()}
    assert set(rows) == {(m, s) for m in ("reference", "toy-more", "toy-raises") for s in (0, 3)}
    assert rows["reference", 0]["cost_ratio"] == 1.0
    assert rows["toy-more", 0]["cost_low"] <= rows["toy-more", 0]["cost_ratio"] <= rows["toy-more", 0]["cost_high"]
    assert rows["toy-more", 0]["elementwise"] > rows["reference", 0]["elementwise"] > 0
    assert rows["toy-more", 0]["flops"] == 3 * rows["toy-more", 3]["flops"] / 3 > 0

    code, out, _ = levelfield(*command(plan, *methods, "--json"))
    summary = json.loads(out)
    assert (summary["planned"], summary["cached"], summary["done"], summary["stopped"]) == (6, 6, 0, False)

    before = {p.name: p.stat().st_mtime_ns for p in (plan / "runs").iterdir()}
    code, out, _ = levelfield(*command(plan, *methods, "--cost", "0", "--retry", "--json"))
    assert (code, json.loads(out)["cached"], json.loads(out)["failed"]) == (1, 4, 2)
    after = {p.name: p.stat().st_mtime_ns for p in (plan / "runs").iterdir()}
    assert sum(before[name] != after[name] for name in before) == 2

    cut = plan / "runs" / next(name for name in sorted(before) if before[name] == after[name])
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    _, out, err = levelfield(*command(plan, *methods, "--cost", "0", "--retry", "--json"))
    assert json.loads(out)["done"] == 3
    assert f"{cut} is damaged: kept as {cut.stem}.damaged, and made again" in err
    assert cut.with_suffix(".damaged").read_bytes() == whole[: len(whole) // 2]
    assert not read(plan).problems
    assert {r["run_id"] for r in read(plan).table.to_pylist()} == {name.partition(".")[0] for name in before}


@pytest.mark.usefixtures("toy")
def test_a_plan_goes_on_from_compacted_results(levelfield: Levelfield, tmp_path: Path) -> None:
    """The folder that a board is made of takes what is missing, and nothing in it is trained again."""
    first, store = tmp_path / "first", tmp_path / "store"
    more = ["--methods", "toy-plain,toy-raises", "--cost", "0"]
    assert levelfield(*command(first, *more, "--seeds", "1"))[0] == 1
    assert levelfield("results", "compact", first, "--into", store)[0] == 0
    assert not (store / "runs").exists()
    begun = len((tmp_path / "log").read_text().splitlines())

    code, out, _ = levelfield(*command(store, *more, "--seeds", "2", "--json"))
    summary = json.loads(out)
    assert (code, summary["planned"], summary["cached"], summary["done"]) == (1, 6, 3, 3)
    assert len((tmp_path / "log").read_text().splitlines()) == begun + 3
    assert read(store).table.num_rows == 6

    assert levelfield("results", "compact", store, "--into", store)[0] == 0
    shutil.rmtree(store / "runs")
    code, out, _ = levelfield(*command(store, *more, "--seeds", "2", "--retry", "--json"))
    assert (code, json.loads(out)["cached"], json.loads(out)["failed"]) == (1, 4, 2)  # only the failures

    options = ["--tasks", "toy", "--tier", "smoke", "--seeds", "2", "--cost", "0", "--out", store, "--json"]
    code, out, _ = levelfield("compare", "reference", "toy-plain", *options)
    (row,) = [r for r in json.loads(out)["rows"] if r["method"] == "toy-plain"]
    assert (code, row["n"], row["pairs"]) == (0, 2, 2)
    write_bytes(tmp_path / "spec.json", RunSpec("toy", "toy-plain", "smoke", 1).to_json().encode())
    code, out, _ = levelfield("run-one", tmp_path / "spec.json", "--out", store)
    assert (code, out.split()[0]) == (0, "ok")
    assert out.split()[1].startswith(str(store / "smoke" / "toy" / "toy-plain@"))


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_single_runs_of_specifications_have_their_limits_and_are_made_once(
    levelfield: Levelfield, tmp_path: Path
) -> None:
    """As a scheduler starts them: several at once, again after a loss, each attempt counted."""
    files = []
    for method in ("toy-plain", "toy-killed", "toy-sleeps"):
        spec = RunSpec("toy-brief" if method == "toy-sleeps" else "toy", method, "smoke", 2)
        files.append(tmp_path / f"{method}.json")
        write_bytes(files[-1], spec.to_json().encode())
    out = tmp_path / "out"
    code, said, _ = levelfield("run-one", *files[:2], "--out", out, "--attempt", "3")
    assert (code, [line.split()[0] for line in said.splitlines()]) == (1, ["ok", "error"])
    assert len((tmp_path / "log").read_text().splitlines()) == 2  # the third attempt at the killed one was its last
    code, said, _ = levelfield("run-one", *files, "--out", out, "--limit", "1")
    assert (code, [line.split()[0] for line in said.splitlines()]) == (1, ["ok", "error", "timeout"])
    rows = {r["method"]: r for r in read(out).table.to_pylist()}
    assert [rows[m]["attempts"] for m in ("toy-plain", "toy-killed", "toy-sleeps")] == [3, 3, 1]
    assert "passed its wall-clock limit of 1 s" in rows["toy-sleeps"]["message"]
    assert len((tmp_path / "log").read_text().splitlines()) == 3


@pytest.mark.usefixtures("toy")
def test_one_run_of_a_specification_says_how_it_ended(levelfield: Levelfield, tmp_path: Path) -> None:
    for method, code, status in (("toy-plain", 0, "ok"), ("toy-raises", 1, "error"), ("toy-missing", 3, "skipped")):
        spec = RunSpec("toy", method, "smoke", 2)
        write_bytes(tmp_path / "spec.json", spec.to_json().encode())
        found, out, _ = levelfield("run-one", tmp_path / "spec.json", "--out", tmp_path / "out")
        assert (found, out.split()[0]) == (code, status)
        (row,) = [r for r in read(tmp_path / "out").table.to_pylist() if r["method"] == method]
        assert (row["run_id"], row["status"]) == (spec.run_id, status)
    write_bytes(tmp_path / "spec.json", b'{"task": "toy"}')
    assert levelfield("run-one", tmp_path / "spec.json", "--out", tmp_path / "out")[0] == 2


# ---------------------------------------------------------------- results


@pytest.fixture
def results(levelfield: Levelfield, tmp_path: Path) -> Path:
    """A folder of three runs and a damaged file."""
    for i, changes in enumerate(({}, {"seed": 1}, {"method": "relu", "tier": "smoke"})):
        spec = RunSpec(**{"task": "digits-cnn", "method": "gelu", "tier": "quick", **changes})  # type: ignore[arg-type]
        write_row(tmp_path / "in" / "runs" / f"{i}.parquet", spec)
    write_bytes(tmp_path / "in" / "runs" / "damaged.parquet", b"not a table")
    return tmp_path / "in"


def write_row(path: Path, spec: RunSpec) -> None:
    from suite.runner.execute import failed_row
    from suite.store.files import write_rows

    write_rows(path, [failed_row(spec, "timeout", "passed its wall-clock limit of 2 s")])


def test_results_are_queried_as_a_table_and_as_json(results: Path, levelfield: Levelfield) -> None:
    code, out, _ = levelfield("results", "query", results, "--columns", "method,seed,status")
    assert code == 0
    assert re.findall(r"^(\w+) +(\d) +timeout", out, re.M) == [("gelu", "0"), ("gelu", "1"), ("relu", "0")]
    code, out, _ = levelfield("results", "query", results, "--where", "method == 'gelu' and seed > 0", "--json")
    (row,) = json.loads(out)
    assert (row["task"], row["seed"], row["status"]) == ("digits-cnn", 1, "timeout")
    assert len(json.loads(levelfield("results", "query", results, "--limit", "2", "--json")[1])) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "seed ="], "--where 'seed ='"),
        (["--where", "nothing > 3"], "--where 'nothing > 3'"),
        (["--columns", "mood"], "no column mood; columns: run_id"),
    ],
)
def test_a_query_that_cannot_be_made_is_refused(
    options: list[str], message: str, results: Path, levelfield: Levelfield
) -> None:
    code, _, err = levelfield("results", "query", results, *options)
    assert code == 2
    assert message in err


def test_damage_is_named_and_the_rest_is_kept(results: Path, levelfield: Levelfield, tmp_path: Path) -> None:
    code, out, _ = levelfield("results", "validate", results)
    assert code == 1
    assert "3 files, 3 runs, 1 set aside" in out
    assert "damaged.parquet: damaged or not Parquet" in out
    assert len(json.loads(levelfield("results", "validate", results, "--json")[1])["problems"]) == 1
    for action in (["compact", results], ["merge", results]):
        target = tmp_path / action[0]
        code, out, err = levelfield("results", *action, "--into", target)
        assert code == 1
        assert "damaged.parquet" in err
        assert sorted(p.name.partition("@")[0] for p in target.rglob("*.parquet")) == ["gelu", "relu"]
        code, out, _ = levelfield("results", "validate", target)
        assert code == 0
        assert "2 files, 3 runs, 0 set aside" in out


def test_merging_folders_unites_them(results: Path, levelfield: Levelfield, tmp_path: Path) -> None:
    (results / "runs" / "damaged.parquet").unlink()
    write_row(tmp_path / "other" / "runs" / "x.parquet", RunSpec("digits-cnn", "gelu", "quick", 2))
    code, out, _ = levelfield("results", "merge", results, tmp_path / "other", results, "--into", tmp_path / "all")
    assert (code, out.split()[0]) == (0, "4")


# ---------------------------------------------------------------- a method is one small file

SNIPPET = '''
import torch
from torch import Tensor, nn

from suite import Paper, activation


@activation("my-golu", paper=Paper("Gompertz Linear Units", arxiv="2502.03654"))
class MyGoLU(nn.Module):
    """x * exp(-exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(min=-10)
        return x * torch.exp(-torch.exp(-x))
'''


def contributed() -> str:
    """The first Python example of CONTRIBUTING.md, or what will stand there."""
    guide = Path(suite.__file__).parent.parent / "CONTRIBUTING.md"
    found = re.search(r"```python\n(.*?)```", guide.read_text(), re.S) if guide.exists() else None
    assert found or not guide.exists()
    return found[1] if found else SNIPPET


def test_a_method_is_one_file_of_fifteen_lines(entry: Callable[..., Path]) -> None:
    from suite.cli.check import smoke_tasks
    from suite.contract import contracts

    text = contributed()
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 15
    file = entry(text)
    (found,) = scan(file)
    method = suite.method(found.name)
    for contract in contracts(method):
        contract(method)
    fitting = [task for task in suite.tasks() if method.fits(task)]
    assert fitting
    assert smoke_tasks(method)
    task = "digits-cnn" if any(t.name == "digits-cnn" for t in fitting) else smoke_tasks(method)[0].name
    result = suite.run(task, method.name, tier="smoke")
    assert result.status == "ok", result.message


@pytest.mark.parametrize(
    ("slot", "name"),
    [
        pytest.param(slot, name, marks=[pytest.mark.slow] if name != "my-first" and slot != "activation" else [])
        for slot, name in itertools.product(TEMPLATES, ("my-first", "3d-thing", "lambda"))
    ],
)
def test_a_new_file_is_a_method_that_works_already(
    slot: str, name: str, levelfield: Levelfield, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suite.cli.check import smoke_tasks
    from suite.contract import contracts

    code, out, _ = levelfield("new", slot, name, "--folder", tmp_path)
    (file,) = tmp_path.iterdir()
    assert (code, out) == (0, f"{file}: fill in the formula and the paper, then: levelfield check {file}\n")
    (found,) = scan(file)
    assert (found.name, found.slot) == (name, slot)  # type: ignore[attr-defined]
    monkeypatch.setenv("LEVELFIELD_ENTRY", str(file))
    method = suite.method(name)
    for contract in contracts(method):
        contract(method)
    assert check_method(method) == []
    if name == "my-first":
        result = suite.run(smoke_tasks(method)[0].name, name, tier="smoke")
        assert result.status == "ok", result.message
    again, _, err = levelfield("new", slot, name, "--folder", tmp_path)
    assert again == 2
    assert "is taken" in err or "is there already" in err


def test_a_file_that_is_there_is_not_written_over(levelfield: Levelfield, tmp_path: Path) -> None:
    (tmp_path / "my_act.py").write_text("mine")
    code, _, err = levelfield("new", "activation", "my-act", "--folder", tmp_path)
    assert code == 2
    assert "is there already" in err
    assert (tmp_path / "my_act.py").read_text() == "mine"


def test_every_slot_has_a_template(levelfield: Levelfield, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(TEMPLATES) == set(suite.SLOTS)
    monkeypatch.delitem(TEMPLATES, "norm")
    code, _, err = levelfield("new", "norm", "my-thing", "--folder", tmp_path)
    assert (code, "no template for slot 'norm' yet; signature: factory(features, **hp)" in err) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("slot", TEMPLATES)
def test_a_new_file_passes_the_check_as_it_is(slot: str, levelfield: Levelfield, tmp_path: Path) -> None:
    levelfield("new", slot, "my-first", "--folder", tmp_path)
    code, out, err = levelfield("check", tmp_path / "my_first.py")
    assert code == 0, out + err


def test_errors_of_the_registry_are_of_one_kind() -> None:
    from suite.registry import UnknownName

    error: Any = UnknownName("x")
    assert isinstance(error, RegistryError)
    assert isinstance(error, LookupError)
