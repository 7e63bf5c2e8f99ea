"""The table of published systems: complete, consistent with the registry, and on the page."""

from __future__ import annotations

import re

import pytest
from markupsafe import escape
from test_board_model import golden, read_of, rows_of

from leaderboard.coverage import (
    ON_BOARD,
    REGISTERED,
    WAITING,
    CoverageError,
    coverage,
    parse,
    progress,
    systems,
    unlisted,
)
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


def test_the_methods_run_on_a_task_are_counted_by_slot() -> None:
    task, methods = registry().task("shapes-vit"), registry().methods
    found = progress(task, methods, ["reference", "golu", "gelu", "lion", "golu+lion", "no-such-method"])
    meant = {slot: sum(m.slot == slot and m.fits(task) for m in methods.values()) for slot in task.slots}
    assert {slot: of for slot, (_, of) in found.slots.items()} == {slot: n for slot, n in meant.items() if n}
    assert {slot: done for slot, (done, _) in found.slots.items() if done} == {"activation": 2, "optimizer": 1}
    assert found.total == (3, sum(meant.values()))
    assert "objective" not in found.slots


def test_the_page_says_how_much_has_been_run_on_each_task() -> None:
    rows = [*rows_of("shapes-vit", "reference", [1.0, 1.1]), *rows_of("shapes-vit", "golu", [0.9, 1.0])]
    rows += [*rows_of("convection", "reference", [1.0, 1.1], family="pde"), *rows_of("toy", "reference", [1.0])]
    for method in (m.name for m in registry().methods.values() if m.slot == "sampler"):
        rows += rows_of("convection", method, [1.0], family="pde", status="skipped")
    rows += rows_of("shapes-vit", "reference", [0.5], tier="full")
    page = render(read_of(rows))["coverage.html"].decode()
    assert 'id="run-full"' not in page  # no method has been run there
    part = page[page.index('id="run-quick"') : page.index('id="systems"')]
    slots = re.findall(r'data-key="([^"]+)"', part)[2:]
    found = {
        name: dict(zip(slots, re.findall(r"<td[^>]*>([^<]*)</td>", cells)[1:], strict=True))
        for name, cells in re.findall(r'<tr><th scope="row"><a href="[^"]+">([^<]+)</a></th>(.*?)</tr>', part, re.S)
    }
    assert set(found) == {"shapes-vit", "convection"}  # of `toy` nobody knows what is meant for it
    activations = sum(
        m.slot == "activation" and m.fits(registry().task("shapes-vit")) for m in registry().methods.values()
    )
    assert found["shapes-vit"]["activation"] == f"1 of {activations}"
    assert found["shapes-vit"]["sampler"] == "–"
    assert re.fullmatch(r"\d+", found["convection"]["sampler"])  # all of them: a skipped one has said why
    assert found["convection"]["activation"].startswith("0 of ")
