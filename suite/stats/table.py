"""The runs table checked and laid out as dense arrays over (method, task, seed)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from suite.stats.resample import BoolArray, FloatArray, IntArray

REFERENCE = "reference"
COLUMNS = ("task", "method", "seed", "status", "score", "direction")
NOT_ATTEMPTED = "skipped"
ONE_PER_BOARD = ("tier", "budget_kind", "hardware_class")
ONE_PER_TASK = ("direction", "family", "task_hash", "task_version")

Missing = Literal["leave", "fail"]


class TableError(ValueError):
    """A table that these statistics refuse, with the rows that are the reason."""


def check_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The attempted runs in a canonical order (task, method, seed), or an error that names what is wrong.

    Rows whose status is "skipped" were not attempted and are left out.

    Parameters
    ----------
    runs : one row a run with columns task, method, seed, status ("ok" or a
        failure), score (nan when failed), direction ("min" or "max") and, where
        known, family; seeds are whole numbers. Where they are there, tier, budget_kind and hardware_class
        must have one value, and task_hash, task_version and (in steps) budget one a task.

    Raises
    ------
    TableError : a column is missing; a seed is no whole number; a (task, method, seed) occurs twice; an ok
        run has no finite score; a task has two directions, hashes or budgets, or
        the board two tiers, which are never mixed.
    """
    missing = [name for name in COLUMNS if name not in runs.columns]
    if missing:
        raise TableError(f"the runs table has no column {', '.join(missing)}")
    null = [name for name in COLUMNS if name != "score" and runs[name].isna().any()]
    if null:
        raise TableError(f"the runs table has rows without {', '.join(null)}")
    check_seeds(runs)
    table = runs.loc[(runs["status"] != NOT_ATTEMPTED).to_numpy(dtype=bool)]
    table = table.sort_values(["task", "method", "seed"], kind="stable").reset_index(drop=True)
    _refuse_mixtures(table)
    twice = table.duplicated(["task", "method", "seed"])
    if twice.any():
        count, first = int(twice.sum()), _first(table, twice.to_numpy(dtype=bool))
        raise TableError(f"{count} runs occur twice, the first {first}: choose one track or trial")
    unscored = (table["status"] == "ok").to_numpy(dtype=bool) & ~np.isfinite(scores_of(table))
    if unscored.any():
        raise TableError(f"{int(unscored.sum())} ok runs have no finite score, the first {_first(table, unscored)}")
    return table


def check_seeds(table: pd.DataFrame) -> None:
    """An error where a seed is no whole number: cut to one, it would be taken for another run's."""
    seeds = pd.to_numeric(table["seed"], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    odd = ~np.isfinite(seeds) | (seeds != np.floor(seeds))
    if odd.any():
        raise TableError(f"a seed must be a whole number, got {table['seed'].loc[odd].iloc[0]}")


def _first(table: pd.DataFrame, where: BoolArray) -> str:
    row = table.loc[where].iloc[0]
    return f"({row['task']}, {row['method']}, seed {row['seed']})"


def _refuse_mixtures(table: pd.DataFrame) -> None:
    odd = sorted(set(table["direction"].unique()) - {"min", "max"})
    if odd:
        raise TableError(f"direction must be 'min' or 'max', got {odd[0]!r}")
    for name in ONE_PER_BOARD:
        if name in table.columns and table[name].nunique(dropna=False) > 1:
            raise TableError(f"one board never mixes values of {name}: {sorted(map(str, table[name].unique()))}")
    in_steps = "budget_kind" in table.columns and (table["budget_kind"] == "steps").all()
    for name in (*ONE_PER_TASK, "budget") if in_steps else ONE_PER_TASK:
        if name in table.columns:
            kinds = table.groupby("task")[name].nunique(dropna=False)
            if (kinds > 1).any():
                raise TableError(f"task {kinds.idxmax()!r} has runs of several values of {name}")


def scores_of(table: pd.DataFrame) -> FloatArray:
    """The score column as float64, nan where there is none."""
    return table["score"].to_numpy(dtype=np.float64, na_value=np.nan)


@dataclass(frozen=True)
class Cells:
    """Runs as dense arrays; M methods, T tasks, S seed indices.

    Attributes
    ----------
    methods : names, sorted, with those whose every run was skipped.
    tasks : names of the attempted tasks, sorted.
    families : family of each task, "" where unknown.
    seeds : (S,) seed indices, sorted.
    utility : (M, T, S) score signed so that larger is better; nan where no run finished.
    failed : (M, T, S) an attempt that did not finish.
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    families: tuple[str, ...]
    seeds: IntArray
    utility: FloatArray
    failed: BoolArray

    @classmethod
    def of(cls, runs: pd.DataFrame) -> Cells:
        """Lay out a runs table (see `check_runs` for its columns and errors)."""
        table = check_runs(runs)
        if table.empty:
            raise TableError("the runs table holds no attempted run")
        methods = sorted(set(map(str, runs["method"].unique())))
        places = {name: place for place, name in enumerate(methods)}
        code, names = pd.factorize(table["method"])
        method = np.array([places[str(name)] for name in names], dtype=np.int64)[code]
        task, tasks = pd.factorize(table["task"], sort=True)
        seed, seeds = pd.factorize(table["seed"], sort=True)
        shape = (len(methods), len(tasks), len(seeds))
        utility, failed = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
        ok = (table["status"] == "ok").to_numpy(dtype=bool)
        sign = np.where((table["direction"] == "max").to_numpy(dtype=bool), 1.0, -1.0)
        utility[method, task, seed] = np.where(ok, sign * scores_of(table), np.nan)
        failed[method, task, seed] = ~ok
        family = [""] * len(tasks)
        if "family" in table.columns:
            firsts = table.drop_duplicates("task").set_index("task")["family"]
            family = [str(firsts[name]) for name in tasks]
        return cls(tuple(methods), tuple(map(str, tasks)), tuple(family), np.asarray(seeds, np.int64), utility, failed)

    @property
    def finished(self) -> BoolArray:
        """(M, T, S) runs with a score."""
        return np.isfinite(self.utility)

    @property
    def attempted(self) -> BoolArray:
        """(M, T, S) runs that finished or failed."""
        return self.finished | self.failed

    @property
    def reference(self) -> int:
        """Index of the reference; an error where the table has none."""
        if REFERENCE not in self.methods:
            raise TableError(f"the runs table has no method {REFERENCE!r}")
        return self.methods.index(REFERENCE)
