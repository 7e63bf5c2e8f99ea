"""``levelfield tasks``, ``methods`` and ``show``: metadata, without torch."""

from __future__ import annotations

import difflib
import sys
from typing import Annotated, Any

import typer

import suite
from suite.cli.show import method_facts, print_json, print_table, task_facts
from suite.registry import UnknownName, registry

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def tasks(
    family: Annotated[str | None, typer.Option(help="vision, language, pde or rlvr.")] = None, json: Json = False
) -> None:
    """List the tasks."""
    found = suite.tasks(family)
    if json:
        print_json([task_facts(t) for t in found])
        return
    rows: list[dict[str, Any]] = [
        {
            "name": t.name,
            "family": t.family,
            "metric": f"{t.metric.name} ({t.metric.unit}, {t.metric.direction})",
            "tiers": ", ".join(t.tiers),
            "data": t.data or "embedded",
            "title": t.title or t.summary,
        }
        for t in found
    ]
    print_table(rows, {k: k for k in ("name", "family", "metric", "tiers", "data", "title")})
    for t in registry().open_tasks.values():
        if family in (None, t.family):
            sys.stdout.write(f"\nalso {t.name}: {t.summary}\n")
    _report_problems()


def methods(
    slot: Annotated[str | None, typer.Option(help="One slot only.")] = None,
    task: Annotated[str | None, typer.Option(help="Only methods that fit this task.")] = None,
    json: Json = False,
) -> None:
    """List the methods."""
    found = suite.methods(slot)
    if task is not None:
        info = registry().task(task)
        found = [m for m in found if m.fits(info)]
    if json:
        print_json([method_facts(m) for m in found])
        return
    rows = [
        {
            "name": m.name,
            "slot": m.slot,
            "families": ", ".join(m.families) if len(m.families) < 4 else "all",
            "hp": ", ".join(f"{k}={v}" for k, v in m.defaults.items()),
            "paper": f"{m.paper.title} ({m.paper.arxiv})"
            if m.paper and m.paper.arxiv
            else getattr(m.paper, "title", ""),
        }
        for m in found
    ]
    print_table(rows, {"name": "name", "slot": "slot", "families": "families", "hp": "defaults", "paper": "paper"})
    _report_problems()


def show(name: Annotated[str, typer.Argument(help="A method, a task or a slot.")], json: Json = False) -> None:
    """Show one method, task or slot."""
    known = registry()
    if name in known.methods:
        _show_method(known.methods[name], json)
    elif (info := known.find_task(name)) is not None:
        _show_task(info, json)
    elif name in suite.SLOTS:
        slot = suite.SLOTS[name]
        facts = {"slot": slot.name, "signature": slot.signature, "summary": slot.summary}
        facts["methods"] = ", ".join(m.name for m in suite.methods(name))
        print_json(facts) if json else _print_facts(facts)
    else:
        near = difflib.get_close_matches(name, [*known.methods, *known.task_names(name), *suite.SLOTS], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `levelfield methods` and `levelfield tasks`"
        broken = "".join(f"\nnot read: {problem}" for problem in known.problems)
        raise UnknownName(f"no method, task or slot named {name!r}; {hint}{broken}")


def _show_method(method: suite.Method, json: bool) -> None:
    facts = method_facts(method) | {
        "doc": method.doc,
        "signature": suite.SLOTS[method.slot].signature,
        "tasks": [t.name for t in suite.tasks() if method.fits(t)],
    }
    if json:
        print_json(facts)
        return
    hp = [
        f"{k} = {v}" + (f"   ({facts['space'][k]})" if k in facts["space"] else "") for k, v in method.defaults.items()
    ]
    paper = f"{method.paper.title}  {method.paper.link}" if method.paper else "-"
    _print_facts(
        {
            "method": method.name,
            "slot": f"{method.slot}: {facts['signature']}",
            "paper": paper,
            "definition": method.confidence,
            "hyper-parameters": "\n".join(hp) or "none",
            "tasks": ", ".join(facts["tasks"]) or "none",
            "source": facts["source"],
        }
    )
    sys.stdout.write(f"\n{method.doc}\n")


def _show_task(task: suite.TaskInfo, json: bool) -> None:
    facts = task_facts(task) | {"doc": task.doc}
    if json:
        print_json(facts)
        return
    tiers = [f"{k}: {v.budget} {task.unit}, {v.evals} evaluations" for k, v in task.tiers.items()]
    noise = [f"{k}: {_noise(v)}" for k, v in task.noise.items()]
    recipe = [f"{k}: {v if isinstance(v, str) else f'{v[0]} {v[1]}'}" for k, v in task.recipe.items()]
    _print_facts(
        {
            "task": f"{task.name} (version {task.version}, {task.family})",
            "metric": f"{task.metric.name}, {task.metric.unit}, {task.metric.direction}",
            "floor": task.metric.floor,
            "slots": ", ".join(task.slots),
            "reference": "\n".join(recipe),
            "tiers": "\n".join(tiers),
            "noise": "\n".join(noise) or "not measured",
            "data": task.data or task.requires or "embedded",
            "source": facts["source"],
        }
    )
    sys.stdout.write(f"\n{task.doc}\n")


def _noise(noise: suite.Noise) -> str:
    worth = "" if noise.per_doubling is None else f"; a doubling of the budget is worth {noise.per_doubling:g}"
    return f"sd {noise.sd:g} over {noise.n} seeds{worth}"


def _print_facts(facts: dict[str, Any]) -> None:
    width = max(map(len, facts)) + 2
    for key, value in facts.items():
        first, *more = str("-" if value is None else value).split("\n")
        sys.stdout.write(f"{key:<{width}}{first}\n" + "".join(f"{'':<{width}}{line}\n" for line in more))


def _report_problems() -> None:
    for problem in registry().problems:
        sys.stderr.write(f"levelfield: not read: {problem}\n")
