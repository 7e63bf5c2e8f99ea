"""Which scores changed between two result folders, and the command line of the board."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_board_model import golden, read_of, row, rows_of, table

from leaderboard.changes import ADDED, BEYOND, EQUAL, REMOVED, RESCORED, UNKNOWN, WITHIN, Change, changes
from leaderboard.model import build
from leaderboard.site import compare
from suite.cli.main import main
from suite.store.files import write_rows


def diff(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> dict[tuple[str, str], Change]:
    found = changes(build(table(old)), build(table(new)))
    return {(c.task, c.method): c for c in found}


def test_equal_folders_have_no_change() -> None:
    assert {c.kind for c in diff(golden(), golden()).values()} == {EQUAL}


def test_a_change_within_and_beyond_its_paired_interval() -> None:
    old = [*rows_of("t", "golu", [1.0, 1.2, 1.4]), *rows_of("t", "mish", [1.0, 1.2, 1.4])]
    new = [*rows_of("t", "golu", [0.9, 1.1, 1.31]), *rows_of("t", "mish", [1.1, 1.1, 1.4])]
    found = diff(old, new)
    assert found["t", "golu"].kind == BEYOND
    assert found["t", "golu"].difference.value == pytest.approx(0.29 / 3)  # a lower loss is an improvement
    assert found["t", "golu"].better
    assert found["t", "mish"].kind == WITHIN


def test_without_common_seeds_the_interval_is_welchs() -> None:
    old = [row("t", "golu", s, x) for s, x in ((0, 1.0), (1, 1.2), (2, 1.1))]
    new = [row("t", "golu", s, x) for s, x in ((7, 2.0), (8, 2.2), (9, 2.1))]
    found = diff(old, new)["t", "golu"]
    half = 2.7764451051977987 * (0.01 / 3 + 0.01 / 3) ** 0.5  # t with 4 degrees of freedom
    assert found.difference.value == pytest.approx(-1.0)
    assert found.difference.high - found.difference.value == pytest.approx(half)
    assert found.kind == BEYOND


def test_one_run_a_side_gives_no_verdict() -> None:
    assert diff([row("t", "golu", 0, 1.0)], [row("t", "golu", 0, 3.0)])["t", "golu"].kind == UNKNOWN


def test_cells_that_come_go_or_belong_to_a_changed_task_are_named_as_such() -> None:
    old = [*rows_of("t", "golu", [1.0, 1.1]), *rows_of("u", "golu", [1.0, 1.1])]
    new = [*rows_of("t", "mish", [1.0, 1.1]), *rows_of("u", "golu", [9.0, 9.1], task_hash="t2")]
    found = {key: c.kind for key, c in diff(old, new).items()}
    assert found == {("t", "golu"): REMOVED, ("t", "mish"): ADDED, ("u", "golu"): RESCORED}


def test_a_run_that_starts_to_fail_is_a_change_beyond_the_interval() -> None:
    found = diff(rows_of("t", "golu", [1.0, 1.1, 1.2]), rows_of("t", "golu", [1.0, 1.1, None]))["t", "golu"]
    assert found.kind == BEYOND
    assert found.failures == (0, 1)


def test_the_most_notable_changes_come_first() -> None:
    old = [*rows_of("a", "golu", [1.0, 1.1]), *rows_of("z", "golu", [1.0, 1.1])]
    new = [*rows_of("a", "golu", [1.0, 1.1]), *rows_of("z", "golu", [5.0, 5.1])]
    assert [c.task for c in changes(build(table(old)), build(table(new)))] == ["z", "a"]


def test_the_difference_view_is_escaped_and_says_what_changed() -> None:
    evil = "<script>x</script>"
    old, new = rows_of("t", evil, [1.0, 1.1, 1.2]), rows_of("t", evil, [2.0, 2.1, 2.2])
    markdown, page = compare(read_of(old), read_of(new), ("<b>", "new"))
    assert evil not in page.decode()
    assert "beyond the interval" in page.decode()
    assert "| quick | t | &lt;script&gt;x&lt;/script&gt; | 1.1 | 2.1 | −1 |" in markdown
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("|")}) == 1


# ---------------------------------------------------------------- command


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_rows(tmp_path / "results" / "golden.parquet", golden())
    return tmp_path / "results"


def run(*words: str | Path) -> int:
    try:
        main([str(w) for w in words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_writes_a_site_and_prints_the_best(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = results.parent / "site"
    assert run("board", results, "--out", out) == 0
    printed = capsys.readouterr().out
    assert (out / "index.html").exists()
    assert "toy [quick], cross-entropy, lower is better: mish 0.70" in printed
    assert (out / "index.html").as_uri() in printed


def test_check_passes_on_a_fresh_site_and_fails_on_a_stale_one(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = results.parent / "site"
    assert run("board", results, "--out", out) == 0
    assert run("board", results, "--out", out, "--check") == 0
    write_rows(results / "more.parquet", rows_of("toy", "silu", [1.0, 1.1]))
    assert run("board", results, "--out", out, "--check") == 1
    printed = capsys.readouterr().out
    assert "differs: index.html" in printed
    assert "differs: method/silu.html" in printed


def test_a_damaged_file_is_named_and_the_rest_is_shown(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "bad.parquet").write_bytes(b"not parquet")
    out = results.parent / "site"
    assert run("board", results, "--out", out) == 0
    assert "bad.parquet" in capsys.readouterr().err
    assert "bad.parquet" in (out / "index.html").read_text()


def test_no_results_is_said_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run("board", tmp_path / "empty", "--out", tmp_path / "site") == 2
    assert "levelfield run" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_diff_prints_markdown_and_keeps_pages_on_request(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, out = results.parent / "other", results.parent / "changes"
    write_rows(other / "a.parquet", [r for r in golden() if r["method"] != "mish"])
    assert run("board", "--diff", results, other, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "| quick | toy | mish | 0.6967 | none |" in printed
    assert (out / "changes.md").read_text() == printed
    assert "removed" in (out / "changes.html").read_text()


def test_diff_takes_no_other_folders(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("board", results, "--diff", results, results) == 2
    assert "--diff takes its two folders itself" in capsys.readouterr().err
