"""``levelfield submit``: a method's source and results as one file that others can verify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import suite
from suite.cli.run import EXIT_NO_DATA, finished, launch, parse_seeds, split
from suite.recipe import REFERENCE
from suite.registry import registry

if TYPE_CHECKING:
    from suite.runner.spec import RunSpec


def submit(
    name: Annotated[str, typer.Argument(help="The method.")],
    tasks: Annotated[str, typer.Option(help="Names, comma-separated; default: every task it fits.")] = "",
    tier: Annotated[str, typer.Option(help="quick, standard or full.")] = "quick",
    seeds: Annotated[str, typer.Option(help="A count or a list.")] = "5",
    runs: Annotated[Path, typer.Option(help="Results folder; what it lacks is run first.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="The bundle; default: NAME@HASH.zip.")] = None,
    workers: Annotated[int, typer.Option(help="Runs at once; default: one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda[:n].")] = "cpu",
    cost: Annotated[float, typer.Option(help="Seconds to measure the method's step cost; 0: don't.")] = 1.5,
    author: Annotated[str, typer.Option(help="Whom to credit.")] = "",
    licence: Annotated[str, typer.Option(help="Terms of the source.")] = "",
) -> None:
    """Bundle a method's source, its rows and the reference's; `levelfield verify` runs a part of it again.

    Exit codes: 0 written, 2 what a submission may not contain, 3 data of some tasks are missing, 130 stopped.
    """
    from suite.runner.spec import plan
    from suite.store.files import write_bytes
    from suite.trust.bundle import make
    from suite.trust.static import check_method

    method = registry().method(name)
    offences = check_method(method)
    if offences:
        raise ValueError(f"{name} does what no method may: " + "; ".join(map(str, offences[:5])))
    where = split(tasks) or [t.name for t in suite.tasks() if tier in t.tiers and method.fits(t)]
    specs, notes = plan(where, [name], tier, parse_seeds(seeds), device=device)
    for note in notes:
        sys.stderr.write(f"levelfield: {note}\n")
    if not specs:
        raise ValueError(f"nothing to submit: {name} fits no chosen task at tier {tier!r}")
    rows = _rows(runs, finished(launch(specs, runs, workers, cost=cost)))
    mine = [r for r in rows if r["method"] == name]
    ran = {r["task"] for r in mine}
    if not mine:
        raise ValueError(f"no run of {name} could be made here: its data are missing; see `levelfield data`")
    data = make(method, mine, [r for r in rows if r["method"] == REFERENCE and r["task"] in ran], author, licence)
    target = out or Path(f"{name}@{mine[0]['method_hash']}.zip")
    write_bytes(target, data)
    failed = sum(r["status"] != "ok" for r in mine)
    sys.stdout.write(
        f"{target}: {name} on {len(ran)} task{'s' * (len(ran) > 1)}, {len(mine)} runs"
        f"{f' ({failed} failed)' if failed else ''}, {len(data) / 1024:.0f} kB\n"
        f"check it as its readers will: levelfield verify {target}\n"
    )
    raise typer.Exit(EXIT_NO_DATA if len(rows) < len(specs) else 0)


def _rows(runs: Path, specs: list[RunSpec]) -> list[dict[str, Any]]:
    """The plan's result rows; runs that lacked their data are left out."""
    from suite.store.files import read

    planned = {spec.run_id for spec in specs}
    rows = read(runs / "runs").table.to_pylist()
    return [r for r in rows if r["run_id"] in planned and r["status"] != "skipped"]
