"""``levelfield data``: the real data sets, where they are and how to get them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from suite.cli.show import print_json, print_table

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, get and check the real data sets.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EXIT_NO_DATA = 3


@app.command("list")
def list_(json: Json = False) -> None:
    """List the data sets and where each is."""
    from suite.data import DATASETS, locate

    rows: list[dict[str, Any]] = [
        {"name": d.name, "where": str(locate(d.name) or "not in the data root"), "terms": d.terms, "summary": d.summary}
        for d in DATASETS.values()
    ]
    if json:
        print_json(rows)
    else:
        print_table(rows, {k: k for k in ("name", "where", "terms", "summary")})


@app.command("get")
def get_(name: Annotated[str, typer.Argument(help="A data set.")]) -> None:
    """Read a data set into the cache, downloading it where there is no copy in the data root."""
    from suite.data import DataUnavailable, get

    try:
        folder = get(name)
    except DataUnavailable as error:
        sys.stderr.write(f"levelfield: {error}\n")
        raise typer.Exit(EXIT_NO_DATA) from None
    sys.stdout.write(f"{name}: ready ({folder or 'from the Hub or the cache'})\n")


@app.command("check")
def check_(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; default: all in the data root.")] = None,
    json: Json = False,
) -> None:
    """Hold the files of the data root against their known sums; exit code 1 for a damaged one, 3 for a missing one."""
    from suite.data import DATASETS, check, locate

    chosen = names or [name for name in DATASETS if locate(name)]
    states = {name: check(name) for name in chosen}
    if json:
        print_json(states)
    else:
        for name, files in states.items():
            for file, state in files.items():
                sys.stdout.write(f"{state:<8} {name}/{file}\n")
        if not states:
            sys.stdout.write("no data set in the data root; set LEVELFIELD_DATA\n")
    found = {state for files in states.values() for state in files.values()}
    raise typer.Exit(1 if "damaged" in found else EXIT_NO_DATA if "missing" in found or not states else 0)
