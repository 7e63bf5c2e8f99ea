"""A large site is written by two processes: the same files, and the second one's troubles are the first one's."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_board_model import read_of
from test_board_pages import rich

from leaderboard import site
from leaderboard.beside import beside, room_beside
from leaderboard.site import render, write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one process writes the site")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes for a site of any size, on any machine."""
    monkeypatch.setattr(site, "TWO_PROCESSES", 0)
    monkeypatch.setattr(site, "room_beside", lambda: True)


@pytest.fixture
def broken(two: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Makes the pages of the methods call a function instead."""

    def install(act: Callable[[], None]) -> None:
        monkeypatch.setattr(site, "_method", lambda board, method: act())

    return install


@pytest.mark.usefixtures("two")
def test_two_processes_write_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "site"
    here: list[int] = []
    monkeypatch.setattr(site, "_method", lambda *given, plain=site._method: here.append(1) or plain(*given))
    written = write(read_of(rich()), out)
    assert not here, "the pages of the methods are the second process's"
    assert {p: (out / p).read_bytes() for p in written} == render(read_of(rich()))
    assert written == sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


def test_a_small_site_takes_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[int] = []
    monkeypatch.setattr(site, "_method", lambda *given, plain=site._method: here.append(1) or plain(*given))
    write(read_of(rich()), tmp_path / "site")
    assert here


def _disk_full() -> None:
    raise OSError(28, "No space left on device", "method/golu.html")


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _unsendable() -> None:
    raise ValueError(lambda: None)


@pytest.mark.parametrize(
    ("act", "expected", "message"),
    [
        (_disk_full, OSError, "No space left on device: 'method/golu.html'"),
        (_killed, RuntimeError, "with status -9"),
        (_unsendable, RuntimeError, "with status 1"),
    ],
)
def test_a_second_process_that_fails_leaves_the_old_site(
    tmp_path: Path,
    broken: Callable[[Callable[[], None]], None],
    act: Callable[[], None],
    expected: type[Exception],
    message: str,
) -> None:
    out = tmp_path / "site"
    out.mkdir()
    (out / "static").mkdir()
    (out / site.MARKER).write_text("old")
    broken(act)
    with pytest.raises(expected, match=message):
        write(read_of(rich()), out)
    assert [p.name for p in out.rglob("*")] == ["static", "board.js"]
    assert [p.name for p in tmp_path.iterdir()] == ["site"]
    assert not multiprocessing.active_children()


def test_an_error_of_the_second_process_says_where_it_was() -> None:
    with pytest.raises(ZeroDivisionError) as caught, beside(lambda: 1 // 0) as result:
        result()
    assert any("in a second process" in note and "test_board_beside.py" in note for note in caught.value.__notes__)


def test_an_error_of_the_first_process_ends_the_second(tmp_path: Path) -> None:
    def work() -> None:
        time.sleep(60)
        (tmp_path / "late").touch()

    with pytest.raises(OSError, match="disk full"), beside(work):
        raise OSError("disk full")
    assert not multiprocessing.active_children()
    assert not (tmp_path / "late").exists()


def test_one_processor_has_no_room_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert not room_beside()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3})
    assert room_beside()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not room_beside()
