"""``levelfield tune`` and ``levelfield reference``: trials at equal counts, and the reference's ladder."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import suite
from suite.cli.run import launch, parse_seeds, split
from suite.cli.show import print_json, print_table
from suite.recipe import REFERENCE
from suite.registry import registry

if TYPE_CHECKING:
    import pandas as pd

LADDER = (0.25, 0.5, 1.0, 2.0, 4.0)
Out = Annotated[Path, typer.Option(help="Results folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def tune(
    tasks: Annotated[str, typer.Option(help="Names, comma-separated.")],
    methods: Annotated[str, typer.Option(help="Names, comma-separated; default: all that fit.")] = "",
    slot: Annotated[str, typer.Option(help="All methods of this slot, in place of --methods.")] = "",
    trials: Annotated[int, typer.Option(help="Trials of every method.")] = 8,
    seeds: Annotated[str, typer.Option(help="Seeds the chosen trial is reported on.")] = "3",
    tier: Annotated[str, typer.Option(help="Tier.")] = "quick",
    out: Out = Path("runs"),
    workers: Annotated[int, typer.Option(help="Runs at once; default: one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda[:n].")] = "cpu",
    json: Json = False,
) -> None:
    """Search every method's space with the same number of trials; choose on validation, report on test."""
    from suite.runner.spec import plan
    from suite.tune import TUNING_SEED, final_specs, select, trial_specs

    if trials < 1:
        raise ValueError(f"--trials takes a count of at least 1, got {trials}")
    where = [registry().task(name) for name in split(tasks)]
    chosen = [registry().method(n) for n in split(methods)] or suite.methods(slot or None)
    pairs = [(t, m) for t in where for m in chosen if m.fits(t) and tier in t.tiers]
    if not pairs:
        raise ValueError("nothing to tune: no chosen method fits a chosen task at this tier")
    searched = [spec for t, m in pairs for spec in trial_specs(t, m, tier, trials, device)]
    launch(searched, out, workers, quiet=json)
    rows = suite.load_results(out / "runs")
    planned = {spec.run_id for spec in searched}
    rows = rows[rows["run_id"].isin(planned) & (rows["seed"] == TUNING_SEED)]
    final, notes = [], []
    for task, method in pairs:
        mine = rows[(rows["task"] == task.name) & (rows["method"] == method.name)].to_dict("records")
        best = select(task, mine)
        if best is None:
            notes.append(f"{method.name} on {task.name}: all {len(mine)} trials failed")
        else:
            final += final_specs(best, parse_seeds(seeds), jsonlib.loads(best["set_hp"]))
    base, _ = plan([t.name for t in where], [REFERENCE], tier, parse_seeds(seeds), device=device)
    launch([*base, *final], out, workers, quiet=json)
    frame = suite.load_results(out / "runs")
    frame = frame[frame["run_id"].isin({s.run_id for s in [*base, *final]})]
    _report(frame, rows, notes, trials, json)


def _report(frame: pd.DataFrame, trials: pd.DataFrame, notes: list[str], count: int, json: bool) -> None:
    table: list[dict[str, Any]] = []
    for (task, method), rows in frame.groupby(["task", "method"], sort=False):
        good = rows[rows["status"] == "ok"]["score"]
        mine = trials[(trials["task"] == task) & (trials["method"] == method)]
        table.append(
            {
                "task": task,
                "method": method,
                "score": float(good.mean()),
                "sd": float(good.std()) if len(good) > 1 else None,
                "n": len(good),
                "failed": int((mine["status"] != "ok").sum()),
                "hyper-parameters": rows.iloc[0]["set_hp"] if method != REFERENCE else "",
            }
        )
    if json:
        print_json({"trials": count, "rows": table, "notes": notes})
        return
    columns = {"task": "task", "method": "method", "score": "test score", "sd": "sd", "n": "n"}
    print_table(table, {**columns, "failed": "failed trials", "hyper-parameters": "chosen"}, f"best of {count} trials")
    for note in notes:
        sys.stdout.write(f"{note}\n")


def reference(
    task: Annotated[str, typer.Argument(help="Task name.")],
    tier: Annotated[str, typer.Option(help="Tier.")] = "quick",
    seeds: Annotated[str, typer.Option(help="A count or a list.")] = "5",
    out: Out = Path("runs"),
    workers: Annotated[int, typer.Option(help="Runs at once; default: one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda[:n].")] = "cpu",
    json: Json = False,
) -> None:
    """Train the frozen reference at 1/4, 1/2, 1, 2 and 4 budgets; derive the task's noise fields."""
    from suite.runner.spec import RunSpec

    info = registry().task(task)
    if tier not in info.tiers:
        raise suite.UnknownName(f"task {task!r} has no tier {tier!r}; it has: {', '.join(info.tiers)}")
    budget = info.tiers[tier].budget
    shares = {share: float(round(budget * share)) for share in LADDER}
    specs = [
        RunSpec(task, REFERENCE, tier, seed, budget=None if share == 1 else units, device=device)
        for seed in parse_seeds(seeds)
        for share, units in shares.items()
    ]
    launch(specs, out, workers, quiet=json)
    frame = suite.load_results(out / "runs")
    frame = frame[frame["run_id"].isin({s.run_id for s in specs})]
    facts = noise_facts(frame, budget, info.metric.sign)
    if json:
        print_json({"task": task, "tier": tier, **facts})
        return
    print_table(
        facts["ladder"], {"share": "budget", "mean": info.metric.name, "sd": "sd", "n": "n", "failed": "failed"}
    )
    sys.stdout.write(
        f"\nnoise: Noise(sd={facts['sd']:.3g}, floor=0.0, n={facts['n']})\n"
        f"a doubling of the budget is worth {facts['per_doubling']:.3g} {info.metric.unit}\n"
        "smallest difference that n paired seeds show with 80% power: "
        + ", ".join(f"{n}: {value:.3g}" for n, value in facts["detectable"].items())
        + "\n"
    )


def noise_facts(frame: pd.DataFrame, budget: float, sign: int) -> dict[str, Any]:
    """Noise fields of a task from its ladder.

    Returns
    -------
    ladder : mean, sd and n at each share of the budget.
    sd, n : seed standard deviation at the full budget, and seeds behind it.
    per_doubling : gain of the metric from half to the full budget, + is better.
    detectable : paired seeds -> difference shown with 80% power at 5%, two-sided,
        seeds taken as independent (pairing makes it smaller).
    """
    from suite.stats.power import minimum_detectable_effect

    ladder = []
    for units, rows in frame.groupby("budget"):
        good = rows[rows["status"] == "ok"]["score"]
        sd = float(good.std()) if len(good) > 1 else float("nan")
        cells = {"share": float(units) / budget, "mean": float(good.mean()), "sd": sd, "n": len(good)}
        ladder.append(cells | {"failed": int((rows["status"] != "ok").sum())})
    by_share = {round(r["share"], 2): r for r in ladder}
    full, half = by_share[1.0], by_share.get(0.5, {"mean": float("nan")})
    sd = full["sd"] * 2**0.5
    detectable = {n: minimum_detectable_effect(n, sd) if sd > 0 else sd for n in (3, 5, 10)}
    gain = sign * (half["mean"] - full["mean"])
    return {"ladder": ladder, "sd": full["sd"], "n": full["n"], "per_doubling": gain, "detectable": detectable}
