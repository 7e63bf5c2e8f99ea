"""Seeds where the decision is open: group-sequential comparison with alpha spending.

A cell (method, task) is compared with the reference at a few planned seed
counts, its looks. Each look may declare a difference at its own level; the
levels are set so that over all looks a difference is declared where there is
none with probability alpha per cell. What was found at earlier looks is
recomputed from the first seeds of the table, so that the decision is a function of the
table alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from suite.stats.board import Board, as_board, others
from suite.stats.paired import t_statistic
from suite.stats.resample import FloatArray

Spending = Literal["obrien-fleming", "pocock"]
Decision = Literal["better", "worse", "failed", "open", "exhausted"]
_GRID = 401


class CellState(NamedTuple):
    """Where a cell stands.

    Attributes
    ----------
    decision : better, worse (than the reference), failed (no run finished), open, or exhausted (no difference shown at the last look).
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


def spent(fraction: float, alpha: float, kind: Spending = "obrien-fleming") -> float:
    """Error spent once `fraction` of the seeds is in (Lan and DeMets 1983, "Discrete sequential boundaries").

    obrien-fleming: 2 - 2 Phi(z_{alpha/2} / sqrt(t)), little early; pocock:
    alpha log(1 + (e - 1) t), about even. Both spend alpha at t = 1.
    """
    if not 0 < fraction <= 1 or not 0 < alpha < 1:
        raise ValueError(f"need 0 < fraction <= 1 and 0 < alpha < 1, got {fraction} and {alpha}")
    if kind == "obrien-fleming":
        return 2.0 * float(ndtr(ndtri(alpha / 2) / np.sqrt(fraction)))
    if kind == "pocock":
        return float(alpha * np.log1p((np.e - 1.0) * fraction))
    raise ValueError(f"spending must be 'obrien-fleming' or 'pocock', got {kind!r}")


@lru_cache(maxsize=64)
def look_levels(looks: tuple[int, ...], alpha: float = 0.05, kind: Spending = "obrien-fleming") -> tuple[float, ...]:
    """Nominal two-sided level of each look, so that all looks together err with probability alpha.

    Boundaries of a Brownian motion at the information fractions looks / looks[-1],
    by recursive integration of the density that has not crossed (Armitage,
    McPherson and Rowe 1969; Jennison and Turnbull 2000, chapter 19). Comparing
    the p value of a t test with these levels keeps alpha closely even at few
    seeds (Jennison and Turnbull 2000, section 4.4; simulated in the tests).

    Parameters
    ----------
    looks : increasing seed counts, the last being the most a cell can get.
    """
    if not looks or any(b <= a for a, b in zip(looks, looks[1:], strict=False)) or looks[0] < 1:
        raise ValueError(f"looks must be increasing seed counts, got {looks}")
    fractions = np.array(looks, dtype=np.float64) / looks[-1]
    levels: list[float] = []
    nodes, density = np.zeros(1), np.ones(1)
    before, total = 0.0, 0.0
    for fraction in fractions:
        step = np.sqrt(fraction - before)
        budget = spent(float(fraction), alpha, kind) - total
        bound = _crossing_bound(nodes, density, step, budget)
        levels.append(2.0 * float(ndtr(-bound / np.sqrt(fraction))))
        nodes, density = _carry(nodes, density, step, bound)
        before, total = float(fraction), total + budget
    return tuple(levels)


def _crossing_bound(nodes: FloatArray, mass: FloatArray, step: float, budget: float) -> float:
    """Bound b at which P(|S + step Z| > b) is `budget`, S having the given mass at the nodes."""
    low, high = 0.0, float(np.max(np.abs(nodes))) + 40.0 * step
    for _ in range(200):
        bound = 0.5 * (low + high)
        crossed = float(mass @ (ndtr((nodes - bound) / step) + ndtr((-nodes - bound) / step)))
        low, high = (bound, high) if crossed > budget else (low, bound)
    return 0.5 * (low + high)


def _carry(nodes: FloatArray, mass: FloatArray, step: float, bound: float) -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre nodes in [-bound, bound] and the mass there after one step without crossing."""
    points, weights = np.polynomial.legendre.leggauss(_GRID)
    grid = bound * points
    z = (grid[:, None] - nodes[None, :]) / step
    kernel = np.exp(-0.5 * z**2) / (np.sqrt(2.0 * np.pi) * step)
    return grid, bound * weights * (kernel @ mass)


def cell_state(
    difference: FloatArray, attempted: int, looks: Sequence[int], levels: Sequence[float]
) -> CellState:
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
    spending: Spending = "obrien-fleming",
) -> pd.DataFrame:
    """State of every (task, method) cell against the reference.

    A difference is declared where there is none with probability alpha per cell
    over all looks together; divide alpha by the number of cells to hold it over
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
    if plan[-1] != max_seeds:
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
                rows.append((task, cells.methods[m], *CellState("open", 0, 0, np.nan, np.nan, plan[0])))
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
    spending: Spending = "obrien-fleming",
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
