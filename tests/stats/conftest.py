"""Builders of small boards with a known truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

BUDGETS = (0.25, 0.5, 1.0, 2.0, 4.0)


def frame_of(scores: Mapping[str, Mapping[str, Sequence[float | None]]], direction: str = "min") -> pd.DataFrame:
    """Runs table from {task: {method: [score of seed 0, 1, ...]}}; None is a failed run."""
    rows = [
        (task, method, seed, "diverged" if score is None else "ok", np.nan if score is None else score, direction, "")
        for task, methods in scores.items()
        for method, values in methods.items()
        for seed, score in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["task", "method", "seed", "status", "score", "direction", "family"])


def ladder_of(scores: Mapping[str, Mapping[float, Sequence[float]]]) -> pd.DataFrame:
    """Ladder table from {task: {budget: [score of seed 0, 1, ...]}}."""
    rows = [
        (task, budget, seed, "ok", score)
        for task, rungs in scores.items()
        for budget, values in rungs.items()
        for seed, score in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["task", "budget", "seed", "status", "score"])


def simulated(
    log2_effects: Mapping[str, Sequence[float]],
    seeds: int,
    *,
    noise: float = 0.02,
    shared: float = 0.6,
    fail: float = 0.0,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs and ladder whose true log2 speedups are `log2_effects`: method -> one value a task.

    Scores are 0.5 - 0.1 log2(budget) plus noise, a share of which (`shared`, in
    sd) belongs to the seed and is common to every run of it.
    """
    rng = np.random.default_rng(seed)
    tasks = len(next(iter(log2_effects.values())))
    names = [f"t{t:04d}" for t in range(tasks)]
    common = rng.normal(0, noise * shared, (tasks, seeds))
    own = noise * np.sqrt(1 - shared**2)

    def frame(centre: np.ndarray) -> pd.DataFrame:
        score = centre[:, None] + common + rng.normal(0, own, (tasks, seeds))
        return pd.DataFrame(
            {
                "task": np.repeat(names, seeds),
                "seed": np.tile(np.arange(seeds), tasks),
                "status": "ok",
                "score": score.ravel(),
            }
        )

    effects = {"reference": np.zeros(tasks), **{k: np.asarray(v, dtype=float) for k, v in log2_effects.items()}}
    parts = []
    for method, log2 in effects.items():
        part = frame(0.5 - 0.1 * log2).assign(method=method, direction="min", family="vision")
        if fail and method != "reference":
            lost = rng.random(len(part)) < fail
            part.loc[lost, "status"] = "diverged"
            part.loc[lost, "score"] = np.nan
        parts.append(part)
    rungs = [frame(np.full(tasks, 0.5 - 0.1 * np.log2(b))).assign(budget=b) for b in BUDGETS]
    return pd.concat(parts, ignore_index=True), pd.concat(rungs, ignore_index=True)


@pytest.fixture(scope="session")
def runs_of() -> Callable[..., pd.DataFrame]:
    return frame_of


@pytest.fixture(scope="session")
def rungs_of() -> Callable[..., pd.DataFrame]:
    return ladder_of


@pytest.fixture(scope="session")
def simulate() -> Callable[..., tuple[pd.DataFrame, pd.DataFrame]]:
    return simulated


@pytest.fixture(scope="session")
def mixed_board() -> tuple[pd.DataFrame, pd.DataFrame]:
    """7 methods, 6 tasks, 4 seeds, some failed runs."""
    rng = np.random.default_rng(3)
    effects = {f"m{i}": np.clip(rng.normal(0.15 * i - 0.3, 0.3, 6), -2, 2) for i in range(6)}
    return simulated(effects, 4, fail=0.08, seed=4)
