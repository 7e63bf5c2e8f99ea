"""The two sides of a gate: a source tree that is run by its own code, or stored results."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from suite.recipe import REFERENCE

INSIDE = Path(__file__).with_name("inside.py")
RULER = Path(__file__).parent.parent / "runner" / "cost.py"


class GateError(ValueError):
    """A side that cannot be had or run; the message says what to do."""


@dataclass(frozen=True, order=True)
class Cell:
    """What one verdict is about.

    Attributes
    ----------
    tier, task, method : names.
    hp : JSON of the hyper-parameters that were set; "{}" for the method's defaults.
    budget : in the task's unit.
    device : "cpu" or "cuda[:n]".
    """

    tier: str
    task: str
    method: str
    hp: str
    budget: float
    device: str = "cpu"

    def spec(self, seed: int) -> dict[str, Any]:
        """The fields of a `RunSpec`, defaults left out, so that any release takes them."""
        stated = {"task": self.task, "method": self.method, "tier": self.tier, "seed": seed, "budget": self.budget}
        if self.hp != "{}":
            stated["hp"] = json.loads(self.hp)
        if self.device != "cpu":
            stated["device"] = self.device
        return stated


@dataclass
class Listing:
    """Cells of a side and what is known of their tasks.

    Attributes
    ----------
    cells : cell -> hash of its method's code.
    facts : (tier, task) -> direction, best, sd, floor, budget, as far as they are known.
    tasks, methods : every name the side has.
    engine : hash of the training engine's code; "" where it is not known.
    problems : files that could not be read.
    """

    cells: dict[Cell, str]
    facts: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    engine: str = ""
    problems: list[str] = field(default_factory=list)

    @classmethod
    def union(cls, parts: Sequence[Listing]) -> Listing:
        """The listings of several tiers as one."""
        whole = cls({}, {}, parts[0].tasks, parts[0].methods, parts[0].engine, parts[0].problems)
        for part in parts:
            whole.cells |= part.cells
            whole.facts |= part.facts
        return whole


# ---------------------------------------------------------------- a source tree


@dataclass
class Tree:
    """A source tree, run in processes of its own.

    Attributes
    ----------
    root : folder that holds ``suite/``.
    folder : where its runs go.
    label : how reports name it.
    workers : runs at once.
    refused : specifications that the tree cannot run, with its reason.
    """

    root: Path
    folder: Path
    label: str = "head"
    workers: int = 1
    refused: dict[Cell, str] = field(default_factory=dict)

    def listing(self, tasks: Sequence[str], methods: Sequence[str], tier: str, device: str = "cpu") -> Listing:
        """Cells of the tasks and methods named (all where none is) that fit each other; the reference always."""
        found = self.ask({"do": "list", "tasks": list(tasks), "methods": list(methods), "tier": tier})
        facts = {(tier, task): known for task, known in found.pop("facts").items()}
        cells = {Cell(tier, t, m, "{}", facts[tier, t]["budget"], device): code for t, m, code in found.pop("cells")}
        problems = [problem.replace(f"{self.root}/", "") for problem in found.pop("problems")]
        return Listing(cells, facts, **found, problems=problems)

    def seeds(self, cell: Cell) -> list[int] | None:
        """Seeds that this side has of a cell: None, since any can be run."""
        return None

    def rows(self, wanted: dict[Cell, list[int]], cost: float = 0.0) -> dict[Cell, pd.DataFrame]:
        """Result rows of each cell at the wanted seeds, one a seed; made where they are not there yet.

        Parameters
        ----------
        cost : longest measurement of a step's cost over the reference's, seconds; 0 leaves it out.
        """
        import suite

        flat = [(cell, seed) for cell, seeds in wanted.items() for seed in seeds]
        if not flat:
            return {}
        request = {"do": "run", "out": str(self.folder), "workers": self.workers, "cost": cost}
        found = self.ask(request | {"specs": [cell.spec(seed) for cell, seed in flat]})
        self.refused |= {flat[int(i)][0]: why for i, why in found["refused"].items()}
        frame = suite.load_results(self.folder).set_index("run_id", drop=False)
        ids: dict[Cell, list[str]] = {}
        for i, run_id in found["ids"].items():
            if run_id in frame.index:
                ids.setdefault(flat[int(i)][0], []).append(run_id)
        return {cell: frame.loc[some].reset_index(drop=True) for cell, some in ids.items()}

    def measure(self, cell: Cell, seconds: float) -> dict[str, Any]:
        """A fresh step cost over the reference's, and the reference's over itself."""
        request = {"do": "measure", "out": str(self.folder), "seconds": seconds, "specs": [cell.spec(0)]}
        return self.ask(request)

    def command(self, answer: str) -> list[str]:
        """The command that runs `suite.gate.inside` by this tree's code."""
        return [sys.executable, "-P", str(INSIDE), str(self.root), str(RULER), answer]

    @property
    def environment(self) -> dict[str, str]:
        """This process's, with the tree first on the import path and no other source tree on it."""
        others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and not holds_suite(Path(p))]
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.root), *others])}

    def ask(self, request: dict[str, Any]) -> Any:
        """Answer of a process of the tree to one request.

        Raises
        ------
        GateError : the tree's code fails; the end of its error output is in the message.
        """
        with tempfile.TemporaryDirectory(prefix="levelfield-ask-") as folder:
            answer = Path(folder, "answer.json")
            done = subprocess.run(
                self.command(str(answer)),
                input=json.dumps(request),
                cwd=self.root,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            if done.returncode or not answer.exists():
                tail = done.stderr.strip()[-1500:] or "no output"
                raise GateError(f"{self.label} ({self.root}) cannot be run (exit code {done.returncode}): {tail}")
            return json.loads(answer.read_text())


def holds_suite(folder: Path) -> bool:
    """Whether a folder is a source tree of levelfield."""
    return (folder / "suite" / "runner" / "spec.py").is_file()


def working_tree() -> Path:
    """The source tree one stands in, or that of the running code."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if holds_suite(folder):
            return folder
        if (folder / ".git").exists():
            break
    return Path(__file__).resolve().parent.parent.parent


@contextlib.contextmanager
def checkout(repository: Path, revision: str) -> Iterator[Path]:
    """A temporary git worktree of a revision; removed at the end, whatever the end is.

    Raises
    ------
    GateError : no such revision, or no git repository.
    """
    question = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    commit = _git(repository, *question, told=f"{revision}: no folder, and as a revision")
    above = Path(tempfile.mkdtemp(prefix="levelfield-tree-"))
    folder = above / "tree"
    try:
        _git(
            repository, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", "--quiet", str(folder), commit
        )
        if not holds_suite(folder):
            raise GateError(f"revision {revision} holds no suite/; it is no source tree of levelfield")
        yield folder
    finally:
        with contextlib.suppress(GateError):
            _git(repository, "worktree", "remove", "--force", str(folder))
        shutil.rmtree(above, ignore_errors=True)


def _git(repository: Path, *words: str, told: str = "") -> str:
    ours = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}  # a hook's would name another repository
    try:
        done = subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True, env=ours)
    except OSError as error:
        raise GateError(f"git cannot be started: {error}") from None
    if done.returncode:
        why = done.stderr.strip() or "no such revision (a shallow clone has only some: fetch it, or fetch-depth: 0)"
        raise GateError(f"{told or 'git ' + ' '.join(words[-2:])} in {repository}: {why}")
    return done.stdout.strip()


# ---------------------------------------------------------------- stored results


@dataclass
class Stored:
    """Result rows that are there and cannot be made again.

    Attributes
    ----------
    frame : rows as `suite.load_results` gives them.
    """

    frame: pd.DataFrame
    label: str = "base"

    def __post_init__(self) -> None:
        frame, attrs = self.frame, self.frame.attrs
        keep = (frame["trial"] == -1) & (frame["status"] != "skipped") & (frame["budget_kind"] == "steps")
        self.frame = frame[keep].sort_values(["seed", "finished_at"]).reset_index(drop=True)
        self.frame.attrs = attrs
        self.places: dict[Cell, list[int]] = {}
        for i, row in enumerate(self.frame.to_dict("records")):
            self.places.setdefault(_cell(row), []).append(i)

    def listing(self, tasks: Sequence[str], methods: Sequence[str], tier: str) -> Listing:
        """The stored cells of the tasks, methods and tier named (all where none is); the reference always."""
        chosen = {
            cell: str(self.frame["method_hash"][places[-1]])
            for cell, places in self.places.items()
            if (not tasks or cell.task in tasks)
            and (not methods or cell.method in (*methods, REFERENCE))
            and tier in ("", cell.tier)
        }
        directions = self.frame["direction"]
        facts = {(c.tier, c.task): {"direction": directions[places[0]]} for c, places in self.places.items()}
        tasks_there, methods_there = ({getattr(c, kind) for c in self.places} for kind in ("task", "method"))
        problems = self.frame.attrs.get("problems", [])
        return Listing(chosen, facts, sorted(tasks_there), sorted(methods_there), problems=problems)

    def seeds(self, cell: Cell) -> list[int] | None:
        """Seeds that are stored of a cell."""
        return sorted({int(self.frame["seed"][i]) for i in self.places.get(cell, [])})

    def rows(self, wanted: dict[Cell, list[int]], cost: float = 0.0) -> dict[Cell, pd.DataFrame]:
        """Rows of each cell at the wanted seeds, the latest one a seed; what is not stored is left out."""
        found = {}
        for cell, seeds in wanted.items():
            rows = self.frame.loc[self.places.get(cell, [])]
            rows = rows[rows["seed"].isin(seeds)].drop_duplicates("seed", keep="last")
            if len(rows):
                found[cell] = rows.reset_index(drop=True)
        return found


def _cell(row: dict[str, Any]) -> Cell:
    device = json.loads(row["environment"] or "{}").get("device", "cpu")
    return Cell(row["tier"], row["task"], row["method"], row["set_hp"] or "{}", float(row["budget"]), device)
