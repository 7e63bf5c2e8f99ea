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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from suite.registry import _DECORATORS, Method, TaskInfo

PROJECT_PACKAGES = ("tasks", "baselines")
# Facts that never move a score; changing them must not invalidate a result.
_PROSE = {"title", "paper", "noise", "target", "confidence", "system", "superseded_by", "imports", "tiers"}


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
    """Hash of a source file and of every project file it imports, docstrings and comments left out."""
    return digest([[Path(p).name, _code(p)] for p in sorted(_closure(str(path)))], 12)


def method_hash(method: Method) -> str:
    """Content hash of a method: its file and what that imports from the project."""
    return source_hash(method.path)


def task_hash(task: TaskInfo, tier: str) -> str:
    """Content hash of one tier of a task: code, stated facts and sizes; prose and noise left out."""
    return digest([source_hash(task.path), task.version, asdict(task.tiers[tier])], 12)


def _closure(path: str) -> set[str]:
    found: set[str] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo.extend(_imports(current))
    return found


@functools.lru_cache(maxsize=4096)
def _tree(path: str, stamp: int) -> ast.Module:
    return ast.parse(Path(path).read_bytes())


def _parsed(path: str) -> ast.Module:
    return _tree(path, os.stat(path).st_mtime_ns)


def _code(path: str) -> str:
    """The file's code as its syntax tree, without docstrings and facts that never move a score."""
    return _dumped(path, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _dumped(path: str, stamp: int) -> str:
    tree = ast.parse(Path(path).read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:]
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in _DECORATORS:
                node.keywords = [k for k in node.keywords if k.arg not in _PROSE]
    return ast.dump(tree)


def _imports(path: str) -> Iterator[str]:
    for node in ast.walk(_parsed(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.partition(".")[0] in PROJECT_PACKAGES and (file := _module_file(name)):
                yield file


@functools.cache
def _module_file(name: str) -> str | None:
    package, _, rest = name.partition(".")
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        base = Path(root, *rest.split(".")) if rest else Path(root)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return str(file)
    return None


def engine_hash() -> str:
    """Hash of the engine's own code that a training run passes through."""
    root = Path(__file__).parent
    files = [root / "recipe.py", root / "seeds.py", *sorted((root / "train").glob("*.py"))]
    return digest([[f.name, _code(str(f))] for f in files], 12)


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
    hardware = _cpu_name()
    if device.startswith("cuda"):
        import torch

        hardware = torch.cuda.get_device_name(device)
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.partition(":")[0],
        "hardware": hardware,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "dtype": "float32",
        "packages": _packages_hash(),
    }


@functools.cache
def _packages_hash() -> str:
    """Hash of the installed packages and their versions."""
    return digest(sorted(f"{d.name}=={d.version}" for d in metadata.distributions()), 12)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        module = sys.modules.get(package)
        return str(getattr(module, "__version__", ""))


@functools.cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
