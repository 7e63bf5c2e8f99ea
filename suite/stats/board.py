"""One board: the runs of one tier put on a scale that every task shares.

The scale is the reference's: log2 of the effective speedup where a ladder is
given, else the difference to the reference in units of the reference's seed
standard deviation, clipped to +-6. Neither depends on which other methods
are on the board.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import pandas as pd

from suite.stats.intervals import exact_mean, sample_sd
from suite.stats.ladder import FAILED_LOG2, Arm, check_budgets, log2_speedup, rung_arms
from suite.stats.resample import BoolArray, FloatArray, IntArray, StudentMultipliers, check_rounds
from suite.stats.table import REFERENCE, Cells, Missing, TableError

# of cell and reference alone
_CELLWISE = ("means", "gaps", "paired_means", "_finished_values", "values", "variances", "run_values")
SD_CLIP = 6.0  # differences to the reference are clipped to this many of its seed standard deviations


class Scale(Protocol):
    """How one task's utilities become comparable values.

    Attributes
    ----------
    arms : arms of the reference the scale rests on, K of them.
    floor : value of a failed run.
    """

    @property
    def arms(self) -> tuple[Arm, ...]: ...

    @property
    def floor(self) -> float: ...

    def read(self, utility: FloatArray, means: FloatArray) -> FloatArray:
        """Values (...,) of mean utilities (...,) given the arms' means (..., K); broadcasts."""


@dataclass(frozen=True)
class LadderScale:
    """log2 effective speedup, in [-2, 2]."""

    arms: tuple[Arm, ...]
    budgets: FloatArray
    floor: float = FAILED_LOG2

    def read(self, utility: FloatArray, means: FloatArray) -> FloatArray:
        return log2_speedup(utility, self.budgets, means)


