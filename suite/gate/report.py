"""A gate's verdicts as Markdown, JSON and an exit code."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from suite.gate.quality import FAIL, INCONCLUSIVE, PASS, Verdict

EXIT = {PASS: 0, FAIL: 1, INCONCLUSIVE: 4}


def overall(verdicts: Sequence[Verdict]) -> str:
    """FAIL if any failed, else INCONCLUSIVE if any is open, else PASS; no verdict at all is a failure."""
    seen = {v.verdict for v in verdicts}
    return FAIL if FAIL in seen or not seen else INCONCLUSIVE if INCONCLUSIVE in seen else PASS


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    rows = [{k: _plain(v) for k, v in asdict(verdict).items()} for verdict in verdicts]
    return {"verdict": overall(verdicts), "cells": rows}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(verdicts: Sequence[Verdict], notes: Sequence[str] = ()) -> str:
    """A summary for a pull request: the verdict, what failed or is open, then counts of what passed."""
    total = overall(verdicts)
    counts = Counter(v.verdict for v in verdicts)
    lines = [
        f"## levelfield gate: {total}",
        "",
        ", ".join(f"{counts[k]} {k}" for k in (PASS, FAIL, INCONCLUSIVE) if counts[k]) or "nothing was compared",
        "",
        "| task | method | question | verdict | effect (+ is worse) | 95% interval | margin | rule |",
        "|---|---|---|---|---|---|---|---|",
    ]
    order = {FAIL: 0, INCONCLUSIVE: 1, PASS: 2}
    for v in sorted(verdicts, key=lambda v: (order[v.verdict], v.task, v.method, v.question)):
        interval = "" if math.isnan(v.low) else f"[{_number(v.low)}, {_number(v.high)}]"
        cells = (v.task, v.method, v.question, v.verdict, _number(v.effect), interval, _number(v.margin), v.rule)
        lines.append("| " + " | ".join(_escape(c) for c in cells) + " |")
    return "\n".join([*lines, *(["", *(f"- {note}" for note in notes)] if notes else [])]) + "\n"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.4g}"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
