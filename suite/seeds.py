"""Scoped seeds: a random stream per (task, purpose, index), the method left out.

Two methods on one task and seed index therefore see the same initial weights,
data order, rollout noise and evaluation points, and are compared in pairs.
"""

from __future__ import annotations

import hashlib

ALIASES: dict[str, str] = {}  # name that a task has in this process -> the name that it is registered by


def registered_name(task: str) -> str:
    """The name whose streams and shipped files are the task's, whatever it is called in this process."""
    return ALIASES.get(task, task)


def seed_for(task: str, purpose: str, index: int, *more: str | int) -> int:
    """A 63-bit seed that is a pure function of its arguments.

    Parameters
    ----------
    task : task name.
    purpose : what the stream is for ("init", "order", "augment", "rollout", "points", ...).
    index : seed index of the run (0, 1, 2, ...).
    more : finer scope, such as a parameter's name.
    """
    text = "\x1f".join(map(str, (registered_name(task), purpose, index, *more)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