@dataclass(frozen=True)
class SpreadScale:
    """Difference to the reference in its seed standard deviations, in [-6, 6]."""

    arms: tuple[Arm, ...]
    sd: float
    floor: float = -SD_CLIP

    def read(self, utility: FloatArray, means: FloatArray) -> FloatArray:
        difference = utility - means[..., 0]
        ratio = difference / self.sd if self.sd > 0 else np.sign(difference) * SD_CLIP
        return np.asarray(np.clip(ratio, -SD_CLIP, SD_CLIP), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Board:
    """Cells, the scale of each task, and what every board statistic is made of.

    Attributes
    ----------
    cells : M methods, T tasks, S seed indices.
    rungs : task -> budget fraction -> arm of the ladder; None without a ladder.
    level : nominal coverage of every interval.
    rounds : bootstrap rounds, even.
    seed : key of the bootstrap's streams.
    noise : task -> seed standard deviation of the reference that was measured apart, or the task's
        floor where that is larger; the scale without a ladder takes it before that of the board's
        own few runs. Where it has to take theirs, values are in units of the spread that these runs
        happen to have; intervals over several tasks then err in 6 to 8% of the cases at a nominal
        5%, at 3 to 10 seeds.
    missing : "leave" leaves a cell that was never attempted out (coverage says
        so); "fail" counts it as failed.
    """

    cells: Cells
    rungs: dict[str, dict[float, Arm]] | None = None
    level: float = 0.95
    rounds: int = 1000
    seed: int = 0
    missing: Missing = "leave"
    noise: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level lies between 0 and 1, got {self.level}")
        check_rounds(self.rounds)

    @classmethod
    def of(
        cls,
        runs: pd.DataFrame,
        ladder: pd.DataFrame | None = None,
        *,
        level: float = 0.95,
        rounds: int = 1000,
        seed: int = 0,
        missing: Missing = "leave",
        noise: Mapping[str, float] | None = None,
    ) -> Board:
        """Board of a runs table (see `check_runs`) and, where there is one, the ladder (see `check_ladder`)."""
        if missing not in ("leave", "fail"):
            raise ValueError(f"missing must be 'leave' or 'fail', got {missing!r}")
        cells = Cells.of(runs)
        rungs = None
        if ladder is not None:
            pairs = runs[["task", "direction"]].drop_duplicates("task").itertuples(index=False)
            rungs = rung_arms(ladder, {str(task): 1.0 if way == "max" else -1.0 for task, way in pairs})
        return cls(cells, rungs, level, rounds, seed, missing, dict(noise or {}))

    def only(self, methods: Sequence[str] | None = None, tasks: Sequence[str] | None = None) -> Board:
        """The board of some methods and tasks (all where None), in this board's order."""
        c = self.cells
        unknown = [name for name in (methods or ()) if name not in c.methods]
        unknown += [name for name in (tasks or ()) if name not in c.tasks]
        if unknown:
            raise TableError(f"the board has no {unknown[0]!r}")
        rows = [i for i, name in enumerate(c.methods) if methods is None or name in methods]
        columns = [i for i, name in enumerate(c.tasks) if tasks is None or name in tasks]
        part = Cells(
            tuple(c.methods[i] for i in rows),
            tuple(c.tasks[i] for i in columns),
            tuple(c.families[i] for i in columns),
            c.seeds,
            c.utility[np.ix_(rows, columns)],
            c.failed[np.ix_(rows, columns)],
        )
        made = replace(self, cells=part)
        known = vars(self)  # of the same cells: not to be made again for each method or task left out
        if "arms" in known:
            vars(made)["arms"] = [[self.arms[t][m] for m in rows] for t in columns]
        if REFERENCE in c.methods and c.reference in rows:
            if "scales" in known:
                vars(made)["scales"] = [self.scales[t] for t in columns]
            for name in _CELLWISE:
                if name in known:
                    vars(made)[name] = known[name][np.ix_(rows, columns)]
        return made

    def at_rounds(self, rounds: int) -> Board:
        """This board with another number of bootstrap rounds."""
        made = replace(self, rounds=rounds)
        facts = {f.name for f in fields(self)}
        vars(made).update({name: value for name, value in vars(self).items() if name not in facts})
        return made

    def arm(self, method: int, task: int) -> Arm:
        """Finished runs of a cell."""
        utility = self.cells.utility[method, task]
        finished = np.isfinite(utility)
        return Arm(self.cells.seeds[finished], utility[finished])

    @cached_property
    def arms(self) -> list[list[Arm]]:
        """Finished runs of every cell, [task][method]."""
        return [[self.arm(m, t) for m in range(len(self.cells.methods))] for t in range(len(self.cells.tasks))]

    @cached_property
    def means(self) -> FloatArray:
        """(M, T) mean utility of the finished runs, nan where none finished."""
        return np.array([[arm.mean for arm in row] for row in self.arms]).T

    @cached_property
    def scales(self) -> list[Scale]:
        """The scale of every task; an error names a task where the reference did not finish."""
        return [self._scale(t, name) for t, name in enumerate(self.cells.tasks)]

    def _scale(self, t: int, task: str) -> Scale:
        reference = self.arms[t][self.cells.reference]
        if len(reference.utility) == 0:
            raise TableError(f"the reference has no finished run on task {task!r}")
        if self.rungs is None:
            if len(reference.utility) < 2:
                raise TableError(f"the reference has one run on task {task!r}: without a ladder it needs two")
            return SpreadScale((reference,), self._seed_sd(t))
        if task not in self.rungs:
            raise TableError(f"the ladder has no rung on task {task!r}")
        rungs = {**self.rungs[task], 1.0: reference}
        if len(rungs) < 2:
            raise TableError(f"the ladder has no rung beside budget 1 on task {task!r}")
        budgets = check_budgets(sorted(rungs))
        return LadderScale(tuple(rungs[float(b)] for b in budgets), budgets)

    def _seed_sd(self, t: int) -> float:
        """The reference's seed standard deviation on a task, as measured apart or of its own runs; nan for one run."""
        own = self.arms[t][self.cells.reference].utility
        return self.noise.get(self.cells.tasks[t], sample_sd(own) if len(own) > 1 else np.nan)

    @cached_property
    def sharp(self) -> BoolArray:
        """(T,) tasks where one seed standard deviation above the reference is worth less than a doubling of its budget.

        Where it is worth that much or more, the ladder is too flat to read a speedup on: the
        luck of the seeds, bent by a ladder that rises steeply below the
        reference and hardly above it, looks like a gain. Simulated on the ladders
        of five quick tasks, a method equal to the reference reads 1.02 to 1.04 on
        average at 5 and 3 seeds, and 1.06 to 1.10 with a sixth that is flat.
        Where the reference's runs are equal, anything above them must be worth less.
        All tasks without a ladder, and those with an unknown spread, count as sharp.
        """
        flat = []
        for t, scale in enumerate(self.scales if self.rungs is not None else ()):
            means = np.array([arm.mean for arm in scale.arms])
            above = np.nextafter(self.means[self.cells.reference, t] + self._seed_sd(t), np.inf)
            flat.append(bool(scale.read(above, means) >= 1.0))
        return ~np.array(flat or [False] * len(self.cells.tasks))

    @cached_property
    def counts(self) -> tuple[IntArray, IntArray]:
        """(M, T) finished and failed runs."""
        return self.cells.finished.sum(axis=2), self.cells.failed.sum(axis=2)

    @cached_property
    def covered(self) -> BoolArray:
        """(M, T) cells with an attempted run."""
        finished, failed = self.counts
        return np.asarray(finished + failed > 0)

    @cached_property
    def attempted(self) -> Board:
        """This board without the methods that were never attempted (all their runs skipped)."""
        names = [name for name, row in zip(self.cells.methods, self.covered, strict=True) if row.any()]
        return self if len(names) == len(self.cells.methods) else self.only(methods=names)

    @cached_property
    def gaps(self) -> FloatArray:
        """(M, T, S) utility of a finished run less that of the reference's run of the same seed, nan where none.

        Where the reference lacks the seed, less the reference's mean. A method
        is read on its task's scale at the reference's mean plus the mean of its
        gaps, so that runs equal to the reference's read exactly as the
        reference, whichever seeds they are.
        """
        u, base = self.cells.utility, self.cells.reference
        return u - np.where(np.isfinite(u[base]), u[base], self.means[base][:, None])

    @cached_property
    def _gap_arms(self) -> list[list[Arm]]:
        """Every task's arms by their gaps."""
        by_task = self.gaps.swapaxes(0, 1)
        return [[Arm(self.cells.seeds[np.isfinite(g)], g[np.isfinite(g)]) for g in gaps] for gaps in by_task]

    def _shared(self, t: int) -> FloatArray:
        """(M,) share of each arm's finished runs whose seeds the reference has."""
        finished = np.isfinite(self.gaps[:, t])
        both = finished & np.isfinite(self.cells.utility[self.cells.reference, t])
        return np.asarray(both.sum(axis=1) / np.maximum(finished.sum(axis=1), 1))

    @cached_property
    def paired_means(self) -> FloatArray:
        """(M, T) the reference's mean plus the mean of the method's gaps; `means` where the reference has none.

        Unlike `means` it does not depend on which of the reference's seeds a method was run on.
        """
        gaps = np.array([[arm.mean for arm in arms] for arms in self._gap_arms]).T
        base = self.means[self.cells.reference]
        return np.where(np.isfinite(base), base + gaps, self.means)

    @cached_property
    def _finished_values(self) -> FloatArray:
        columns = []
        for t, scale in enumerate(self.scales):
            rungs = np.array([arm.mean for arm in scale.arms])
            columns.append(scale.read(self.paired_means[:, t], rungs))
        return np.stack(columns, axis=1)

    @cached_property
    def values(self) -> FloatArray:
        """(M, T) value of every cell on its task's scale, larger is better.

        A failed run counts the scale's floor with its share of the attempts:
        (finished * value of their mean + failed * floor) / attempts.
        """
        finished, failed = self.counts
        floors = np.array([scale.floor for scale in self.scales])
        with np.errstate(invalid="ignore"):
            mixed = (finished * np.nan_to_num(self._finished_values) + failed * floors) / (finished + failed)
        value = np.where(failed == 0, self._finished_values, mixed)
        absent = floors if self.missing == "fail" else np.full_like(floors, np.nan)
        return np.where(self.covered, value, absent)

    @cached_property
    def run_values(self) -> FloatArray:
        """(M, T, S) value of every run, nan where none was attempted, the floor where it failed.

        A run is read at the reference's mean plus its gap, so that the
        reference's own runs are all exactly 0.
        """
        out = np.full(self.cells.utility.shape, np.nan)
        for t, scale in enumerate(self.scales):
            rungs = np.array([arm.mean for arm in scale.arms])
            paired = self.means[self.cells.reference, t] + self.gaps[:, t]
            out[:, t] = np.where(self.cells.failed[:, t], scale.floor, scale.read(paired, rungs))
        return out

    @cached_property
    def all_seeds(self) -> IntArray:
        """Seed indices of the cells and of the ladder."""
        seeds = {int(s) for s in self.cells.seeds}
        for scale in self.scales:
            seeds.update(int(s) for arm in scale.arms for s in arm.seeds)
        return np.array(sorted(seeds), dtype=np.int64)

    @cached_property
    def moves(self) -> FloatArray:
        """(M, T, 2 S') change of each value by each seed's deviation; squares sum to the value's variance.

        Each seed of `all_seeds` moves the means of all arms it ran in (method
        and ladder) at once, up and down, by its own deviation / sqrt(n): a step as
        long as the mean errs, so that a bend or the end of the scale within
        reach counts. The changes are divided by sqrt(2 (n - 1)), n the cell's
        finished runs; for a linear scale the squares sum to s^2 / n of what is
        left after pairing (the jackknife's variance, Efron and Stein 1981).
        At an end of the scale, where steps that way move nothing, the seeds move
        the value along the chord from the reference to it: it is no surer to
        differ from the reference's than the paired t of the scores themselves.
        nan where a cell has fewer than two finished runs and some spread is
        therefore unknown.
        """
        return np.stack([self._moves(t, scale) for t, scale in enumerate(self.scales)], axis=1)

    def _moves(self, t: int, scale: Scale) -> FloatArray:
        finished = self.counts[0][:, t]
        step = np.sqrt(np.maximum(finished - 1, 1))
        unknown = (finished == 1) | (self.counts[1][:, t] + finished == 1)
        unknown |= ~self.covered[:, t] & (self.missing == "leave")
        unknown[self.cells.reference] = False
        both = [self._with_failure_moves(t, scale, change) for change in self._moved(t, scale, step)]
        return np.where(unknown[:, None], np.nan, np.concatenate(both, axis=1) / np.sqrt(2.0))

    def _moved(self, t: int, scale: Scale, step: FloatArray) -> Iterator[FloatArray]:
        """(M, S') change of a task's values a step up, then down: `step` (M,) times each seed's share in the errors."""
        seeds, reference = self.all_seeds, self.arms[t][self.cells.reference]
        rungs = np.stack([arm.shifts(seeds) for arm in scale.arms], axis=-1)
        own, gap = self._gap_shifts(t), np.array([[arm.mean] for arm in self._gap_arms[t]])
        base, means = self._finished_values[:, t, None], np.array([arm.mean for arm in scale.arms])
        errors = step[:, None] * (own + np.outer(self._shared(t), reference.shifts(seeds)))
        low, high = scale.read(np.array([-np.inf, np.inf]), means)
        at_end, chord = (base <= low) | (base >= high), _chord(base, gap) * own
        lengths = [(length, step == length) for length in np.unique(step)]  # a ladder a length, not a method
        for way in (1.0, -1.0):
            moved = reference.mean + gap + way * errors
            change = np.empty_like(moved)
            for length, rows in lengths:
                there = scale.read(moved[rows], means + way * length * rungs)
                change[rows] = (there - base[rows]) / (way * length)
            yield np.where(at_end, chord, change)

    def _gap_shifts(self, t: int) -> FloatArray:
        """(M, S') `Arm.shifts` of every method's gaps on a task, at once."""
        gaps = self.gaps[:, t]
        finished = np.isfinite(gaps)
        n = finished.sum(axis=1)[:, None]
        means = np.array([[arm.mean] for arm in self._gap_arms[t]])
        out = np.zeros((len(gaps), len(self.all_seeds)))
        shifts = np.where(finished & (n > 1), (gaps - means) / np.sqrt(np.maximum(n * (n - 1), 1)), 0.0)
        out[:, np.searchsorted(self.all_seeds, self.cells.seeds)] = shifts
        return out

    def _with_failure_moves(self, t: int, scale: Scale, change: FloatArray) -> FloatArray:
        """`change` (M, S') of the finished runs' values, where failed runs weigh in at the floor."""
        finished, failed = (count[:, t] for count in self.counts)
        base = self._finished_values[:, t]
        tries = finished + failed
        some = np.maximum(tries, 1)
        out = np.where(finished[:, None] == 0, 0.0, change * (finished / some)[:, None])
        mixed = (finished > 0) & (failed > 0)
        fall = np.where(mixed, scale.floor - base, 0.0) / np.sqrt(np.maximum(tries * (tries - 1), 1))
        at = np.searchsorted(self.all_seeds, self.cells.seeds)
        out[:, at] += np.where(self.cells.failed[:, t], (fall * finished / some)[:, None], 0.0)
        out[:, at] -= np.where(self.cells.finished[:, t], (fall * failed / some)[:, None], 0.0)
        return out

    @cached_property
    def variances(self) -> FloatArray:
        """(M, T) variance over seeds of each value, by exactly rounded sums; nan where unknown."""
        squares = self.moves**2
        return np.array([[math.fsum(cell) for cell in row] for row in squares.tolist()])

    @cached_property
    def freedom(self) -> IntArray:
        """(M, T) degrees of freedom of each value's variance: finished runs - 1, at least 1."""
        finished, failed = self.counts
        return np.maximum(np.where(finished > 0, finished, finished + failed) - 1, 1)

    def cell_bounds(self) -> FloatArray:
        """(M, T, 2) interval of every cell's value by the Student multiplier bootstrap over seeds.

        Method and ladder are drawn together (see `StudentMultipliers`); nan
        where a cell has fewer than two finished runs.
        """
        out = np.full((*self.values.shape, 2), np.nan)
        tails = [0.5 - 0.5 * self.level, 0.5 + 0.5 * self.level]
        for t, scale in enumerate(self.scales):
            multipliers = StudentMultipliers(self.rounds, self.seed, self.cells.tasks[t])
            rungs = np.stack([arm.draws(multipliers) for arm in scale.arms], axis=-1)
            arms, share = self._gap_arms[t], self._shared(t)
            reference = self.arms[t][self.cells.reference]
            together = reference.draws(multipliers) - reference.mean
            known = [m for m, arm in enumerate(arms) if len(arm.utility) > 1]
            if known:
                draws = np.stack([reference.mean + arms[m].draws(multipliers) + share[m] * together for m in known])
                values = self._with_failures(t, known, scale.read(draws, rungs), multipliers)
                low, high = np.quantile(values, tails, axis=1)
                own = self.values[known, t]  # on a bent ladder with next to no spread all draws may lie on one side
                out[known, t] = np.stack([np.minimum(low, own), np.maximum(high, own)], axis=1)
            certain = [m for m in range(len(self.arms[t])) if self._floored(m, t)]
            out[certain, t] = scale.floor
            out[self.cells.reference, t] = self.values[self.cells.reference, t]
        return out

    def _floored(self, m: int, t: int) -> bool:
        """Whether the cell is at the floor by rule: every one of several runs failed, or none counts as failed."""
        finished, failed = int(self.counts[0][m, t]), int(self.counts[1][m, t])
        return finished == 0 and (failed > 1 or (failed == 0 and self.missing == "fail"))

    def _with_failures(
        self, t: int, known: list[int], values: FloatArray, multipliers: StudentMultipliers
    ) -> FloatArray:
        """Draws (len(known), R) of cell values with the share of failed runs drawn too."""
        scale, out = self.scales[t], values.copy()
        for row, m in enumerate(known):
            failed = self.cells.failed[m, t]
            if not failed.any():
                continue
            tried = self.cells.attempted[m, t]
            outcome = np.where(failed, scale.floor, self._finished_values[m, t])[tried]
            shift = multipliers.means(outcome, self.cells.seeds[tried]) - np.mean(outcome)
            share = float(np.sum(failed)) / len(outcome)
            out[row] = np.clip((1 - share) * values[row] + share * scale.floor + shift, scale.floor, -scale.floor)
        return out

    def suite_values(self) -> FloatArray:
        """(M,) mean value over the covered tasks, by exactly rounded sums; nan where none is covered."""
        return np.array([exact_mean(row[np.isfinite(row)]) for row in self.values])


def _chord(value: FloatArray, gap: FloatArray) -> FloatArray:
    """Slope (M, 1) of the line from the reference, where both are 0, to `value` (M, 1) at `gap` (M, 1)."""
    with np.errstate(invalid="ignore"):
        return np.divide(value, gap, out=np.zeros_like(gap), where=gap != 0)


def as_board(table: pd.DataFrame | Board, ladder: pd.DataFrame | None = None) -> Board:
    """`table` itself when it is a board, else the board of that runs table and ladder."""
    if not isinstance(table, Board):
        return Board.of(table, ladder)
    if ladder is not None:
        raise ValueError("a board has its ladder already: give the runs table, or the board alone")
    return table


def others(board: Board) -> list[int]:
    """Indices of the methods that are not the reference."""
    return [m for m, name in enumerate(board.cells.methods) if name != REFERENCE]
