"""``levelfield check``: contracts, a smoke run and a preview row, before a pull request."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

import suite
from suite.cli.show import print_json, print_table
from suite.registry import Method, TaskInfo, add_entry_file, registry

# What went wrong, as an exit code. 2 is a file or name that cannot be read.
CODES = {"passed": 0, "broken": 10, "timeout": 11, "memory": 12, "crashed": 13, "smoke": 14, "nondeterministic": 15}
RUN_LIMIT = 20.0


def check(
    target: Annotated[str, typer.Argument(help="A method's name, or a Python file that registers methods.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a method: contracts of its slot, smoke runs, a preview row; under a minute.

    Exit codes: 0 passed, 2 cannot be read, 10 a contract is broken, 11 a time
    limit, 12 a memory limit, 13 the process died, 14 a smoke run failed, 15
    the same seed gave two results.
    """
    methods = _targets(target)
    reports = [_report(method) for method in methods]
    if json:
        print_json(reports)
    else:
        for report in reports:
            _print(report)
    raise typer.Exit(max(CODES[report["verdict"]] for report in reports))


def _targets(target: str) -> list[Method]:
    if target.endswith(".py") or "/" in target:
        path = str(add_entry_file(target))
        known = registry()
        mine = [m for m in known.methods.values() if m.path == path]
        clashes = [str(p) for p in known.problems if path in str(p)]
        if clashes or not mine:
            raise ValueError("; ".join(clashes) or f"{target} registers no method")
        return mine
    return [registry().method(target)]


def _report(method: Method) -> dict[str, Any]:
    from suite.checker import check_contracts

    findings = check_contracts(method.name)
    report: dict[str, Any] = {"method": method.name, "slot": method.slot, "verdict": "passed", "smoke": []}
    report["contracts"] = [vars(f) for f in findings]
    worst = next((f.verdict for f in findings if f.verdict != "passed"), "passed")
    if worst != "passed":
        return report | {"verdict": worst}
    return report | _smoke(method)


def smoke_tasks(method: Method) -> list[TaskInfo]:
    """One embedded task a family that the method fits, at tier smoke."""
    chosen: dict[str, TaskInfo] = {}
    fitting = [t for t in suite.tasks() if method.fits(t) and "smoke" in t.tiers and not t.data]
    for task in sorted(fitting, key=lambda t: (t.tiers["smoke"].budget, t.name)):
        chosen.setdefault(task.family, task)
    return list(chosen.values())


def _smoke(method: Method) -> dict[str, Any]:
    """Run the method and the reference once a family, and the first task once more for determinism."""
    from suite.runner.pool import Pool
    from suite.runner.spec import RunSpec

    tasks = smoke_tasks(method)
    if not tasks:
        return {"verdict": "smoke", "smoke": [], "message": "no embedded task declares its slot for its families"}
    specs = [RunSpec(t.name, m, "smoke") for t in tasks for m in ("reference", method.name)]
    with tempfile.TemporaryDirectory(prefix="levelfield-check-") as folder:
        Pool(Path(folder, "a"), limit=RUN_LIMIT).run(specs)
        Pool(Path(folder, "b"), limit=RUN_LIMIT).run([RunSpec(tasks[0].name, method.name, "smoke")])
        first = suite.load_results(Path(folder, "a"))
        again = suite.load_results(Path(folder, "b"))
    rows = [_preview(first, task, method) for task in tasks]
    good = [r["status"] == "ok" for r in rows]
    honest = all(r["status"] in ("ok", "diverged") for r in rows)  # divergence at the default is a result
    verdict = "passed" if any(good) and honest else "smoke"
    mine = first[(first["method"] == method.name) & (first["task"] == tasks[0].name)]
    if verdict == "passed" and mine["digest"].iloc[0] != again["digest"].iloc[0]:
        verdict = "nondeterministic"
    return {"verdict": verdict, "smoke": rows}


def _preview(frame: Any, task: TaskInfo, method: Method) -> dict[str, Any]:
    row = frame[(frame["task"] == task.name) & (frame["method"] == method.name)].iloc[0]
    reference = frame[(frame["task"] == task.name) & (frame["method"] == "reference")].iloc[0]
    return {
        "task": task.name,
        "status": row["status"],
        "metric": task.metric.name,
        "score": row["score"],
        "reference": reference["score"],
        "seconds": row["train_seconds"],
        "message": row["message"],
    }


def _print(report: dict[str, Any]) -> None:
    sys.stdout.write(f"{report['method']} ({report['slot']})\n")
    for finding in report["contracts"]:
        mark = "ok  " if finding["verdict"] == "passed" else "FAIL"
        sys.stdout.write(f"  {mark} {finding['name'].replace('_', ' ')}")
        sys.stdout.write(f": {finding['message']}\n" if finding["message"] else "\n")
    if report["smoke"]:
        sys.stdout.write("  smoke runs (one seed, seconds long: they show that it works, not that it is better)\n")
        columns = ("task", "status", "metric", "score", "reference", "seconds", "message")
        print_table(report["smoke"], {c: c for c in columns})
    verdict = report["verdict"]
    sys.stdout.write(f"{report['method']}: {'passed' if verdict == 'passed' else f'FAILED ({verdict})'}")
    sys.stdout.write(f": {report['message']}\n" if report.get("message") else "\n")
