"""``levelfield board``: results in, a static site out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

SITE = Path("leaderboard/site")


def board(
    results: Annotated[list[Path] | None, typer.Argument(help="Results folders; default: results.")] = None,
    out: Annotated[Path | None, typer.Option(help=f"Folder of the site; default: {SITE}.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when a rebuild would differ.")] = False,
    diff: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two results folders, OLD NEW: print which scores changed; --out keeps it as pages."),
    ] = None,
    top: Annotated[int, typer.Option(help="Best methods a task to print.")] = 3,
) -> None:
    """Write the leaderboard: index, a page a task and a method, coverage, failures, downloads."""
    if diff is not None:
        if results or check:
            raise ValueError("--diff takes its two folders itself; leave out other folders and --check")
        _diff(*diff, out)
        return
    from leaderboard.model import build
    from leaderboard.site import differences, top_lines, write
    from suite.store.files import read

    site = out or SITE
    folders = results or [Path("results")]
    found = read(folders)
    for problem in found.problems:
        sys.stderr.write(f"levelfield: set aside: {problem}\n")
    if check:
        changed = differences(found, site)
        for path in changed[:20]:
            sys.stdout.write(f"differs: {path}\n")
        sys.stdout.write(f"{len(changed)} files differ from a rebuild\n" if changed else "the site is up to date\n")
        raise typer.Exit(1 if changed else 0)
    if not found.table.num_rows:
        raise ValueError(f"no results in {', '.join(map(str, folders))}; `levelfield run` makes some")
    whole = build(found.table, found.problems)
    write(found, site, whole)
    for line in top_lines(whole, top):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"\nboard: {(site / 'index.html').resolve().as_uri()}\n")


def _diff(old: Path, new: Path, out: Path | None) -> None:
    from leaderboard.site import compare
    from suite.store.files import read, write_bytes

    before, after = read(old), read(new)
    for problem in (*before.problems, *after.problems):
        sys.stderr.write(f"levelfield: set aside: {problem}\n")
    markdown, page = compare(before, after, (str(old), str(new)))
    sys.stdout.write(markdown)
    if out is not None:
        write_bytes(out / "changes.md", markdown.encode())
        write_bytes(out / "changes.html", page)
