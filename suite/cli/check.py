"""``levelfield check``: contracts, a smoke run and a preview row, before a pull request."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import suite
from suite.cli.show import print_json, print_table
from suite.registry import Method, TaskInfo, add_entry_file, registry
from suite.trust.sandbox import HELP, Sandbox, choose

if TYPE_CHECKING:
    from suite.runner.spec import RunSpec

# What went wrong, as an exit code. 2 is a file or name that cannot be read.
CODES = {
    "passed": 0, "broken": 10, "timeout": 11, "memory": 12, "crashed": 13, "smoke": 14, "nondeterministic": 15,
    "shape": 16, "dtype": 17, "in-place": 18, "not-finite": 19, "state": 20, "output": 21, "clock": 22, "network": 23,
    "forbidden": 24, "name": 25,
}  # fmt: skip
RUN_LIMIT = 20.0


def check(
    target: Annotated[str, typer.Argument(help="A method's name, or a Python file that registers methods.")],
    sandbox: Annotated[str, typer.Option(help=HELP)] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a method: its source, contracts of its slot, smoke runs, a preview row; under a minute.

    Exit codes: 0 passed, 2 cannot be read, 10 a contract is broken, 11 a time
    limit, 12 a memory limit, 13 the process died, 14 a smoke run failed, 15
    the same seed gave two results, 16 a wrong shape, 17 a wrong dtype, 18 the
    input changed in place, 19 not finite, 20 hidden state, 21 endless output,
    22 reads the clock, 23 reaches for the network, 24 other things that a
    method has no use for, 25 looks at the task's name.
    """
    methods = _targets(target)
    held = choose(sandbox)
    reports = [_report(method, held) for method in methods]
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


def _report(method: Method, sandbox: Sandbox) -> dict[str, Any]:
    from suite.checker import check_contracts, check_source

    findings = check_source(method)
    if findings[0].verdict == "passed":
        findings += check_contracts(method.name, sandbox=sandbox)
    report: dict[str, Any] = {"method": method.name, "slot": method.slot, "verdict": "passed", "smoke": []}
    report["contracts"] = [vars(f) for f in findings]
    worst = next((f.verdict for f in findings if f.verdict != "passed"), "passed")
    if worst != "passed":
        return report | {"verdict": worst}
    return report | _smoke(method, sandbox)


def smoke_tasks(method: Method) -> list[TaskInfo]:
    """One embedded task a family that the method fits, at tier smoke."""
    chosen: dict[str, TaskInfo] = {}
    fitting = [t for t in suite.tasks() if method.fits(t) and "smoke" in t.tiers and not t.data]
    for task in sorted(fitting, key=lambda t: (t.tiers["smoke"].budget, t.name)):
        chosen.setdefault(task.family, task)
    return list(chosen.values())


def _smoke(method: Method, sandbox: Sandbox) -> dict[str, Any]:
    """Run the method and the reference once a family, and the first task once more, under another name.

    That run must be the same bit for bit: the method is deterministic and does
    not look at what it runs on. Where it is not, a third tells which it is.
    """
    from suite.runner.pool import Pool
    from suite.runner.spec import RunSpec

    tasks = smoke_tasks(method)
    if not tasks:
        return {"verdict": "smoke", "smoke": [], "message": "no embedded task declares its slot for its families"}
    specs = [RunSpec(t.name, m, "smoke") for t in tasks for m in ("reference", method.name)]
    with tempfile.TemporaryDirectory(prefix="levelfield-check-") as folder:
        Pool(Path(folder, "a"), limit=RUN_LIMIT, sandbox=sandbox).run(specs)
        first, spec = suite.load_results(Path(folder, "a")), specs[1]

        def again(name: str, masked: bool) -> str:
            Pool(Path(folder, name), limit=RUN_LIMIT, sandbox=sandbox, masked=masked).run([spec])
            return _digest(suite.load_results(Path(folder, name)), spec)

        digests = [_digest(first, spec), again("b", masked=True)]
        if digests[0] != digests[1]:
            digests.append(again("c", masked=False))
    rows = [_preview(first, task, method) for task in tasks]
    good = [r["status"] == "ok" for r in rows]
    honest = all(r["status"] in ("ok", "diverged") for r in rows)  # divergence at the default is a result
    verdict = "passed" if any(good) and honest else "smoke"
    if verdict == "passed" and digests[0] != digests[1]:
        verdict = "name" if digests[0] == digests[2] else "nondeterministic"
        why = {
            "name": f"another result on {spec.task} when that has another name: it looks at what it runs on",
            "nondeterministic": f"the same seed gave two results on {spec.task}",
        }
        return {"verdict": verdict, "smoke": rows, "message": why[verdict]}
    return {"verdict": verdict, "smoke": rows}


def _digest(frame: Any, spec: RunSpec) -> str:
    return str(frame[frame["run_id"] == spec.run_id]["digest"].iloc[0])


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
