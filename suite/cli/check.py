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
RUN_LIMIT = 40.0
TAKES = "check takes a method's name or a Python file that registers methods"


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
        if not Path(target).is_file():
            raise ValueError(f"{target} is {'a folder' if Path(target).is_dir() else 'not there'}; {TAKES}")
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
    """Run the method and the reference once a family, then the first task once more."""
    from suite.runner.spec import RunSpec

    tasks = smoke_tasks(method)
    if not tasks:
        return {"verdict": "smoke", "smoke": [], "message": "no embedded task declares its slot for its families"}
    specs = [RunSpec(t.name, m, "smoke") for t in tasks for m in ("reference", method.name)]
    frame = _made(specs, sandbox)
    rows = [_preview(frame, task, method) for task in tasks]
    good = [r["status"] == "ok" for r in rows]
    honest = all(r["status"] in ("ok", "diverged") for r in rows)  # divergence at the default is a result
    if not any(good) or not honest:
        return {"verdict": "smoke", "smoke": rows}
    return {"smoke": rows} | _repeat(specs[1], _row_of(frame, specs[1]), sandbox)


def _repeat(spec: RunSpec, first: dict[str, Any], sandbox: Sandbox) -> dict[str, Any]:
    """Make a run once more, its task under another name: it must be the same bit for bit.

    Then the method is deterministic and does not look at what it runs on.
    Where the run differs, a third tells which of the two it is.
    """
    again = _row_of(_made([spec], sandbox, masked=True), spec)
    if again["status"] in ("timeout", "oom"):
        message = f"made again, {spec.task} ended as {again['status']}: {again['message']}"
        return {"verdict": "smoke", "message": message}
    if again["digest"] == first["digest"]:
        return {"verdict": "passed"}
    third = _row_of(_made([spec], sandbox), spec)
    if third["digest"] == first["digest"]:
        ended = "" if again["status"] == "ok" else f" ({again['status']}: {again['message']})"
        message = f"another result{ended} on {spec.task} when that has another name: it looks at what it runs on"
        return {"verdict": "name", "message": message}
    return {"verdict": "nondeterministic", "message": f"the same seed gave two results on {spec.task}"}


def _made(specs: list[RunSpec], sandbox: Sandbox, masked: bool = False) -> Any:
    """Result rows of runs, made anew."""
    from suite.runner.pool import Pool

    with tempfile.TemporaryDirectory(prefix="levelfield-check-") as folder:
        Pool(Path(folder), limit=RUN_LIMIT, sandbox=sandbox, masked=masked).run(specs)
        return suite.load_results(Path(folder))


def _row_of(frame: Any, spec: RunSpec) -> dict[str, Any]:
    return frame[frame["run_id"] == spec.run_id].iloc[0].to_dict()


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
