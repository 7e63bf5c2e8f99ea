"""The table of published systems: complete, consistent with the registry, and on the page."""

from __future__ import annotations

import re

import pytest
from markupsafe import escape
from test_board_model import golden, read_of

from leaderboard.coverage import ON_BOARD, REGISTERED, WAITING, CoverageError, coverage, parse, systems, unlisted
from leaderboard.site import render
from suite.registry import Method, registry
from suite.slots import SLOTS

HEADER = "id\tname\tpaper\tarxiv\tslot\ttrack\tvariants\treason\n"


@pytest.fixture(scope="module")
def page() -> str:
    return render(read_of(golden()))["coverage.html"].decode()


def test_every_system_is_on_the_page_with_its_state(page: str) -> None:
    found = re.findall(
        r'<tr id="([^"]+)"><th scope="row">\1</th><td data-filter="[^"]+" class="state [^"]*">([^<]+)</td>', page
    )
    assert [name for name, _ in found] == [s.id for s in systems()]
    assert all(state.split(":")[0] in (ON_BOARD, REGISTERED, WAITING) for _, state in found)


def test_a_waiting_system_says_what_it_waits_for(page: str) -> None:
    for c in coverage(registry().methods, []):
        if c.state == WAITING:
            assert c.why
            row = f'<tr id="{c.system.id}"><th scope="row">{c.system.id}</th>'
            assert f'{row}<td data-filter="waiting" class="state waiting">waiting: {escape(c.why)}<' in page


def test_every_registered_method_is_counted_once() -> None:
    methods = registry().methods
    counted = [m for c in coverage(methods, []) for m in c.registered] + [m.name for m in unlisted(methods)]
    assert sorted(counted) == sorted(methods)


def test_every_registered_method_of_a_listed_system_makes_it_registered() -> None:
    states = {c.system.id: c.state for c in coverage(registry().methods, [])}
    stated = {m.system or m.name for m in registry().methods.values()}
    assert all(states[name] == REGISTERED for name in states if name in stated)


def test_a_system_is_on_the_board_when_one_of_its_methods_or_a_combination_has_results() -> None:
    methods = {"golu": registry().method("golu")}
    states = {c.system.id: c.state for c in coverage(methods, ["golu"])}
    assert states["golu"] == ON_BOARD
    assert {c.system.id: c.state for c in coverage(methods, ["golu+sam"])}["sam"] == ON_BOARD
    assert {c.system.id: c.state for c in coverage(methods, [])}["golu"] == REGISTERED


def test_a_variant_registered_under_its_system_counts_for_it() -> None:
    variant = Method(name="golu-wide", path="x", line=1, attribute="X", slot="activation", system="golu")
    (found,) = [c for c in coverage({"golu-wide": variant}, ["golu-wide"]) if c.system.id == "golu"]
    assert (found.state, found.shown) == (ON_BOARD, ("golu-wide",))


def test_the_table_of_systems_is_well_formed() -> None:
    assert len(systems()) == 190
    for system in systems():
        assert system.name
        assert system.paper
        assert all(re.fullmatch(r"\d{4}\.\d{4,5}", a) for a in system.arxiv)
        assert system.slot in SLOTS or system.reason, f"{system.id}: a slot that does not exist needs a reason"
        assert re.fullmatch(r"(track comes later|definition unconfirmed(: .+)?|needs .+)?", system.reason)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id\tname\n", "columns must be"),
        (HEADER + "a\tb\n", "coverage.tsv:2: 2 columns"),
        (HEADER + "a\tA\tP\t1\tloss\tcore\ta\t\n" * 2, "coverage.tsv:3: 'a' stands there twice"),
    ],
)
def test_a_damaged_table_names_the_line(text: str, says: str) -> None:
    with pytest.raises(CoverageError, match=re.escape(says)):
        parse(text)
