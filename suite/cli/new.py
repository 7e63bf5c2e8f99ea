"""``levelfield new``: a file to start a method from."""

from __future__ import annotations

import keyword
import sys
from pathlib import Path
from typing import Annotated

import typer

from suite.cli.scaffold import TEMPLATES
from suite.registry import UnknownName, registry
from suite.slots import SLOTS


def new(
    slot: Annotated[str, typer.Argument(help="The slot it fills.")],
    name: Annotated[str, typer.Argument(help="Its name: lower case, '-' between words.")],
    folder: Annotated[Path, typer.Option(help="Where the file goes.")] = Path("."),
) -> None:
    """Write a file that works already; fill in the formula, then `levelfield check FILE`."""
    if slot not in SLOTS:
        raise UnknownName(f"no slot named {slot!r}; slots: {', '.join(SLOTS)}")
    if slot not in TEMPLATES:
        raise ValueError(f"no template for slot {slot!r} yet; signature: {SLOTS[slot].signature}")
    if name in registry().methods:
        raise ValueError(f"{name!r} is taken ({registry().method(name).path}); choose another name")
    if not name.strip("-") or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
        raise ValueError(f"a name is lower-case letters, digits and '-', got {name!r}")
    path = folder / f"{name.replace('-', '_')}.py"
    if path.exists():
        raise ValueError(f"{path} is there already")
    cls = "".join(part.capitalize() for part in name.split("-"))
    function = name.replace("-", "_")
    cls, function = (word if _usable(word) else f"_{word}" for word in (cls, function))
    path.write_text(TEMPLATES[slot].format(name=name, cls=cls, function=function))
    sys.stdout.write(f"{path}: fill in the formula and the paper, then: levelfield check {path}\n")


def _usable(word: str) -> bool:
    """Whether a class or function may have this name."""
    return word.isidentifier() and not keyword.iskeyword(word)
