"""What imports what: arrows point one way, and nothing that only lists or shows imports torch."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import suite

ROOT = Path(suite.__file__).parent.parent
HEAVY = ("torch", "numpy", "pyarrow", "scipy", "pandas", "sklearn", "datasets", "pytorch_optimizer", "matplotlib")


def loaded(code: str) -> set[str]:
    """Which heavy packages are imported once `code` has run in a fresh process."""
    text = f"import sys, json\n{code}\njson.dump([m for m in {HEAVY!r} if m in sys.modules], sys.stderr)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.strip().splitlines()[-1]))


COMMANDS = (
    "tasks",
    "methods",
    "methods --json",
    "methods --task digits-cnn",
    "show golu",
    "show digits-cnn",
    "--help",
    "run --help",
    "compare --help",
    "claims --help",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_listing_and_showing_import_nothing_heavy(command: str) -> None:
    code = (
        "from suite.cli.main import main\n"
        f"try: main({command.split()!r})\n"
        "except SystemExit as end: assert not end.code, end.code"
    )
    assert loaded(code) == set()


def modules_of(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    return [".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in files]


def test_the_package_itself_imports_nothing_heavy() -> None:
    assert loaded("import suite; suite.methods(); suite.tasks(); suite.method('golu')") == set()


def test_the_leaderboard_and_the_statistics_never_import_torch() -> None:
    names = [
        m
        for m in [*modules_of("leaderboard"), *modules_of("suite/stats"), *modules_of("suite/store")]
        if "__main__" not in m
    ]
    assert len(names) > 5
    assert "torch" not in loaded(f"import importlib\nfor m in {names!r}: importlib.import_module(m)")


# ---------------------------------------------------------------- arrows, read from the syntax trees


@functools.cache
def imports(path: Path) -> list[tuple[int, str]]:
    """(line, module) of every import of a file, those inside functions included."""

    def found() -> Iterator[tuple[int, str]]:
        package = path.relative_to(ROOT).parts[:-1]
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
                module = ".".join(filter(None, (base, node.module)))
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)

    return list(found())


def offences(folder: str, forbidden: tuple[str, ...], allowed: tuple[str, ...] = ()) -> list[str]:
    """Imports below `folder` of what is forbidden there, as file:line module."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    return [
        f"{file.relative_to(ROOT)}:{line} {name}"
        for file in files
        if str(file.relative_to(ROOT)) not in allowed
        for line, name in imports(file)
        if any(name == f or name.startswith(f"{f}.") for f in forbidden)
    ]


RUNNING = ("suite.runner", "suite.cli", "suite.gate", "suite.stats", "suite.trust")
ARROWS = [
    # the engine knows no concrete task or method, and the board only as a command
    ("suite", ("tasks", "baselines"), ()),
    ("suite", ("leaderboard",), ("suite/cli/board.py",)),
    # tasks and methods know the engine, not each other nor how they are run
    ("tasks", ("baselines", "leaderboard", "suite.store", *RUNNING), ()),
    ("baselines", ("tasks", "leaderboard", "suite.store", *RUNNING), ()),
    # the board reads tables and the registry; it runs nothing
    ("leaderboard", ("torch", "tasks", "baselines", "suite.train", "suite.runner", "suite.cli", "suite.gate"), ()),
    # statistics are a pure package: tables in, tables out
    ("suite/stats", ("torch", "suite.train", "suite.runner", "suite.cli", "suite.gate", "suite.registry"), ()),
    ("suite/store", ("torch", "suite.train", "suite.registry", *RUNNING), ()),
    # training knows neither processes nor tables of results
    ("suite/train", ("suite.store", *RUNNING), ("suite/train/checkpoint.py",)),
    ("suite/runner", ("suite.cli", "suite.stats", "suite.gate"), ()),
]


@pytest.mark.parametrize(("folder", "forbidden", "allowed"), ARROWS)
def test_arrows_point_one_way(folder: str, forbidden: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """`allowed` files are excepted: the board's command, and checkpoints, which are written like results."""
    assert offences(folder, forbidden, allowed) == []


def test_optional_packages_are_imported_only_where_they_are_used() -> None:
    """`datasets` and `pytorch_optimizer` are large: no module imports them at its top."""
    found = []
    for folder in ("suite", "tasks", "baselines", "leaderboard"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.parse(file.read_bytes()).body:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                found += [f"{file}: {n}" for n in names if n.partition(".")[0] in ("datasets", "pytorch_optimizer")]
    assert found == []


def test_the_files_that_state_facts_import_only_the_standard_library() -> None:
    for name in ("facts", "space", "slots", "registry", "seeds"):
        outside = {m.partition(".")[0] for _, m in imports(ROOT / "suite" / f"{name}.py")}
        assert outside <= set(sys.stdlib_module_names) | {"suite"}, name
