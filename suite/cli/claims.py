"""``levelfield claims``: what papers claim against what the runs say."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suite.claims import Arm, ledger_words, read_ledger, select
from suite.cli.run import finished, launch, parse_seeds, reasons, split
from suite.cli.show import amount_text, interval_text, print_json, print_table, stored_rows, time_text

if TYPE_CHECKING:
    from suite.claim_runs import Plan
    from suite.claims import Judged
    from suite.effort import ProcessorTime, Step
    from suite.runner.spec import RunSpec
    from suite.stats.claims import ClaimVerdict

DETAILED = 12  # claims up to which the verdicts on single tasks are printed too
ORDER: tuple[ClaimVerdict, ...] = ("holds", "opposite", "does not separate", "not tested")


def claims(
    run: Annotated[bool, typer.Option("--run", help="Run what is missing first.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what is missing, cheapest first; run nothing.")
    ] = False,
    ids: Annotated[str, typer.Option(help="Claims, comma-separated, each with its variants; default: all.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds to run: a count or a list.")] = "5",
    hours: Annotated[
        float | None,
        typer.Option(min=0, help="With --run: processor hours to spend, cheapest claims first; default: all it takes."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Results folder; runs go there.")] = Path("runs"),
    results: Annotated[
        list[Path] | None, typer.Option(help="Further results folders to judge by; default: results, if there.")
    ] = None,
    ledger: Annotated[Path | None, typer.Option(help="Another ledger (TOML); default: the project's.")] = None,
    workers: Annotated[int, typer.Option(help="Runs at once; default: one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda[:n].")] = "cpu",
    cost: Annotated[float, typer.Option(help="Seconds to measure each method's step cost; 0: don't.")] = 1.5,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verdicts on papers' claims, with intervals: holds, does not separate, opposite, not tested."""
    from suite.claims import judge

    if hours is not None and not run:
        raise ValueError("--hours says how much --run may take: give both, or --dry-run alone for what all of it takes")
    chosen = select(read_ledger(ledger), split(ids))
    folders = [out, *(results if results is not None else [p for p in [Path("results")] if p.is_dir()])]
    why: list[str] = []
    if run or dry_run:
        from suite.claim_runs import plan
        from suite.effort import ProcessorTime, within

        stored = stored_rows(folders)
        needed, times = plan(chosen, parse_seeds(seeds), stored, device), ProcessorTime(stored)
        steps = needed.steps(times)
        if dry_run:
            _list_missing(needed, steps, times, json)
            return
        now = steps if hours is None else within(steps, hours)
        if not json:
            sys.stderr.write(f"missing: {amount_text(_specs(steps), times)}\n")
            if hours is not None:
                counts = f"{len(now)} of {len(steps)} comparisons"
                sys.stderr.write(f"within {hours:g} h: {counts}, {amount_text(_specs(now), times)}\n")
        finished(launch(_specs(now), out, workers, cost=cost, quiet=json))
        why = reasons(out, [spec for specs in needed.wanted.values() for spec in specs])
    judged = judge(chosen, stored_rows(folders))
    if json:
        print_json({"claims": [as_json(j) for j in judged], "not_finished": why})
    else:
        _report(judged, why)


def _specs(steps: Sequence[Step]) -> list[RunSpec]:
    """Their runs, those of a claim together: what is stopped has settled the claims before."""
    return [spec for step in steps for spec in step.specs]


def _list_missing(needed: Plan, steps: Sequence[Step], times: ProcessorTime, json: bool) -> None:
    """The missing runs of each claim, those first that need the least beside the ones before."""
    if json:
        found = []
        for step in steps:
            missing = needed.missing[step.name]
            seconds, unknown = times.total(missing)
            facts = {"claim": step.name, "seconds": seconds, "unknown": unknown, "so_far": step.seconds}
            found.append({**facts, "missing": [_spec_facts(spec) for spec in missing]})
        print_json(found)
        return
    rows = [
        {
            "claim": step.name,
            "time": amount_text(needed.missing[step.name], times),
            "so_far": "unknown" if math.isnan(step.seconds) else time_text(step.seconds),
            "runs": _runs_text(needed.missing[step.name]),
        }
        for step in steps
    ]
    print_table(rows, {"claim": "claim", "time": "missing", "so_far": "all so far", "runs": "runs"})
    sys.stdout.write(f"\nall claims together, no run twice: {amount_text(_specs(steps), times)}\n")


