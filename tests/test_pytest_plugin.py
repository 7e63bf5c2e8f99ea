"""The pytest plugin: a method of one's own, gated from one's own tests."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import suite

pytest_plugins = ["pytester"]

INSTALLED = "suite.pytest_plugin" in {point.value for point in entry_points(group="pytest11")}
METHODS = """
import torch
from torch import nn
from suite import activation

@activation("same")
class Same(nn.Module):
    "x."
    def forward(self, x):
        return x

@activation("broken")
class Broken(nn.Module):
    "x, once it works."
    def forward(self, x):
        raise RuntimeError("not today")
"""


@pytest.fixture
def project(pytester: pytest.Pytester, toy_file: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A user's repository: a file of methods beside tests, and the toy tasks."""
    monkeypatch.setenv("LEVELFIELD_ENTRY", str(toy_file))
    pytester.makepyfile(
        mine=METHODS, broken=METHODS.replace('"broken"', '"broken-too"').replace('"same"', '"same-too"')
    )
    return pytester


def run(project: pytest.Pytester, *words: str) -> pytest.RunResult:
    loaded = () if INSTALLED else ("-p", "suite.pytest_plugin")
    return project.runpytest_subprocess(*loaded, "-p", "no:cacheprovider", "--strict-markers", *words)


def test_a_method_no_worse_than_the_reference_passes_and_one_that_raises_fails(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_mine="""
        import os
        import pytest

        @pytest.mark.levelfield(task="toy", seeds=2)
        def test_all(levelfield_gate):
            with pytest.raises(pytest.fail.Exception, match="broken | failures | FAIL") as shown:
                levelfield_gate("mine.py")
            assert "RuntimeError: not today" in str(shown.value)
            assert "2 curves bit-identical" in str(shown.value)

        @pytest.mark.levelfield(task="toy", seeds=2)
        def test_one(levelfield_gate):
            report = levelfield_gate("toy-plain")
            assert report.verdict == "PASS"
            assert {v.method for v in report.verdicts} == {"toy-plain"}

        def test_no_task(levelfield_gate):
            with pytest.raises(ValueError, match="no task to run"):
                levelfield_gate("toy-plain")

        @pytest.mark.levelfield(tsk="toy")
        def test_wrong_setting(levelfield_gate):
            pass
        """
    )
    result = run(project, "-rP")
    result.assert_outcomes(passed=3, errors=1)
    text = result.stdout.str()
    assert "levelfield takes task, tier, seeds, against, cost, strict by name" in text
    assert "levelfield gate of toy-plain" in text


@pytest.mark.slow
def test_a_method_that_is_not_what_was_stored_fails(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_mine="""
        import pathlib
        import subprocess
        import sys
        import pytest

        HERE = pathlib.Path(__file__).parent

        @pytest.mark.levelfield(task="toy", seeds=2, against="stored")
        def test_it(levelfield_gate):
            line = [sys.executable, "-m", "suite.cli.main", "--entry", "mine.py", "run", "--methods", "same"]
            more = ["--tasks", "toy", "--tier", "smoke", "--seeds", "2", "--cost", "0", "--out", "stored", "--json"]
            subprocess.run([*line, *more], cwd=HERE, check=True)
            file = HERE / "mine.py"
            file.write_text(file.read_text().replace("return x", "return 1.5 * x"))
            levelfield_gate("mine.py")
        """
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    assert "definition" in result.stdout.str()
    assert "was -6 and is -9" in result.stdout.str()


def test_the_plugin_imports_nothing_heavy_until_it_is_used(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import sys
        import pytest

        @pytest.mark.levelfield(task="toy")
        def test_it(levelfield_gate):
            assert not {"torch", "pandas", "scipy"} & set(sys.modules)
        """
    )
    run(project).assert_outcomes(passed=1)


@pytest.mark.slow
def test_the_documented_example_works(pytester: pytest.Pytester) -> None:
    """Every Python block of the documentation's section, written to the file it names."""
    text = (Path(suite.__file__).parent.parent / "CONTRIBUTING.md").read_text()
    section = text.split("## Gate a method of your own")[1].split("\n## ")[0]
    files = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", section, re.S))
    assert set(files) == {"my_act", "test_my_act"}
    pytester.makepyfile(**files)
    run(pytester).assert_outcomes(passed=2)
