"""The reference ladder: which budget the reference needs for a given final score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from suite.stats.intervals import exact_mean
from suite.stats.resample import FloatArray, IntArray, StudentMultipliers
from suite.stats.table import TableError, check_seeds, scores_of

LOG2_CLIP = 2.0  # speedups are clipped to [1/4, 4]
FAILED_LOG2 = -LOG2_CLIP  # a failed run counts 1/4


@dataclass(frozen=True, eq=False)
class Arm:
    """Finished runs of one recipe at one budget: seed indices (n,), utilities (n,), larger is better."""

    seeds: IntArray
    utility: FloatArray

    @cached_property
    def mean(self) -> float:
        """Mean utility; nan for an empty arm."""
        return exact_mean(self.utility)

    def draws(self, multipliers: StudentMultipliers) -> FloatArray:
        """Student-t draws (R,) of the mean; the mean itself for one run, whose spread is unknown."""
        if len(self.utility) < 2:
            return np.full(multipliers.rounds, self.mean)
        return multipliers.means(self.utility, self.seeds)

    def shifts(self, seeds: IntArray) -> FloatArray:
        """Share of each of the sorted `seeds` in the mean's error, (S,) -> (S,).

        Its deviation, scaled so that the squares sum to s^2 / n; 0 where the arm lacks the seed.
        """
        n = len(self.utility)
        out = np.zeros(len(seeds))
        if n > 1:
            at = np.minimum(np.searchsorted(seeds, self.seeds), len(seeds) - 1)
            here = seeds[at] == self.seeds
            out[at[here]] = (self.utility[here] - self.mean) / np.sqrt(n * (n - 1))
        return out


def isotonic(values: FloatArray) -> FloatArray:
    """Least-squares non-decreasing fit along the last axis, (..., K) -> (..., K).

    The min-max formula max_{a <= i} min_{b >= i} mean(values[a..b]) (Robertson,
    Wright and Dykstra 1988); meant for a handful of rungs.
    """
    k = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    fit = np.empty_like(values)
    for i in range(k):
        best = np.full(values.shape[:-1], -np.inf)
        for a in range(i + 1):
            ends = [(sums[..., b + 1] - sums[..., a]) / (b + 1 - a) for b in range(i, k)]
            best = np.maximum(best, np.minimum.reduce(ends))
        fit[..., i] = best
    return fit


def anchored_ladder(budgets: FloatArray, ladder: FloatArray) -> FloatArray:
    """Non-decreasing ladder that keeps its own value at budget 1, (..., K) -> (..., K).

    The rungs above and below budget 1 are fitted isotonically and bounded by
    the value at 1, so a score equal to the reference's always reads budget 1.
    """
    one = int(np.flatnonzero(budgets == 1.0)[0])
    anchor = ladder[..., one : one + 1]
    below = np.minimum(isotonic(ladder[..., :one]), anchor)
    above = np.maximum(isotonic(ladder[..., one + 1 :]), anchor)
    return np.concatenate([below, anchor, above], axis=-1)


def log2_speedup(utility: FloatArray, budgets: FloatArray, ladder: FloatArray) -> FloatArray:
    """log2 of the budget at which the reference reaches `utility`, clipped to +-2 and to the ladder.

    Linear interpolation in log2 budget on the monotone ladder. Where the ladder
    is flat a whole range of budgets gives the score; the one nearest to 1 is
    taken, as nothing shows that the budget matters there.

    Parameters
    ----------
    utility : (...,) mean final scores, larger is better.
    budgets : (K,) increasing fractions of the full budget, 1 among them.
    ladder : (..., K) the reference's mean final scores, larger is better; broadcasts.
    """
    rungs = anchored_ladder(budgets, ladder)
    logs = np.log2(budgets)
    total = np.full(np.broadcast_shapes(utility.shape, rungs.shape[:-1]), logs[0])
    for j in range(len(budgets) - 1):
        low, high = rungs[..., j], rungs[..., j + 1]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            part = np.clip((utility - low) / (high - low), 0.0, 1.0)
        at_flat = 1.0 if logs[j + 1] <= 0 else 0.0
        flat = np.where(utility > low, 1.0, np.where(utility < low, 0.0, at_flat))
        total = total + np.where(high > low, part, flat) * (logs[j + 1] - logs[j])
    total = np.where(np.isnan(utility), np.nan, total)
    return np.asarray(np.clip(total, -LOG2_CLIP, LOG2_CLIP), dtype=np.float64)


def check_budgets(budgets: npt.ArrayLike) -> FloatArray:
    """Rung budgets (K,) as fractions of the full budget: increasing, positive, with 1 and another."""
    array = np.asarray(budgets, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.all(np.diff(array) > 0) or not array[0] > 0:
        raise ValueError(f"ladder budgets must be increasing positive fractions, at least two, got {array.tolist()}")
    if 1.0 not in array:
        raise ValueError("a ladder needs a rung at budget 1")
    return array


def effective_speedup(
    score: npt.ArrayLike, budgets: npt.ArrayLike, ladder: npt.ArrayLike, direction: str = "min"
) -> FloatArray:
    """Budget the reference needs to reach `score`, over the method's budget: a factor in [1/4, 4].

    Parameters
    ----------
    score : (...,) final score of the method at budget 1; nan is a failed cell and counts 1/4.
    budgets : (K,) fractions of the full budget, increasing, usually 1/4, 1/2, 1, 2, 4.
    ladder : (K,) the reference's mean final score when trained to the end at each.
    direction : "min" when a lower score is better, else "max".

    Returns
    -------
    (...,) speedups. Above 1: the reference would need that much more budget.
    """
    if direction not in ("min", "max"):
        raise ValueError(f"direction must be 'min' or 'max', got {direction!r}")
    fractions, rungs = check_budgets(budgets), np.asarray(ladder, dtype=np.float64)
    if rungs.shape != fractions.shape or not np.all(np.isfinite(rungs)):
        raise ValueError(f"a ladder needs one finite score a budget, got {rungs.tolist()}")
    sign = 1.0 if direction == "max" else -1.0
    logs = log2_speedup(sign * np.asarray(score, dtype=np.float64), fractions, sign * rungs)
    return np.asarray(np.exp2(np.where(np.isnan(logs), FAILED_LOG2, logs)), dtype=np.float64)


def check_ladder(ladder: pd.DataFrame) -> pd.DataFrame:
    """The ladder's finished runs in canonical order (task, budget, seed).

    Parameters
    ----------
    ladder : one row a run of the reference with columns task, budget (fraction
        of the full budget), seed, status and score.

    Raises
    ------
    TableError : a column is missing or has gaps, a seed is no whole number, a (task,
        budget, seed) occurs twice or an ok run has no finite score.
    """
    missing = [name for name in ("task", "budget", "seed", "status", "score") if name not in ladder.columns]
    if missing:
        raise TableError(f"the ladder has no column {', '.join(missing)}")
    null = [name for name in ("task", "budget", "seed", "status") if ladder[name].isna().any()]
    if null:
        raise TableError(f"the ladder has rows without {', '.join(null)}")
    check_seeds(ladder)
    table = ladder.loc[(ladder["status"] == "ok").to_numpy(dtype=bool)]
    table = table.sort_values(["task", "budget", "seed"], kind="stable").reset_index(drop=True)
    if table.duplicated(["task", "budget", "seed"]).any():
        raise TableError("a (task, budget, seed) of the ladder occurs twice")
    if not np.all(np.isfinite(scores_of(table))):
        raise TableError("an ok run of the ladder has no finite score")
    return table


def rung_arms(ladder: pd.DataFrame, signs: dict[str, float]) -> dict[str, dict[float, Arm]]:
    """Arms of every task's rungs by budget fraction, for the tasks in `signs` (+1 for "max", -1 for "min")."""
    table = check_ladder(ladder)
    names, budgets = [str(name) for name in table["task"]], table["budget"].to_numpy(dtype=np.float64).tolist()
    seeds, scores = table["seed"].to_numpy(dtype=np.int64), scores_of(table)
    keys = list(zip(names, budgets, strict=True))
    starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    arms: dict[str, dict[float, Arm]] = {}
    for start, end in pairwise([*starts, len(keys)]):
        task, budget = keys[start]
        if task in signs:
            arms.setdefault(task, {})[budget] = Arm(seeds[start:end], signs[task] * scores[start:end])
    return arms