def _spec_facts(spec: RunSpec) -> dict[str, Any]:
    """What names a run."""
    return {"task": spec.task, "tier": spec.tier, "method": spec.method, "hp": dict(spec.hp), "seed": spec.seed}


def _runs_text(specs: Sequence[RunSpec]) -> str:
    """``markov-gpt: golu x5, gelu x2``."""
    arms: dict[str, Counter[str]] = {}
    for spec in specs:
        arms.setdefault(spec.task, Counter())[Arm(spec.method, spec.hp).label] += 1
    return "; ".join(
        f"{task}: {', '.join(f'{arm} x{count}' for arm, count in of.items())}" for task, of in arms.items()
    )


def as_json(judged: Judged) -> dict[str, Any]:
    """A claim with its verdicts and the ids of the runs behind them."""
    claim = judged.claim
    sides = {name: {"method": arm.method, "hp": dict(arm.hp)} for name, arm in claim.arms.items()}
    return {
        "id": claim.id,
        "paper": claim.paper.title,
        "arxiv": claim.paper.arxiv,
        "statement": claim.statement,
        "published": claim.published,
        **sides,
        "tier": claim.tier if sides else "",
        "metric": claim.metric,
        "direction": claim.direction,
        "verdict": judged.word,
        "why": judged.why,
        "q": judged.q,
        "total": vars(judged.total),
        "tasks": [vars(task) for task in judged.tasks],
        "runs": [vars(run) for run in judged.runs],
    }


def _report(judged: Sequence[Judged], why: Sequence[str]) -> None:
    tested = sorted((j for j in judged if j.claim.arms), key=lambda j: ORDER.index(j.word))
    columns = {
        "claim": "claim", "says": "says", "verdict": "verdict", "effect": "A - B, sd", "interval": "interval", "q": "q",
        "detectable": "detectable", "tasks": "tasks",
    }  # fmt: skip
    if tested:
        print_table([_row(j) for j in tested], columns)
    if len(tested) <= DETAILED:
        for found in tested:
            _details(found)
    untested = [j for j in judged if not j.claim.arms]
    if untested:
        sys.stdout.write("\n")
        print_table([{"claim": j.claim.id, "why": j.why} for j in untested], {"claim": "not tested", "why": "because"})
    sys.stdout.write(f"\n{_summary(judged)}\n")
    for reason in why:
        sys.stdout.write(f"not finished: {reason}\n")


def _summary(judged: Sequence[Judged]) -> str:
    counts = Counter(j.word for j in judged if j.claim.arms)
    waiting = counts.pop("not tested", 0)
    words = [f"{counts[word]} {word}" for word in ORDER if counts[word]]
    words += [f"{waiting} wait for runs (--run)"] if waiting else []
    claims_of = len({j.claim.id.partition("/")[0] for j in judged})
    untested = sum(not j.claim.arms for j in judged)
    found = f"{claims_of} claims, {untested} of which no task tests; comparisons: {', '.join(words) or 'none'}"
    among = ledger_words(judged)
    return f"{found}\n{among}" if among else found


def _row(judged: Judged) -> dict[str, Any]:
    total, claim = judged.total, judged.claim
    words = Counter(task.word for task in judged.tasks)
    tested = judged.word != "not tested"
    return {
        "claim": claim.id,
        "says": claim.prediction,
        "verdict": judged.word,
        "effect": total.difference,
        "interval": interval_text(total.low, total.high),
        "q": judged.q if claim.ordered else None,
        "detectable": total.detectable if tested else None,
        "tasks": ", ".join(f"{words[word]} {word}" for word in ORDER if words[word]) if tested else judged.why,
    }


def _details(judged: Judged) -> None:
    """Verdicts on the single tasks, in each task's unit."""
    claim = judged.claim
    columns = {
        "task": "task", "word": "verdict", "difference": "A - B", "interval": "interval", "n": "pairs", "p": "p",
        "detectable": "detectable", "margin": "margin", "failed": "failed, A and B",
    }  # fmt: skip
    if claim.ordered:
        del columns["margin"]
    rows = [
        {**vars(t), "interval": interval_text(t.low, t.high), "failed": f"{t.failed[0]}, {t.failed[1]}"}
        for t in judged.tasks
    ]
    sys.stdout.write(f"\n{claim.id}: {claim.statement}\n")
    if claim.published:
        sys.stdout.write(f"published: {claim.published}\n")
    print_table(rows, columns)
