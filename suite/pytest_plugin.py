"""A pytest plugin: hold a method of your own from your own tests.

    @pytest.mark.levelfield(task="digits-cnn", tier="smoke", seeds=3)
    def test_my_activation(levelfield_gate):
        levelfield_gate("my_act.py")                     # no worse than the task's reference
        levelfield_gate("my_act.py", against="results")  # still what the stored results say

A FAIL fails the test, its message is the gate's Markdown report; an INCONCLUSIVE does where the
marker says ``strict=True``. Nothing heavy is imported before a test asks for the fixture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from suite.gate.report import Report

MARKER = (
    "levelfield(task, tier='smoke', seeds=3, against=None, cost=0.0, strict=False): "
    "settings of the fixture levelfield_gate, which holds a method against the reference or stored results"
)


@dataclass(frozen=True)
class Settings:
    """What the marker states.

    Attributes
    ----------
    task : a task's name, or several.
    tier : tier of the runs.
    seeds : seeds of the first batch.
    against : results folder, relative to the test's file; None holds a method against the reference.
    cost : seconds to measure a step cost where stored results have one; 0 leaves it out.
    strict : whether INCONCLUSIVE fails the test too.
    """

    task: str | Sequence[str] = ()
    tier: str = "smoke"
    seeds: int = 3
    against: str | Path | None = None
    cost: float = 0.0
    strict: bool = False


@dataclass
class LevelfieldGate:
    """Call it with a method's name or file; it raises what pytest shows, or returns the gate's report.

    Attributes
    ----------
    settings : from the marker.
    folder : runs of this session, shared so that a reference is run once.
    beside : folder that relative paths start from.
    tell : takes a name and a report, for the test's own report.
    """

    settings: Settings
    folder: Path
    beside: Path
    tell: Callable[[str, str], None]

    def __call__(self, method: str | Path, **changed: Any) -> Report:
        """Hold one method, or every method of a file.

        Parameters
        ----------
        method : a registered name, or a Python file that registers methods.
        changed : settings that differ from the marker's.
        """
        from suite.gate.method import against_reference, against_results

        settings = replace(self.settings, **changed)
        tasks = [settings.task] if isinstance(settings.task, str) else list(settings.task)
        if not tasks:
            raise ValueError('no task to run: write @pytest.mark.levelfield(task="digits-cnn") over the test')
        names = self._names(method)
        common = (tasks, names, settings.tier, settings.seeds, self.folder)
        if settings.against is None:
            report = against_reference(*common)
        else:
            report = against_results(self.beside / settings.against, *common, settings.cost)
        self._judge(names, report, settings.strict)
        return report

    def _names(self, method: str | Path) -> list[str]:
        """Names of the methods; those of a file are registered."""
        from suite.registry import Method, add_entry_file, registry, scan

        if not str(method).endswith(".py"):
            registry().method(str(method))
            return [str(method)]
        file = add_entry_file(self.beside / method)
        return [entry.name for entry in scan(file) if isinstance(entry, Method)]

    def _judge(self, names: list[str], report: Report, strict: bool) -> None:
        from suite.gate.quality import FAIL, PASS
        from suite.gate.report import markdown

        text = markdown(report)
        self.tell(", ".join(names), text)
        if report.verdict == FAIL or (strict and report.verdict != PASS):
            pytest.fail(text, pytrace=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


@pytest.fixture(scope="session")
def _levelfield_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("levelfield")


@pytest.fixture
def levelfield_gate(
    request: pytest.FixtureRequest, _levelfield_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> LevelfieldGate:
    """Hold a method against the reference or stored results, as the marker ``levelfield`` says."""
    from suite.registry import ENTRY_VARIABLE

    marker = request.node.get_closest_marker("levelfield")
    stated = dict(marker.kwargs) if marker else {}
    known = [f.name for f in fields(Settings)]
    if marker and (marker.args or set(stated) - set(known)):
        raise pytest.UsageError(f"@pytest.mark.levelfield takes {', '.join(known)} by name")
    monkeypatch.setenv(ENTRY_VARIABLE, os.environ.get(ENTRY_VARIABLE, ""))  # what a test registers goes with it

    def tell(name: str, text: str) -> None:
        request.node.add_report_section("call", f"levelfield gate of {name}", text)  # `-rP` shows those that pass

    return LevelfieldGate(Settings(**stated), _levelfield_folder, request.path.parent, tell)
