"""The claims page: verdicts with their intervals, every run behind them linked, everything escaped."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from test_board_model import read_of, row
from test_board_pages import EVIL, Page, _resolve, pages_of

from leaderboard import claims as stated
from leaderboard.site import render
from suite.claims import ledger, parse
from suite.registry import registry

LEDGER = f"""
[sure]
paper = "A paper of Mish"
arxiv = "1908.08681"
statement = "Mish beats ReLU {EVIL.replace('"', "'")}"
published = "+1 % {EVIL.replace('"', "'")}"
a = "mish"
b = "relu"
tasks = ["shapes-cnn", "shapes-vit"]
metric = "accuracy"
direction = "A better"

["sure/set"]
paper = "A paper"
statement = "a slope of 0.2 is as good as none"
a = {{method = "leaky-relu", negative_slope = 0.2}}
b = "relu"
tasks = ["shapes-cnn"]
direction = "equal"

[stable]
paper = "A paper"
statement = "it trains where the other does not"
a = "mish"
b = "gelu"
tasks = ["shapes-cnn"]
direction = "A better"

[open]
paper = "A paper"
statement = "nobody ran it"
a = "golu"
b = "gelu"
tasks = ["shapes-vit"]
direction = "A better"

[never]
paper = "A paper"
statement = "time passes"
reason = "No task waits {EVIL.replace('"', "'")}."
"""


def cells(task: str, method: str, scores: Iterable[float | None], **facts: Any) -> list[dict[str, Any]]:
    budget = float(registry().task(task).tiers["quick"].budget)
    made = [row(task, method, seed, score, budget=budget, **facts) for seed, score in enumerate(scores)]
    for r in made:
        r["metrics"] = [("accuracy", 1 - r["score"])] if r["score"] is not None else []
        r["run_id"] += "s" if facts.get("set_hp") else ""
    return made


def board_rows() -> list[dict[str, Any]]:
    base = [0.50, 0.55, 0.45, 0.52, 0.48]
    less = [0.40, 0.44, 0.36, 0.43, 0.37]
    slope = json.dumps({"negative_slope": 0.2})
    return [
        *cells("shapes-cnn", "reference", base), *cells("shapes-cnn", "relu", base), *cells("shapes-cnn", "mish", less),
        *cells("shapes-vit", "relu", base), *cells("shapes-vit", "mish", [*base[:3], 0.53, 0.46]),
        *cells("shapes-cnn", "leaky-relu", [x + 0.001 for x in base], set_hp=slope, hp=slope),
        *cells("shapes-cnn", "gelu", [None] * 5),
    ]  # fmt: skip


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    claims = parse(LEDGER)
    monkeypatch.setattr(stated, "ledger", lambda: claims)
    return render(read_of(board_rows()))


def rows_of_page(content: bytes) -> dict[str, str]:
    """Row id -> its markup."""
    return dict(re.findall(r'<tr id="([^"]+)">(.*?)</tr>', content.decode(), re.S))


def test_a_tested_claim_shows_published_and_measured(files: dict[str, bytes]) -> None:
    found = {name: Page(part).text for name, part in rows_of_page(files["claims.html"]).items()}
    assert re.search(r"mish better than relu .*holds .*\+\d\.\d+ \+\d\.\d+ to \+\d", found["sure"])
    assert "shapes-cnn : holds +0.100 (+0.0" in found["sure"]
    assert re.search(r"shapes-vit : does not separate \+0\.\d+ \(−0\.\d+ to \+0\.\d+\), n 5", found["sure"])
    assert "+1 % <script>" in found["sure"]
    assert re.search(r"leaky-relu \(negative_slope = 0.2\) equal to relu tier quick, .* holds ", found["sure/set"])
    assert "holds by failures" in found["stable"]
    assert "failed: A 0, B 5" in found["stable"]


def test_what_is_not_tested_says_why(files: dict[str, bytes]) -> None:
    found = {name: Page(part).text for name, part in rows_of_page(files["claims.html"]).items()}
    assert found["open"].endswith("shapes-vit no runs of both sides yet")
    assert "No task waits <script>" in found["never"]
    page = pages_of(files)["claims.html"].text
    assert "4 claims of papers. 3 comparisons with runs: 3 hold. 1 comparison waits for runs; 1 claim no task" in page


def test_every_run_behind_a_verdict_is_linked(files: dict[str, bytes]) -> None:
    found = pages_of(files)
    links = {
        _resolve("claims.html", link.partition("#")[0]) or "claims.html": set() for link in found["claims.html"].links
    }
    for link in found["claims.html"].links:
        target, _, anchor = link.partition("#")
        links[_resolve("claims.html", target) or "claims.html"].add(anchor)
        if anchor and not link.startswith("https:"):
            assert anchor in found[_resolve("claims.html", target) or "claims.html"].ids, link
    behind = [r["run_id"] for r in board_rows() if r["method"] != "reference"]
    assert set(behind) <= set().union(*links.values())
    assert "levelfield claims --run --ids sure --seeds 5" in found["claims.html"].text


def test_index_and_method_pages_lead_to_the_claims(files: dict[str, bytes]) -> None:
    found = pages_of(files)
    assert "claims.html" in found["index.html"].links
    assert "What 4 claims of papers come to at equal budgets: 3 hold" in found["index.html"].text
    assert {"../claims.html#sure", "../claims.html#stable"} <= set(found["method/mish.html"].links)
    assert "../claims.html#sure" in found["method/relu.html"].links
    assert not any("claims.html#" in link for link in found["method/reference.html"].links)


def test_markdown_has_the_verdicts(files: dict[str, bytes]) -> None:
    text = files["LEADERBOARD.md"].decode()
    assert "4 claims of papers: 3 hold." in text
    assert re.search(r"^\| stable \| mish better than gelu \| holds \| by failures \|$", text, re.M)


def test_the_downloads_hold_the_verdicts_and_the_runs_behind_them(files: dict[str, bytes]) -> None:
    table = pq.read_table(io.BytesIO(files["claims.parquet"])).to_pandas()
    as_csv = pd.read_csv(io.BytesIO(files["claims.csv"]), keep_default_na=False, na_values=[""])
    as_json = pd.read_json(io.BytesIO(files["claims.json"]), orient="split", precise_float=True)
    numbers = ["difference", "low", "high", "p", "q", "detectable", "margin"]
    for other in (as_csv, as_json):
        assert list(other.columns) == list(table.columns)
        assert other["claim"].tolist() == table["claim"].tolist()
        pd.testing.assert_frame_equal(other[numbers].astype(float), table[numbers].astype(float), rtol=1e-12)
    found = {(r.claim, r.task): r for r in table.itertuples()}
    tasks = {"sure": ["shapes-cnn", "shapes-vit"], "sure/set": ["shapes-cnn"], "stable": ["shapes-cnn"]}
    tasks |= {"open": ["shapes-vit"], "never": []}
    assert list(found) == [(name, task) for name, on in tasks.items() for task in ("all", *on)]

    sure = found["sure", "shapes-cnn"]  # the sides' accuracies differ by .10, .11, .09, .09, .11
    assert (sure.difference, sure.n, sure.unit, sure.metric) == (pytest.approx(0.1), 5, "share", "accuracy")
    half = 2.7764451051977987 * np.std([0.10, 0.11, 0.09, 0.09, 0.11], ddof=1) / 5**0.5
    assert (sure.low, sure.high) == (pytest.approx(0.1 - half), pytest.approx(0.1 + half))
    rows = {r["run_id"]: r for r in board_rows()}
    for side, method in (("runs_a", "mish"), ("runs_b", "relu")):
        runs = [rows[name] for name in getattr(sure, side).split()]
        assert [(r["method"], r["task"], r["seed"]) for r in runs] == [(method, "shapes-cnn", s) for s in range(5)]
    assert (found["sure", "all"].unit, found["sure", "all"].n, found["sure", "all"].stands) == ("seed sd", 2, True)
    stable = found["stable", "shapes-cnn"]
    assert (stable.verdict, stable.failed_a, stable.failed_b, stable.unit) == ("holds", 0, 5, "nats")
    assert found["sure/set", "shapes-cnn"].margin > 0
    assert (found["sure/set", "all"].a, found["sure/set", "all"].stands) == ("leaky-relu (negative_slope = 0.2)", None)
    assert (found["open", "all"].verdict, found["open", "all"].why) == ("not tested", "no runs of both sides yet")
    assert found["never", "all"].why.startswith("No task waits")
    assert {"claims.csv", "claims.json", "claims.parquet"} <= set(pages_of(files)["claims.html"].links)


def test_a_verdict_that_does_not_stand_among_all_is_marked(files: dict[str, bytes], monkeypatch: Any) -> None:
    page = pages_of(files)["claims.html"].text
    assert "2 of the 2 that find a better side stand at a false discovery rate of 5% over all 2 comparisons" in page
    assert "by itself; not" not in page
    monkeypatch.setattr("suite.claims.FALSE_DISCOVERIES", 1e-9)
    strict = render(read_of(board_rows()))
    found = {name: Page(part).text for name, part in rows_of_page(strict["claims.html"]).items()}
    for name in ("sure", "stable"):
        assert re.search(r"holds by itself; not among all comparisons, q \S+", found[name])
    assert "not among all" not in found["sure/set"]
    assert "holds by itself; not among all comparisons, q " in pages_of(strict)["method/mish.html"].text
    assert re.search(
        r"^\| stable \| mish better than gelu \| holds, by itself \|", strict["LEADERBOARD.md"].decode(), re.M
    )


def test_no_text_of_a_claim_becomes_markup(files: dict[str, bytes]) -> None:
    for path in ("claims.html", "method/mish.html"):
        source = files[path].decode()
        assert Page(source).tags.count("script") == 1
        assert "<script>alert" not in source
    assert "<script" not in files["LEADERBOARD.md"].decode()


def test_the_page_does_not_depend_on_the_order_of_rows(files: dict[str, bytes]) -> None:
    rows = board_rows()
    again = render(read_of(random.Random(1).sample(rows, len(rows))))
    assert again["claims.html"] == files["claims.html"]


def test_settings_that_cannot_be_read_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = parse(LEDGER)
    monkeypatch.setattr(stated, "ledger", lambda: claims)
    broken = cells("shapes-cnn", "relu", [9.0], set_hp="{")
    text = Page(render(read_of([*board_rows(), *broken]))["claims.html"].decode()).text
    assert "shapes-cnn : holds +0.100 (+0.0" in text


def test_the_whole_ledger_is_on_the_page() -> None:
    content = render(read_of([]))["claims.html"]
    assert sorted(rows_of_page(content)) == sorted(claim.id for claim in ledger())
