"""The page of a cell: every run of a method on a task, with configuration, curves and provenance."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from leaderboard import figures
from leaderboard.commands import cell_commands
from leaderboard.model import Board, Cell, Run, Sheet
from leaderboard.text import MISSING, count, hyperparameter_text, number
from suite.recipe import REFERENCE

MEGABYTE = 1e6
FAILED = ' class="failed reason"'


def _quote(text: str) -> str:
    return text if text.isalnum() else html.escape(text)


def cell_page(board: Board, sheet: Sheet, cell: Cell, mean: figures.Figure | None) -> dict[str, Any]:
    """What the page of a cell shows; the reference's has the runs of its ladder too.

    Parameters
    ----------
    mean : the cell's mean curve, shown where there are too many seeds for a line each.
    """
    runs = [*cell.runs, *(r for _, r in sheet.ladder if cell.method == REFERENCE)]
    curves = [figures.seed_curves(board, sheet, cell) or mean]
    if cell.method == REFERENCE:
        curves.append(figures.ladder_curves(board, sheet))
    return {
        "sheet": sheet,
        "cell": cell,
        "runs": runs,
        "settings": sorted({hyperparameter_text(r.hp) for r in runs}),
        "recipe": board.recipe(cell),
        "curves": [f for f in curves if f is not None],
        "commands": [command for _, command in cell_commands(sheet, cell)],
        "rows": Markup("\n".join(_rows(runs))),
    }


def _rows(runs: Sequence[Run]) -> Iterator[str]:
    """Rows of the run table, in Python because there can be a hundred thousand."""
    for run in runs:
        name, where = _quote(run.run_id), _quote(run.environment_hash)
        score, checked = (number(v) if run.ok else MISSING for v in (run.score, run.val_score))
        status = _quote(run.status) + (f": {_quote(run.message)}" if run.message else "")
        yield (
            f'<tr id="{name}"><th scope="row"><a href="#{name}"><code>{name}</code></a></th>'
            f'<td class="num">{run.seed}</td><td class="num">{count(run.budget)}</td>'
            f"<td{'' if run.ok else FAILED}>{status}</td>"
            f'<td class="num">{score}</td><td class="num">{checked}</td><td class="num">{count(run.steps)}</td>'
            f'<td class="num">{number(run.train_seconds, 3)}</td>'
            f'<td class="num">{number(run.peak_bytes / MEGABYTE, 3)}</td>'
            f"<td><code>{_quote(run.digest[:10])}</code></td><td><code>{_quote(run.method_hash)}</code></td>"
            f"<td><code>{_quote(run.commit[:10])}</code>{' + changes' if run.dirty else ''}</td>"
            f'<td><a href="../index.html#env-{where}"><code>{where}</code></a></td><td>{_quote(run.trust)}</td></tr>'
        )
