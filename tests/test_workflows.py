"""The shipped workflows and the path guard: what they may do, and that the commands in them exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

import suite
from suite.cli.main import app

ROOT = Path(suite.__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def load(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text())
    found["on"] = found.pop(True, None)  # YAML 1.1 reads `on` as a boolean
    return found


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def test_there_is_a_workflow_for_changes_for_submissions_and_for_nights() -> None:
    triggers = {path.stem: set(load(path)["on"]) for path in WORKFLOWS}
    assert triggers == {
        "gate": {"pull_request", "push"},
        "submission": {"pull_request"},
        "nightly": {"schedule", "workflow_dispatch"},
    }


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_has_a_read_only_token_and_no_secrets(path: Path) -> None:
    workflow, text = load(path), path.read_text()
    scopes = [
        workflow["permissions"],
        *(job["permissions"] for job in workflow["jobs"].values() if "permissions" in job),
    ]
    assert {level for scope in scopes for level in scope.values()} == {"read"}
    assert not re.search(r"secrets\s*[.\[]\s*['\"\w]", text)
    assert "pull_request_target" not in text
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"] <= 120
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step)
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_what_an_author_writes_never_becomes_part_of_a_command(path: Path) -> None:
    """Expressions stand in `env` and `with`, never in a script."""
    for step in steps(load(path)):
        assert "${{" not in step.get("run", "")


def commands(path: Path) -> Iterator[list[str]]:
    """Words after `levelfield` of every such command in a file."""
    text = path.read_text().replace("\\\n", " ")
    for line in re.findall(r"(?:levelfield|-m suite\.cli\.main) ([^|\n`<#;]+)", text):
        words = shlex.split(line)
        if words and words[0] in click_app().commands:  # type: ignore[attr-defined]
            yield words


def click_app() -> click.Command:
    return typer.main.get_command(app)


def test_every_command_in_workflows_and_documentation_exists_with_its_options() -> None:
    found = [(path.name, words) for path in [*WORKFLOWS, ROOT / "CONTRIBUTING.md"] for words in commands(path)]
    assert {name for name, _ in found} >= {"gate.yml", "submission.yml", "nightly.yml", "CONTRIBUTING.md"}
    for name, words in found:
        command: Any = click_app()
        rest = list(words)
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        options = {o for parameter in command.params for o in parameter.opts} | {"--entry", "--help"}
        asked = [word.partition("=")[0] for word in rest if word.startswith("--")]
        assert not set(asked) - options, (name, words)


def test_only_the_trend_may_fail_without_turning_red() -> None:
    jobs = [(path.stem, name, job) for path in WORKFLOWS for name, job in load(path)["jobs"].items()]
    assert [(of, name) for of, name, job in jobs if job.get("continue-on-error")] == [("nightly", "trend")]
    assert [(of, name) for of, name, job in jobs if {"run": "make test-all"} in job["steps"]] == [("nightly", "tests")]
    (judged,) = [
        s["run"] for s in steps(load(ROOT / ".github/workflows/gate.yml")) if "gate --base" in s.get("run", "")
    ]
    for code, red in ((0, False), (4, False), (1, True), (2, True), (130, True)):
        script = re.sub(r"PYTHONPATH.*?\|\| code=\$\?", f"(exit {code}) || code=$?", judged, flags=re.S)
        assert "(exit" in script
        assert (subprocess.run(["bash", "-e", "-c", script]).returncode != 0) == red


# ---------------------------------------------------------------- the path guard


@pytest.fixture
def guard(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """The guard's verdict on a commit that writes, changes and deletes files."""
    before = ["baselines/activation/relu.py", "suite/recipe.py", "tests/baselines/test_activations.py", ".ci/guard"]

    def git(*words: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    def commit(name: str) -> None:
        git("add", "-A")
        git("commit", "--quiet", "--allow-empty", "-m", name)
        git("tag", name)

    def write(name: str, text: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(*written: str, deleted: str = "", link: str = "", executable: str = "") -> tuple[int, str, str]:
        git("init", "--quiet")
        for name in before:
            write(name, "was\n")
        commit("base")
        for name in (*written, *([executable] if executable else [])):
            write(name, "new\n")
        if executable:
            (tmp_path / executable).chmod(0o755)
        if deleted:
            (tmp_path / deleted).unlink()
        if link:
            (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
            os.symlink("/etc/passwd", tmp_path / link)
        commit("head")
        words = [sys.executable, str(ROOT / ".ci" / "guard"), "base", "head"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


Guard = Callable[..., tuple[int, str, str]]
MINE = "baselines/activation/mine.py"


def test_a_submission_is_what_adds_methods_and_their_tests(guard: Guard) -> None:
    code, out, _ = guard(MINE, "baselines/pde_method/other_one.py", "tests/baselines/test_activations.py")
    assert (code, out) == (0, f"{MINE}\nbaselines/pde_method/other_one.py\n")


def test_a_change_that_adds_no_method_is_no_submission(guard: Guard) -> None:
    code, out, err = guard("suite/recipe.py", "baselines/activation/relu.py")
    assert (code, out) == (0, "")
    assert "no submission" in err


@pytest.mark.parametrize(
    "other",
    [
        "suite/recipe.py",
        ".ci/guard",
        ".github/workflows/gate.yml",
        "tasks/tasks.lock",
        "results/quick/t/m.parquet",
        "pyproject.toml",
        "conftest.py",
        "baselines/activation/relu.py",  # somebody else's method
        "baselines/activation/mine/hidden.py",
        "baselines/helper.py",
        "tests/conftest.py",
    ],
)
def test_a_submission_that_touches_anything_else_is_refused(guard: Guard, other: str) -> None:
    code, out, err = guard(MINE, other)
    assert (code, out) == (1, "")
    assert f"::error title=path guard::{other!r}" in err


def test_deleting_a_method_beside_adding_one_is_refused(guard: Guard) -> None:
    assert guard(MINE, deleted="baselines/activation/relu.py")[0] == 1


@pytest.mark.parametrize("kind", ["link", "executable"])
def test_a_method_is_a_plain_file(guard: Guard, kind: str) -> None:
    code, out, err = guard(**{kind: MINE})
    assert (code, out) == (1, "")
    assert "plain file" in err


def test_the_guard_takes_two_revisions() -> None:
    for words in ([], ["a"], ["--output=x", "b"]):
        done = subprocess.run([sys.executable, str(ROOT / ".ci" / "guard"), *words], capture_output=True, text=True)
        assert done.returncode != 0
        assert "usage" in done.stderr
