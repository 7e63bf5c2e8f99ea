"""The command ``levelfield``: one module a command, none imports torch before it must."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from suite.cli import (
    bench,
    board,
    check,
    claims,
    compare,
    data,
    gate,
    listing,
    new,
    reference,
    results,
    run,
    submit,
    tune,
    verify,
)
from suite.registry import RegistryError, add_entry_file

app = typer.Typer(
    name="levelfield",
    help="A level playing field for training methods: equal budgets, honest intervals, nothing lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _root(
    entry: Annotated[
        list[str] | None, typer.Option(help="A Python file with methods or tasks of your own; any command takes it.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from suite import __version__

        typer.echo(__version__)
        raise typer.Exit


app.command("tasks")(listing.tasks)
app.command("methods")(listing.methods)
app.command("show")(listing.show)
app.command("run")(run.run)
app.command("run-one")(run.run_one)
app.command("compare")(compare.compare)
app.command("tune")(tune.tune)
app.command("reference")(reference.reference)
app.add_typer(results.app, name="results")
app.add_typer(data.app, name="data")
app.command("board")(board.board)
app.command("claims")(claims.claims)
app.command("check")(check.check)
app.command("gate")(gate.gate)
app.add_typer(bench.app, name="bench")
app.command("new")(new.new)
app.command("submit")(submit.submit)
app.command("verify")(verify.verify)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; what a user did wrong is one message and exit code 2."""
    rest = _take_entries(list(sys.argv[1:] if arguments is None else arguments))
    try:
        app(rest, standalone_mode=True)
    except (RegistryError, ValueError, OSError) as error:
        fail(str(error))


def _take_entries(arguments: list[str]) -> list[str]:
    """Register every ``--entry FILE``, wherever it stands; the other arguments remain."""
    rest: list[str] = []
    while arguments:
        word = arguments.pop(0)
        if word == "--entry" or word.startswith("--entry="):
            file = word.partition("=")[2] or (arguments.pop(0) if arguments else "")
            try:
                add_entry_file(file)
            except RegistryError as error:
                fail(str(error))
        else:
            rest.append(word)
    return rest


def fail(message: str, code: int = 2) -> None:
    """Say what is wrong on standard error and end."""
    sys.stderr.write(f"levelfield: {message}\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
