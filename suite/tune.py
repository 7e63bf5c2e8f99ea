"""Tuning: the same number of trials for every method, chosen on validation, reported on test.

Trials come from one shared scrambled Sobol sequence, a pure function of the
space and the index. They run on a seed of their own; the chosen one is run
again on the reported seeds, so that no score is selected on itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from suite.recipe import is_learning_rate
from suite.registry import Method, TaskInfo
from suite.runner.spec import RunSpec
from suite.space import Domain, LogUniform

TUNING_SEED = 1_000_000  # seed index of every trial; reported runs use small ones
MAX_DIMENSIONS = 64
_SEQUENCE_SEED = 20_260_101


@functools.lru_cache(maxsize=8)
def _sequence(count: int) -> np.ndarray:
    """(count, MAX_DIMENSIONS) points of the shared sequence; a longer one begins with a shorter one."""
    from scipy.stats import qmc

    sampler = qmc.Sobol(MAX_DIMENSIONS, scramble=True, seed=_SEQUENCE_SEED)
    return sampler.random_base2(math.ceil(math.log2(max(count, 2))))[:count]


def space_on(task: TaskInfo, method: Method) -> dict[str, Domain]:
    """The method's space with its learning rates on the task's scale, by name."""
    scaled: dict[str, Domain] = {}
    for name, domain in sorted(method.space.items()):
        if is_learning_rate(name) and isinstance(domain, LogUniform):
            domain = domain.scaled(task.lr_scale)
        scaled[name] = domain
    return scaled


def trial(space: Mapping[str, Domain], index: int) -> dict[str, Any]:
    """Hyper-parameters of trial `index`: the point's coordinates in the order of the names.

    Raises
    ------
    ValueError : a negative index or a space of more than 64 dimensions.
    """
    if index < 0 or len(space) > MAX_DIMENSIONS:
        raise ValueError(f"trial {index} of a space of {len(space)} dimensions; indices start at 0, at most 64 names")
    point = _sequence(2 ** math.ceil(math.log2(index + 2)))[index]
    return {name: domain.at(float(u)) for (name, domain), u in zip(sorted(space.items()), point, strict=False)}


def trial_specs(task: TaskInfo, method: Method, tier: str, trials: int, device: str = "cpu") -> list[RunSpec]:
    """The method's trials on a task; a method without a space has one, its defaults."""
    space = space_on(task, method)
    count = trials if space else 1
    return [
        RunSpec(task.name, method.name, tier, TUNING_SEED, trial(space, i), trial=i, trials=trials, device=device)
        for i in range(count)
    ]


def select(task: TaskInfo, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The trial with the best validation score; failed trials never win, ties go to the first.

    Parameters
    ----------
    rows : result rows of one method's trials.

    Returns
    -------
    The row, or None when every trial failed.
    """
    sign = task.metric.sign
    good = [r for r in rows if r["status"] == "ok" and math.isfinite(r["val_score"])]
    return min(good, key=lambda r: (sign * r["val_score"], r["trial"]), default=None)


def final_specs(chosen: Mapping[str, Any], seeds: Sequence[int], set_hp: Mapping[str, Any]) -> list[RunSpec]:
    """The chosen trial's configuration on the reported seeds."""
    if TUNING_SEED in seeds:
        raise ValueError(f"seed {TUNING_SEED} is the tuning seed; report on others")
    device = "cpu" if '"device": "cpu"' in chosen["environment"] else "cuda"
    return [
        RunSpec(
            chosen["task"], chosen["method"], chosen["tier"], seed, dict(set_hp),
            trial=int(chosen["trial"]), trials=int(chosen["trials"]), device=device,
        )
        for seed in seeds
    ]  # fmt: skip
