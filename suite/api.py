"""The Python API beyond metadata: tasks, single runs in this process, result frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.registry import registry
from suite.runner.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

    from suite.train.workload import Task


def task(name: str) -> Task:
    """A registered task, ready to use (imports torch).

    Returns
    -------
    A `suite.train.workload.Task`: ``.recipe`` is the frozen reference, ``.info``
    its stated facts; PDE tasks have ``.solution(points)``, the reference
    values at (n, d) points of the domain.

    Raises
    ------
    UnknownName : no such task; near names are suggested.
    """
    info = registry().task(name)
    return info.factory(info)


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes
    ----------
    status : "ok", "diverged", "error", "oom" or "skipped".
    message : why, where the status is not ok.
    metrics : all metrics on the test split; empty when not ok.
    curve : one row an evaluation: spent, steps, examples, seconds, train_loss, score.
    row : the complete result row, as stored.
    """

    status: str
    message: str
    metrics: dict[str, float]
    curve: pd.DataFrame
    row: dict[str, Any]

    @property
    def score(self) -> float | None:
        """The primary metric on the test split."""
        return self.row["score"]


def run(
    task: str,
    method: str = "reference",
    tier: str = "quick",
    seed: int = 0,
    *,
    hp: Mapping[str, Any] | None = None,
    budget: float | None = None,
    device: str = "cpu",
) -> RunResult:
    """Train one method on one task in this process and score it on the test split.

    Parameters
    ----------
    task, method, tier : names; `method` may be ``"reference"`` or ``"a+b"``.
    seed : seed index; the same index gives every method the same weights and data order.
    hp : hyper-parameters over the method's defaults; learning rates are absolute.
    budget : units of the task's budget; None takes the tier's.

    Raises
    ------
    UnknownName : no such task, method or tier. What goes wrong in training is a status.
    """
    import pandas as pd

    from suite.runner.execute import make_row, one_thread, train

    one_thread()
    spec = checked(RunSpec(task, method, tier, seed, dict(hp or {}), budget, device=device))
    outcome, predictions = train(spec)
    row = make_row(spec, outcome, predictions)
    curve = pd.DataFrame(row["curve"], columns=["spent", "steps", "examples", "seconds", "train_loss", "score"])
    return RunResult(row["status"], row["message"], dict(row["metrics"]), curve, row)


def checked(spec: RunSpec) -> RunSpec:
    """`spec`, when its task, tier, methods and hyper-parameters exist.

    Raises
    ------
    UnknownName, ValueError : what is wrong and what there is.
    """
    from suite.registry import UnknownName

    if spec.tier not in spec.info.tiers:
        raise UnknownName(f"task {spec.task!r} has no tier {spec.tier!r}; it has: {', '.join(spec.info.tiers)}")
    spec.recipe  # noqa: B018 (resolves every name)
    return spec


def load_results(folders: str | Path | Iterable[str | Path] = "results") -> pd.DataFrame:
    """All result rows below the folders, one row a run; curves are left to `load_curves`.

    The files that could not be read are named in ``frame.attrs["problems"]``.

    Returns
    -------
    pandas.DataFrame with the columns of `suite.store.schema.RUNS` except
    "curve"; "metrics" and "val_metrics" are dicts.
    """
    from suite.store.files import read

    result = read(folders)
    frame = result.table.drop_columns(["curve"]).to_pandas(maps_as_pydicts="strict")
    for column in ("metrics", "val_metrics"):
        frame[column] = [m or {} for m in frame[column]]
    frame.attrs["problems"] = result.problems
    return frame


def load_curves(folders: str | Path | Iterable[str | Path] = "results") -> pd.DataFrame:
    """All learning curves below the folders, one row an evaluation.

    Returns
    -------
    pandas.DataFrame with run_id, task, method, seed and the fields of a curve
    point: spent, steps, examples, seconds, train_loss, score.
    """
    import pandas as pd

    from suite.store.files import read

    table = read(folders).table.select(["run_id", "tier", "task", "method", "seed", "trial", "curve"])
    frame = table.to_pandas().explode("curve", ignore_index=True)
    frame = frame[frame["curve"].notna()].reset_index(drop=True)
    points = pd.DataFrame(
        list(frame.pop("curve")), columns=["spent", "steps", "examples", "seconds", "train_loss", "score"]
    )
    return frame.join(points)
