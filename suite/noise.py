"""A task's noise: derived from its reference's ladder, and written into the task's own source."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.facts import Noise
from suite.fingerprint import source_hash
from suite.registry import TaskInfo, decorator_kind
from suite.store.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd

LINE = 120  # longest line of the project's sources


def noise_facts(frame: pd.DataFrame, budget: float, sign: int, floor: float = 0.0) -> dict[str, Any]:
    """Noise fields of a task from its ladder.

    Parameters
    ----------
    frame : the reference's rows at shares of the budget, several seeds each.
    budget : the tier's budget.
    sign : +1 where lower is better.
    floor : the task's stated floor, which no measurement changes.

    Returns
    -------
    ladder : mean, sd, n and failures at each share of the budget.
    noise : `Noise` at the full budget: its seed standard deviation, the seeds
        behind it, and what the last doubling of the budget was worth, + is
        better; None where fewer than two seeds ended well.
    detectable : paired seeds -> difference shown with 80% power.
    """
    ladder: list[dict[str, Any]] = []
    for units, rows in frame.groupby("budget"):
        good = rows[rows["status"] == "ok"]["score"]
        cells = {"share": float(units) / budget, "mean": float(good.mean()), "sd": float(good.std()), "n": len(good)}
        ladder.append(cells | {"failed": len(rows) - len(good)})
    full = next((rung for rung in ladder if rung["share"] == 1.0), {"n": 0})
    if full["n"] < 2:
        return {"ladder": ladder, "noise": None, "detectable": {}}
    half = next((rung for rung in ladder if abs(rung["share"] - 0.5) < 0.02 and rung["n"]), None)
    worth = sign * (half["mean"] - full["mean"]) if half else None
    noise = Noise(_two(full["sd"]), floor, full["n"], None if worth is None else _two(worth))
    return {"ladder": ladder, "noise": noise, "detectable": {n: noise.detectable(n) for n in (3, 5, 10)}}


def _two(value: float) -> float:
    """Two significant digits: five seeds tell no more of a standard deviation."""
    return float(f"{value:.2g}")


def write_noise(task: TaskInfo, tier: str, noise: Noise) -> bool:
    """Set one tier's noise in the task's source and touch nothing else; False where it stands there already.

    The task's content hash stays as it is: noise is left out of it.

    Raises
    ------
    ValueError : the task's facts were not found in its source, or the hash would change.
    """
    path = Path(task.path)
    text = path.read_bytes().decode()
    changed = _with_noise(text, task, {**task.noise, tier: noise})
    if changed == text:
        return False
    before = source_hash(path)
    write_bytes(path, changed.encode())
    if source_hash(path) != before:
        write_bytes(path, text.encode())
        raise ValueError(f"{path}: writing the noise would change the task's content hash; it was left as it was")
    return True


def _with_noise(text: str, task: TaskInfo, noise: dict[str, Noise]) -> str:
    tree = ast.parse(text)
    call = next((n for n in ast.walk(tree) if _states(n, task.name)), None)
    if call is None:
        raise ValueError(f"{task.path}: no define_task({task.name!r}, ...) in it")
    assert isinstance(call, ast.Call)
    stated = next((k.value for k in call.keywords if k.arg == "noise"), None)
    known = any(isinstance(n, ast.ImportFrom) and any(a.name == "Noise" for a in n.names) for n in tree.body)
    if stated is not None:
        start, end = _places(text, stated)
        column = start - (text.rfind("\n", 0, start) + 1)
        return text[:start] + _literal(noise, known, column) + text[end:]
    last = max((_places(text, k.value)[1] for k in call.keywords), default=_places(text, call.args[0])[1])
    line = text[text.rfind("\n", 0, last) + 1 : last]
    indent = len(line) - len(line.lstrip())
    return text[:last] + f",\n{' ' * indent}noise=" + _literal(noise, known, indent + 6) + text[last:]


def _states(node: ast.AST, name: str) -> bool:
    if not (isinstance(node, ast.Call) and decorator_kind(node) == "task" and node.args):
        return False
    first = node.args[0]
    return isinstance(first, ast.Constant) and first.value == name


def _places(text: str, node: ast.expr) -> tuple[int, int]:
    """Where a node begins and ends in the text (ast counts bytes of a line)."""
    lines = text.split("\n")

    def place(line: int, column: int) -> int:
        return sum(len(before) + 1 for before in lines[: line - 1]) + len(lines[line - 1].encode()[:column].decode())

    assert node.end_lineno is not None and node.end_col_offset is not None
    return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)


def _literal(noise: dict[str, Noise], known: bool, column: int) -> str:
    """The facts as source text from `column` on; plain dicts where the file does not import `Noise`."""
    entries = [f'"{tier}": {_one(n, known)}' for tier, n in noise.items()]
    line = "{" + ", ".join(entries) + "}"
    if column + len(line) + 1 <= LINE:
        return line
    indent = " " * (column - len("noise="))
    return "{\n" + "".join(f"{indent}    {entry},\n" for entry in entries) + indent + "}"


def _one(noise: Noise, known: bool) -> str:
    more = {"floor": noise.floor, "n": noise.n, "per_doubling": noise.per_doubling}
    stated = {k: v for k, v in more.items() if v not in (None, 0)}
    if known:
        return f"Noise({', '.join([repr(noise.sd), *(f'{k}={v!r}' for k, v in stated.items())])})"
    return "{" + ", ".join(f'"{k}": {v!r}' for k, v in {"sd": noise.sd, **stated}.items()) + "}"
