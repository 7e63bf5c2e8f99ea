"""Values as JSON holds them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """The same value with None for every number that is not finite, at any depth of mappings, lists and tuples."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(text: str | None) -> dict[str, Any] | None:
    """What a row states as JSON; None where it cannot be read, as the board says of that row."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def canonical(stated: Mapping[str, Any]) -> str:
    """Hyper-parameters or a recipe as one text, however they were written: 1 and 1.0, lists and tuples are the same."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    return json.dumps(plain(stated), sort_keys=True)
