"""The task lock: content and version move together."""

from __future__ import annotations

import copy

import pytest

from suite import lock

WAS = {"a": {"version": 2, "tiers": {"smoke": "x", "quick": "y"}}}


def changed(**now: object) -> list[str]:
    found = copy.deepcopy(WAS)
    found["a"] |= now
    return lock.changes(WAS, found)


def test_the_tasks_are_as_the_lock_says() -> None:
    problems = lock.changes(lock.read(), lock.current())
    assert not problems, "\n".join(problems)
    missing = set(lock.current()) - set(lock.read())
    assert not missing, f"not in the lock: {sorted(missing)}; run python -m suite.lock"


def test_a_changed_tier_needs_a_higher_version() -> None:
    (problem,) = changed(tiers={"smoke": "x", "quick": "z"})
    assert "bump the version or revert" in problem
    assert "quick" in problem
    assert not changed(tiers={"smoke": "x", "quick": "z"}, version=3)


def test_a_new_tier_is_no_change() -> None:
    assert not changed(tiers={**WAS["a"]["tiers"], "standard": "n"})


@pytest.mark.parametrize("tiers", [{"smoke": "x"}, {}])
def test_a_vanished_tier_is_a_change(tiers: dict[str, str]) -> None:
    assert changed(tiers=tiers)


def test_a_lower_version_and_a_vanished_task_are_refused() -> None:
    assert "revert" in changed(version=1)[0]
    assert "gone" in lock.changes(WAS, {})[0]
