"""``levelfield results``: validate, merge, compact and query result folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli.show import print_json, print_table

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Validate, merge, compact and query result folders."
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def validate(folders: Annotated[list[Path], typer.Argument(help="Results folders.")], json: Json = False) -> None:
    """Read every file, name what is damaged; exit code 1 when something is."""
    from suite.store.files import read

    found = read(folders)
    if json:
        print_json({"files": found.files, "rows": found.table.num_rows, "problems": found.problems})
    else:
        for problem in found.problems:
            sys.stdout.write(f"damaged: {problem}\n")
        sys.stdout.write(f"{found.files} files, {found.table.num_rows} runs, {len(found.problems)} set aside\n")
    if found.problems:
        raise typer.Exit(1)


@app.command()
def compact(
    source: Annotated[Path, typer.Argument(help="Results folder to read.")],
    into: Annotated[Path, typer.Option(help="Folder of compact files.")] = Path("results"),
    ours: Annotated[
        bool, typer.Option("--ours", help="All of it was run here, by `levelfield run`: it counts as reproduced.")
    ] = False,
) -> None:
    """Write one immutable file per (tier, task, method@hash), and each method's source.

    Exit code 1 when a file was set aside. Rows keep their trust level; --ours is
    for whoever ran them and answers for it.
    """
    from suite.store.files import compact as write
    from suite.store.files import read
    from suite.store.schema import FIRST_HAND

    problems = read(source).problems
    files = write(source, into, FIRST_HAND if ours else "")
    _keep_sources(files, into)
    for problem in problems:
        sys.stderr.write(f"levelfield: set aside: {problem}\n")
    size = sum(f.stat().st_size for f in files)
    sys.stdout.write(f"{len(files)} files, {size / 1024:.0f} kB in {into}\n")
    if problems:
        raise typer.Exit(1)


def _keep_sources(files: list[Path], into: Path) -> None:
    """Keep the source of every method whose results were written and that is still registered as it was."""
    from suite.fingerprint import method_hash
    from suite.registry import registry
    from suite.trust.bundle import keep_source

    for stem in sorted({file.stem for file in files}):
        name, _, code = stem.rpartition("@")
        method = registry().methods.get(name)
        if method is not None and method_hash(method) == code:
            keep_source(method, into)


@app.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Results folders.")],
    into: Annotated[Path, typer.Option(help="Folder of compact files that receives them.")],
) -> None:
    """Unite folders; order and repetition make no difference."""
    from suite.store.files import compact as write
    from suite.store.files import read

    problems = read(sources).problems
    for source in sources:
        write(source, into)
    for problem in problems:
        sys.stderr.write(f"levelfield: set aside: {problem}\n")
    sys.stdout.write(f"{read(into).table.num_rows} runs in {into}\n")
    if problems:
        raise typer.Exit(1)


@app.command()
def query(
    folder: Annotated[Path, typer.Argument(help="Results folder.")],
    where: Annotated[str, typer.Option(help="pandas expression, such as: task == 'dyck-gpt' and status == 'ok'")] = "",
    columns: Annotated[str, typer.Option(help="Columns, comma-separated.")] = (
        "task,method,tier,seed,status,score,metric,spent,train_seconds,cost_ratio"
    ),
    limit: Annotated[int, typer.Option(help="Rows at most; 0: all.")] = 0,
    json: Json = False,
) -> None:
    """Print result rows."""
    import suite

    frame = suite.load_results(folder)
    wanted = [c.strip() for c in columns.split(",") if c.strip()]
    unknown = sorted(set(wanted) - set(frame.columns))
    if unknown:
        raise ValueError(f"no column {', '.join(unknown)}; columns: {', '.join(frame.columns)}")
    if where:
        try:
            frame = frame.query(where, engine="python")
        except Exception as error:
            raise ValueError(f"--where {where!r}: {error}") from None
    rows: list[dict[str, Any]] = frame[wanted].head(limit or len(frame)).to_dict("records")
    if json:
        print_json(rows)
    else:
        print_table(rows, {c: c for c in wanted})
