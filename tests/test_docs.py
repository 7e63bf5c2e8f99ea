"""The documentation's commands parse, name what exists, and its Python runs."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer

import suite
from suite.cli.main import app
from suite.registry import RegistryError, registry
from suite.slots import SLOTS

ROOT = Path(suite.__file__).parent.parent
GUIDES = [p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md") if p.exists()]
OWN = re.compile(r"my-|tilted|NAME|SLOT|FILE|REV|BUNDLE|TASK")  # what a reader puts in


def blocks(language: str) -> list[str]:
    return [b for p in GUIDES for b in re.findall(rf"```{language}\n(.*?)```", p.read_text(), re.S)]


def commands() -> list[str]:
    """Every `levelfield` command of a shell block or of a code span that has arguments, comments left out."""
    lines = [line.split(" #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    spans = [
        s for p in GUIDES for s in re.findall(r"`(levelfield \S+ [^`\n]*(?:--| [A-Z.]|\.\w)[^`\n]*)`", p.read_text())
    ]
    return sorted({line for line in [*lines, *spans] if line.startswith("levelfield ")})


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_guides_parses_and_names_what_exists(command: str) -> None:
    words = shlex.split(command)[1:]
    while "--entry" in words:
        at = words.index("--entry")
        del words[at : at + 2]
    group = typer.main.get_command(app)
    with group.make_context("levelfield", words) as context:  # type: ignore[attr-defined]
        _descend(group, context, list(context._protected_args) + context.args)
    named = {"--tasks": registry().task, "--methods": registry().method, "--slot": SLOTS.__getitem__}
    for option, value in itertools.pairwise(words):
        for name in value.split(",") if option in named else []:
            if not OWN.search(name) and name != "reference":
                named[option](name)  # raises where there is no such name


def _descend(group, context, words: list[str]) -> None:
    name, command, rest = group.resolve_command(context, words)
    with command.make_context(name, rest, parent=context) as inner:
        if hasattr(command, "resolve_command"):
            _descend(command, inner, list(inner._protected_args) + inner.args)


def test_a_wrong_command_would_be_found() -> None:
    for wrong in ("levelfield runn", "levelfield run --taskz a", "levelfield results compactt x"):
        with pytest.raises(Exception, match=r"(?i)no such"):
            test_every_command_of_the_guides_parses_and_names_what_exists(wrong)
    with pytest.raises(RegistryError, match="gollu"):
        test_every_command_of_the_guides_parses_and_names_what_exists("levelfield run --methods gollu")


@pytest.mark.parametrize("block", [b for b in blocks("python") if "suite.run(" in b])
def test_the_python_of_the_guides_runs(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if not any((ROOT / "results").rglob("*.parquet")):
        block = "\n".join(line for line in block.splitlines() if "load_results" not in line)
    names: dict = {}
    exec(block, names)
    assert names["r"].status == "ok" and names["r"].metrics
