"""Hashes of what a result depends on: source without its prose, recipe, environment."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from suite.registry import Method, RegistryError, TaskInfo, decorator_kind, module_name, packages

# Facts that never move a score; changing them must not invalidate a result. A slot that a task newly
# declares is among them: what fills it stands in the run's recipe, and the runs before it lacked it.
_PROSE = {"title", "paper", "noise", "target", "confidence", "system", "superseded_by", "imports", "tiers", "slots"}

_SHOWN = {"samples", "spelled"}  # methods that only show a task's data on its page


def digest(value: Any, length: int = 16) -> str:
    """Hex digest of a JSON-ready value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {type(value).__name__: asdict(value)}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"cannot hash a {type(value).__name__}")


def source_hash(path: str | Path) -> str:
    """Hash of a source file and of every project file it imports, docstrings and comments left out.

    It depends neither on where the files lie nor on the version of Python.
    """
    return _hash_of(frozenset(_closure(str(path)).items()))


def method_hash(method: Method) -> str:
    """Content hash of a method: its file and what that imports from the project."""
    return source_hash(method.path)


def task_hash(task: TaskInfo, tier: str) -> str:
    """Content hash of one tier of a task: code, stated facts and sizes; prose and noise left out.

    The version of the extra package that a task requires is part of it.
    """
    extra = [f"{task.requires} {package_version(task.requires)}"] if task.requires else []
    return digest([source_hash(task.path), task.version, asdict(task.tiers[tier]), *extra], 12)


def sources(path: str | Path) -> list[Path]:
    """A source file and every project file it imports, sorted by path: what `source_hash` hashes."""
    return sorted(map(Path, _closure(str(path))))


def files_hash(paths: Iterable[str | Path]) -> str:
    """The hash `source_hash` gives when exactly these files are the closure, wherever they lie."""
    return _hash_of(frozenset((str(path), os.stat(path).st_mtime_ns) for path in paths))


def _closure(path: str) -> dict[str, int]:
    """A file and every project file it imports, with their modification times."""
    found: dict[str, int] = {}
    todo = [path]
    while todo:
        current = todo.pop()
        if current not in found:
            found[current] = os.stat(current).st_mtime_ns
            todo.extend(_imports(current, found[current])[0])
    return found


@functools.lru_cache(maxsize=4096)
def _hash_of(files: frozenset[tuple[str, int]]) -> str:
    imported = frozenset(name for file, stamp in files for name in _imports(file, stamp)[1])
    return digest(sorted([Path(file).name, _code(file, stamp, imported)] for file, stamp in files), 12)


def _read_tree(path: str) -> ast.Module:
    try:
        return ast.parse(Path(path).read_bytes())
    except SyntaxError as error:
        raise RegistryError(f"{path}:{error.lineno}: {error.msg}; fix the file so that it parses") from None


@functools.lru_cache(maxsize=4096)
def _code(path: str, stamp: int, imported: frozenset[str]) -> str:
    """The file's code as its syntax tree, without docstrings and what never moves a score: prose, samples to show.

    A module-level constant that only such facts name is left out too, unless
    its name is among those that other files have `imported`.
    """
    tree = _read_tree(path)
    prose: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
        if isinstance(node, ast.ClassDef):
            node.body = [part for part in node.body if getattr(part, "name", "") not in _SHOWN]
        if isinstance(node, ast.Call) and decorator_kind(node) is not None:
            prose += [k for k in node.keywords if k.arg in _PROSE]
            node.keywords = [k for k in node.keywords if k.arg not in _PROSE]
    unused = _names(*prose) - _names(tree) - imported
    if "*" not in imported:
        tree.body = [node for node in tree.body if not _assigns(node) & unused]
    return _dump(tree)


def _names(*nodes: ast.AST) -> set[str]:
    """Names that are read below the nodes."""
    found = (n for node in nodes for n in ast.walk(node))
    return {n.id for n in found if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _assigns(node: ast.stmt) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) and len(node.targets) == 1 else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _dump(node: Any) -> str:
    """A syntax tree as text; empty fields are left out, since Python versions differ in which there are."""
    if isinstance(node, ast.AST):
        stated = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return f"{type(node).__name__}({','.join(f'{name}={_dump(value)}' for name, value in stated)})"
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    return ascii(node)


@functools.lru_cache(maxsize=4096)
def _imports(path: str, stamp: int) -> tuple[tuple[str, ...], frozenset[str]]:
    """Project files that a file imports, and the names it imports from any module."""
    package = module_name(Path(path)).split(".")
    package = package if Path(path).name == "__init__.py" else package[:-1]
    files: list[str] = []
    imported: set[str] = set()
    for node in ast.walk(_read_tree(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            imported.update(alias.name for alias in node.names)
        for name in names:
            if name.partition(".")[0] in packages() and (file := _module_file(name)):
                files.append(file)
    return tuple(files), frozenset(imported)


@functools.cache
def _module_file(name: str) -> str | None:
    package, _, rest = name.partition(".")
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        base = Path(root, *rest.split(".")) if rest else Path(root)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return str(file.resolve())
    return None


def engine_hash() -> str:
    """Hash of the engine's own code that a training run passes through."""
    root = Path(__file__).parent
    files = [root / "recipe.py", root / "seeds.py", *sorted((root / "train").glob("*.py"))]
    return digest([[f.name, _code(str(f), f.stat().st_mtime_ns, frozenset())] for f in files], 12)


@functools.cache
def commit() -> tuple[str, bool]:
    """(commit, whether the working tree differs from it) of the project; ("", False) outside git."""
    root = Path(__file__).resolve().parent.parent

    def git(*args: str) -> str:
        command = ["git", "-C", str(root), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", False


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a curve's bits may depend on, besides the code; no names of machines or people."""
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.partition(":")[0],
        "hardware": _cuda_name(device) if device.startswith("cuda") else _cpu_name(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "dtype": "float32",
        "packages": _packages_hash(),
    }


@functools.cache
def _packages_hash() -> str:
    """Hash of the installed packages and their versions."""
    return digest(sorted(f"{d.name}=={d.version}" for d in metadata.distributions()), 12)


def package_version(package: str) -> str:
    """Version of an installed package by its import name, as its metadata say; "" where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _version(package: str) -> str:
    return package_version(package) or str(getattr(sys.modules.get(package), "__version__", ""))


@functools.cache
def _cuda_name(device: str) -> str:
    """The device's name; "" where there is none, as on a machine that only hands out runs."""
    import torch

    try:
        return torch.cuda.get_device_name(device)
    except (AssertionError, RuntimeError):
        return ""


@functools.cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
