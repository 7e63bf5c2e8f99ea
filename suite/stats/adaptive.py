"""Seeds where the decision is open: group-sequential comparison with alpha spending.

A cell (method, task) is compared with the reference at a few planned seed
counts, its looks. Each look may declare a difference at its own level; the
levels are set so that over all looks a difference is declared where there is
none with probability at most alpha per cell. What was found at earlier looks is
recomputed from the first seeds of the table, so that the decision is a function of the
table alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from suite.stats.board import Board, as_board, others
from suite.stats.paired import t_statistic
from suite.stats.resample import FloatArray

Spending = Literal["obrien-fleming", "pocock"]
Decision = Literal["better", "worse", "failed", "open", "exhausted"]


class CellState(NamedTuple):
    """Where a cell stands.

    Attributes
    ----------
    decision : better or worse (than the reference), failed (no run finished),
        open, or exhausted (no difference shown at the last look).
    seeds : attempted seeds of the cell. used : seeds of the look that decided, or of the last look reached.
    p : two-sided p of the paired t test there; nan below two pairs.
    level : nominal level of that look.
    target : seeds to have next; `seeds` when the cell is settled.
    """

    decision: Decision
    seeds: int
    used: int
    p: float
    level: float
    target: int


def default_looks(max_seeds: int) -> tuple[int, ...]:
    """Seed counts at which to look: 3, 5, 10, 20, ... up to and including `max_seeds`."""
    if max_seeds < 2:
        raise ValueError(f"a paired comparison needs at least 2 seeds, got {max_seeds}")
    looks = [3, 5]
    while looks[-1] < max_seeds:
        looks.append(2 * looks[-1])
    return (*(n for n in looks if n < max_seeds), max_seeds)


def error_spent(fraction: float, alpha: float, kind: Spending = "pocock") -> float:
    """Two-sided error spent once `fraction` of the seeds is in (Lan and DeMets 1983).

    "Discrete sequential boundaries for clinical trials": each side spends
    alpha / 2. obrien-fleming: 4 - 4 Phi(z_{alpha/4} / sqrt(t)), little early;
    pocock: alpha log(1 + (e - 1) t), about even. Both spend alpha at t = 1.
    The default is pocock: at 3 to 5 seeds of 20 the other's levels are far below
    what a t test of so few can reach, so that even large effects would wait.
    """
    if not 0 < fraction <= 1 or not 0 < alpha < 1:
        raise ValueError(f"need 0 < fraction <= 1 and 0 < alpha < 1, got {fraction} and {alpha}")
    if kind == "obrien-fleming":
        return 4.0 * float(ndtr(ndtri(alpha / 4) / np.sqrt(fraction)))
    if kind == "pocock":
        return float(alpha * np.log1p((np.e - 1.0) * fraction))
    raise ValueError(f"spending must be 'obrien-fleming' or 'pocock', got {kind!r}")


@lru_cache(maxsize=64)
def look_levels(looks: tuple[int, ...], alpha: float = 0.05, kind: Spending = "pocock") -> tuple[float, ...]:
    """Two-sided level of each look: the error newly spent there; together they err at most alpha often.

    The sum of the looks' levels is alpha, so the bound holds for t tests at any
    number of seeds. (Boundaries of a Brownian motion, which give a look back
    what it shares with earlier ones, let t tests at 2 to 5 seeds err in up to 6%
    at a nominal 5%; on looks that double the seeds they gain next to nothing.)

    Parameters
    ----------
    looks : increasing seed counts, the last being the most a cell can get.
    """
    if not looks or any(b <= a for a, b in pairwise(looks)) or looks[0] < 1:
        raise ValueError(f"looks must be increasing seed counts, got {looks}")
    upto = [0.0, *(error_spent(n / looks[-1], alpha, kind) for n in looks)]
    return tuple(b - a for a, b in pairwise(upto))


def cell_state(difference: FloatArray, attempted: int, looks: Sequence[int], levels: Sequence[float]) -> CellState:
    """Decide one cell.

    Parameters
    ----------
    difference : (attempted,) differences to the reference in seed order, + is
        better, nan where either side failed.
    attempted : seeds of the cell so far.
    looks, levels : planned seed counts and their nominal levels.
    """
    reached = [k for k, n in enumerate(looks) if n <= attempted]
    p, level, used = np.nan, np.nan, 0
    for k in reached:
        pairs = difference[: looks[k]]
        t, p = t_statistic(pairs[np.isfinite(pairs)])
        level, used = levels[k], looks[k]
        if p < level:
            return CellState("better" if t > 0 else "worse", attempted, used, p, level, attempted)
    if len(reached) == len(looks):
        return CellState("exhausted", attempted, used, p, level, attempted)
    return CellState("open", attempted, used, p, level, looks[len(reached)])


def cell_states(
    table: pd.DataFrame | Board,
    alpha: float = 0.05,
    max_seeds: int = 20,
    *,
    looks: Sequence[int] | None = None,
    spending: Spending = "pocock",
) -> pd.DataFrame:
    """State of every attempted (task, method) cell against the reference.

    A difference is declared where there is none with probability at most alpha
    per cell over all looks together; divide alpha by the number of cells to hold it over
    all of them. A cell whose every run failed at the first look is "failed" and gets no more seeds.

    Parameters
    ----------
    table : runs (see `check_runs`), the reference among them.
    alpha : error rate per cell.
    max_seeds : most seeds a cell can get.
    looks : increasing seed counts ending at `max_seeds`; `default_looks` unless given.

    Returns
    -------
    DataFrame with columns task, method and those of `CellState`.
    """
    plan = tuple(looks) if looks is not None else default_looks(max_seeds)
    if plan[-1:] != (max_seeds,):
        raise ValueError(f"the last look must be at max_seeds = {max_seeds}, got {plan}")
    levels = look_levels(plan, alpha, spending)
    board = as_board(table)
    cells, r = board.cells, board.cells.reference
    rows = []
    for t, task in enumerate(cells.tasks):
        for m in others(board):
            tried = cells.attempted[m, t]
            count = int(tried.sum())
            if count == 0:
                continue
            difference = (cells.utility[m, t] - cells.utility[r, t])[tried]
            state = cell_state(difference, count, plan, levels)
            if count >= plan[0] and not np.isfinite(cells.utility[m, t]).any():
                state = state._replace(decision="failed", target=count)
            rows.append((task, cells.methods[m], *state))
    return pd.DataFrame(rows, columns=["task", "method", *CellState._fields])


def next_cells(
    table: pd.DataFrame | Board,
    alpha: float = 0.05,
    max_seeds: int = 20,
    *,
    looks: Sequence[int] | None = None,
    spending: Spending = "pocock",
) -> pd.DataFrame:
    """Cells that need more seeds, with how many: those still open, up to their next look.

    The reference needs the same seeds: where it has fewer than a cell's target,
    it is listed too. An empty table says that every cell is settled.

    Parameters
    ----------
    As for `cell_states`, which also states the error rate.

    Returns
    -------
    DataFrame with columns task, method, seeds (now), target, add (target - seeds).
    """
    board = as_board(table)
    states = cell_states(board, alpha, max_seeds, looks=looks, spending=spending)
    open_cells = states.loc[states["decision"] == "open", ["task", "method", "seeds", "target"]]
    tries = board.cells.attempted[board.cells.reference].sum(axis=1)
    have = dict(zip(board.cells.tasks, (int(n) for n in tries), strict=True))
    need = open_cells.groupby("task", sort=True)["target"].max()
    name = board.cells.methods[board.cells.reference]
    extra = [(str(t), name, have[str(t)], int(n)) for t, n in need.items() if have[str(t)] < int(n)]
    reference = pd.DataFrame(extra, columns=["task", "method", "seeds", "target"])
    out = pd.concat([open_cells, reference], ignore_index=True) if extra else open_cells
    out = out.assign(add=out["target"] - out["seeds"])
    return out.sort_values(["task", "method"], kind="stable").reset_index(drop=True)


def seeds_saved(states: pd.DataFrame, max_seeds: int) -> float:
    """Share of runs saved against giving every cell `max_seeds`, from what `cell_states` returned."""
    return 1.0 - float(states["seeds"].sum()) / (max_seeds * len(states)) if len(states) else 0.0
