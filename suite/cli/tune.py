"""``levelfield tune``: trials at equal counts, chosen on validation, reported on test."""

from __future__ import annotations

import json as jsonlib
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import suite
from suite.cli.run import BackendName, finished, launch, parse_seeds, split
from suite.cli.show import print_json, print_table
from suite.recipe import REFERENCE
from suite.registry import Method, TaskInfo, registry

if TYPE_CHECKING:
    import pandas as pd

    from suite.stats import Interval

BEST_OF = (1, 2, 5, 20)
WITHIN = 0.05  # of the best score's size, where the task's noise is not measured


def tune(
    tasks: Annotated[str, typer.Option(help="Names, comma-separated.")],
    methods: Annotated[str, typer.Option(help="Names, comma-separated; default: all that fit.")] = "",
    slot: Annotated[str, typer.Option(help="All methods of this slot, in place of --methods.")] = "",
    trials: Annotated[int, typer.Option(help="Trials of every method.")] = 8,
    seeds: Annotated[str, typer.Option(help="Seeds the chosen trial is reported on.")] = "3",
    tier: Annotated[str, typer.Option(help="Tier.")] = "quick",
    within: Annotated[
        float, typer.Option(help="Distance to the best that counts as good, in the metric; default: 2 seed sd, or 5%.")
    ] = 0.0,
    out: Annotated[Path, typer.Option(help="Results folder.")] = Path("runs"),
    workers: Annotated[int, typer.Option(help="Runs at once; default: one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda[:n].")] = "cpu",
    backend: BackendName = "local",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search every method's space with the same number of trials; choose on validation, report on test.

    Beside the chosen trial's scores stand what fewer trials would have given
    (expected best of k, from the trials that were made) and how wide the good
    region of the space is.
    """
    from suite.runner.spec import plan
    from suite.runner.stored import load_plan
    from suite.tune import trial_specs

    if trials < 1:
        raise ValueError(f"--trials takes a count of at least 1, got {trials}")
    where = [registry().task(name) for name in split(tasks)]
    chosen = [registry().method(n) for n in split(methods)] or suite.methods(slot or None)
    pairs = [(t, m) for t in where for m in chosen if m.fits(t) and tier in t.tiers]
    if not pairs:
        raise ValueError("nothing to tune: no chosen method fits a chosen task at this tier")
    searched = [spec for t, m in pairs for spec in trial_specs(t, m, tier, trials, device)]
    finished(launch(searched, out, workers, quiet=json, backend=backend))
    rows = load_plan(out, searched)
    final, notes = _final(pairs, rows, parse_seeds(seeds))
    base, _ = plan([t.name for t in where], [REFERENCE], tier, parse_seeds(seeds), device=device)
    finished(launch([*base, *final], out, workers, quiet=json, backend=backend))
    scores = _scores(load_plan(out, [*base, *final]), rows)
    curves, good = _worth(pairs, rows, tier, within)
    if json:
        print_json({"trials": trials, "rows": scores, "best_of_k": curves, "sensitivity": good, "notes": notes})
    else:
        _print(scores, curves, good, notes, trials)


def _of(rows: pd.DataFrame, task: TaskInfo, method: Method) -> pd.DataFrame:
    return rows[(rows["task"] == task.name) & (rows["method"] == method.name)]


def _final(
    pairs: Sequence[tuple[TaskInfo, Method]], rows: pd.DataFrame, seeds: list[int]
) -> tuple[list[Any], list[str]]:
    """The chosen trials on the reported seeds, and a sentence for each method that has none."""
    from suite.tune import final_specs, select

    final, notes = [], []
    for task, method in pairs:
        mine = _of(rows, task, method).to_dict("records")
        best = select(task, mine)
        if best is None:
            notes.append(f"{method.name} on {task.name}: all {len(mine)} trials failed")
        else:
            final += final_specs(best, seeds, jsonlib.loads(best["set_hp"]))
    return final, notes


def _scores(frame: pd.DataFrame, trials: pd.DataFrame) -> list[dict[str, Any]]:
    """The chosen trials' test scores on the reported seeds, best first, beside the frozen reference on the same."""
    table = []
    for (name, method), rows in frame.groupby(["task", "method"], sort=False):
        task = registry().task(name)
        good, base = _by_seed(rows), _by_seed(frame[(frame["task"] == name) & (frame["method"] == REFERENCE)])
        score = _interval(list(good.values()))
        both = [seed for seed in good if seed in base and method != REFERENCE]
        gain = _interval([task.metric.sign * (base[seed] - good[seed]) for seed in both])
        mine = trials[(trials["task"] == name) & (trials["method"] == method)]
        row = {"task": name, "method": method, "score": score.value, "low": score.low, "high": score.high}
        row |= {"sd": statistics.stdev(good.values()) if len(good) > 1 else None, "n": len(good)}
        row |= {"difference": gain.value, "difference_low": gain.low, "difference_high": gain.high}
        row |= {"failed": int((mine["status"] != "ok").sum())}
        table.append(row | {"hyper-parameters": rows.iloc[0]["set_hp"] if method != REFERENCE else ""})
    order = list(dict.fromkeys(frame["task"]))

    def key(row: dict[str, Any]) -> tuple[int, bool, float]:
        worse = registry().task(row["task"]).metric.sign * row["score"]
        return order.index(row["task"]), math.isnan(worse), worse

    return sorted(table, key=key)


def _by_seed(rows: pd.DataFrame) -> dict[int, float]:
    good = rows[rows["status"] == "ok"].sort_values("seed")
    return dict(zip(good["seed"].tolist(), good["score"].astype(float).tolist(), strict=True))


def _interval(values: list[float]) -> Interval:
    from suite.stats import NO_VALUES, t_interval

    return t_interval(values) if values else NO_VALUES


def _worth(
    pairs: Sequence[tuple[TaskInfo, Method]], rows: pd.DataFrame, tier: str, within: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What k trials are expected to give, and the share of the space that is good; of every searched method."""
    from suite.stats import best_of_k, sensitivity

    curves: list[dict[str, Any]] = []
    good: list[dict[str, Any]] = []
    for task, method in pairs:
        mine = _of(rows, task, method).sort_values("trial")
        ended = mine[mine["status"] == "ok"]
        if not method.space or ended.empty:
            continue
        validation, test = (mine[c].where(mine["status"] == "ok").to_numpy(float) for c in ("val_score", "score"))
        names = {"task": task.name, "method": method.name}
        found = best_of_k(validation, test, task.metric.direction, sorted({*BEST_OF, len(mine)}))
        curves += [names | row for row in found.to_dict("records")]
        distance, relative = _distance(task, tier, within)
        share = sensitivity(validation, distance, task.metric.direction, relative=relative)
        good.append(
            names
            | {"share": share.value, "low": share.low, "high": share.high, "trials": share.n}
            | {"within": distance, "unit": "of the best score" if relative else task.metric.unit}
        )
    return curves, good


def _distance(task: TaskInfo, tier: str, within: float) -> tuple[float, bool]:
    """How far from the best is still good, and whether it is a share of the best score."""
    noise = task.noise.get(tier)
    if within > 0:
        return within, False
    return (2 * noise.sd, False) if noise and noise.sd > 0 else (WITHIN, True)


def _print(
    scores: list[dict[str, Any]], curves: list[dict[str, Any]], good: list[dict[str, Any]], notes: list[str], count: int
) -> None:
    shown = [
        row
        | {"score": _with_interval(row["score"], row["low"], row["high"])}
        | {"gain": _with_interval(row["difference"], row["difference_low"], row["difference_high"], "+")}
        for row in scores
    ]
    columns = {"task": "task", "method": "method", "score": "test score", "n": "n", "gain": "to the reference"}
    title = f"best of {count} trials on seeds of their own; 95% intervals, differences paired by seed, + is better"
    print_table(shown, {**columns, "failed": "failed trials", "hyper-parameters": "chosen"}, title)
    if curves:
        table: dict[tuple[str, str], dict[str, Any]] = {}
        for row in curves:
            line = table.setdefault((row["task"], row["method"]), {"task": row["task"], "method": row["method"]})
            line[f"{row['k']}"] = _with_interval(row["expected"], row["low"], row["high"])
        ks = {f"{k}": f"best of {k}" for k in sorted({row["k"] for row in curves})}
        sys.stdout.write("\n")
        title = "expected test score of the trial chosen out of k (95% interval where the trials tell)"
        print_table(list(table.values()), {"task": "task", "method": "method", **ks}, title)
        shown = [
            row
            | {
                "share": _with_interval(row["share"], row["low"], row["high"]),
                "from": f"{row['within']:.3g} {row['unit']}",
            }
            for row in good
        ]
        sys.stdout.write("\n")
        title = "share of the search space whose validation score is close to the best"
        print_table(shown, {"task": "task", "method": "method", "share": "share", "from": "close is within"}, title)
    for note in notes:
        sys.stdout.write(f"{note}\n")


def _with_interval(value: float, low: float, high: float, sign: str = "") -> str:
    if math.isnan(value):
        return "-"
    return f"{value:{sign}.4g}" + ("" if math.isnan(low) else f" ({low:{sign}.4g} to {high:{sign}.4g})")
