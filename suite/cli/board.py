"""``levelfield board``: results in, a static site out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def board(
    results: Annotated[list[Path] | None, typer.Argument(help="Results folders; default: results.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the site.")] = Path("leaderboard/site"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when a rebuild would differ.")] = False,
    top: Annotated[int, typer.Option(help="Best methods a task to print.")] = 3,
) -> None:
    """Write the leaderboard: index, a page a task and a method."""
    from leaderboard.site import differences, top_lines, write
    from suite.store.files import read

    found = read(results or [Path("results")])
    for problem in found.problems:
        sys.stderr.write(f"levelfield: set aside: {problem}\n")
    if check:
        changed = differences(found, out)
        for path in changed[:20]:
            sys.stdout.write(f"differs: {path}\n")
        sys.stdout.write(f"{len(changed)} files differ from a rebuild\n" if changed else "the site is up to date\n")
        raise typer.Exit(1 if changed else 0)
    if not found.table.num_rows:
        raise ValueError(f"no results in {', '.join(map(str, results or ['results']))}; `levelfield run` makes some")
    write(found, out)
    for line in top_lines(found, top):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"\nboard: {(out / 'index.html').resolve().as_uri()}\n")
