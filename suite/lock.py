"""The task lock: a task's content may not change while its version stays.

``tasks/tasks.lock`` holds each task's version and the content hash of each of
its tiers. ``python -m suite.lock`` brings it up to date; a test fails when it
is not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from suite.fingerprint import task_hash
from suite.registry import TaskInfo, package_roots, registry
from suite.store.files import write_bytes


def lock_file() -> Path:
    """The lock of the installed tasks."""
    return package_roots("tasks")[0] / "tasks.lock"


def entry(task: TaskInfo) -> dict[str, Any]:
    """What the lock holds of a task."""
    return {"version": task.version, "tiers": {tier: task_hash(task, tier) for tier in task.tiers}}


def changes(locked: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What a lock refuses: one sentence a task, "bump the version or revert".

    A new task, a new tier and a higher version are fine; a changed tier under
    the same version, a lower version and a vanished task are not.
    """
    problems = []
    for name, was in sorted(locked.items()):
        now = found.get(name)
        if now is None:
            problems.append(f"{name}: the task is gone; keep it with superseded_by, so that its results stay readable")
        elif now["version"] < was["version"]:
            problems.append(f"{name}: version {now['version']} is lower than {was['version']}; revert")
        elif now["version"] == was["version"]:
            moved = [tier for tier, code in was["tiers"].items() if now["tiers"].get(tier) != code]
            if moved:
                problems.append(
                    f"{name}: its content changed at tier {', '.join(moved)} and its version did not; "
                    "bump the version or revert"
                )
    return problems


def current() -> dict[str, Any]:
    """The lock as the tasks of the project stand now; tasks of other packages are not in it."""
    root = lock_file().parent
    found = registry().tasks.values()
    return {t.name: entry(t) for t in sorted(found, key=lambda t: t.name) if Path(t.path).is_relative_to(root)}


def read() -> dict[str, Any]:
    """The stored lock; empty before the first."""
    file = lock_file()
    return json.loads(file.read_text()) if file.exists() else {}


def main() -> None:
    """Write the lock; refuse changes without a higher version."""
    found = current()
    problems = changes(read(), found)
    if problems and "--force" not in sys.argv:
        sys.exit("\n".join([*problems, "(--force writes the lock all the same: before a first release)"]))
    write_bytes(lock_file(), (json.dumps(found, indent=1) + "\n").encode())
    sys.stdout.write(f"{len(found)} tasks in {lock_file()}\n")


if __name__ == "__main__":
    main()
