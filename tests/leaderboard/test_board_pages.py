"""The written site: complete, escaped, self-contained, the same bytes every time."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from test_board_model import START, golden, read_of, row, rows_of, table

from leaderboard import site
from leaderboard.markdown import escape
from leaderboard.site import differences, render, safe_link, write
from leaderboard.text import slug
from suite.facts import Paper
from suite.registry import Method, registry

EVIL = '<script>alert("x")</script>'


def rich() -> list[dict[str, Any]]:
    """The golden board with a second family, maps, transcripts, a portrait and a ladder."""
    side = [[0.1 * i * j for j in range(4)] for i in range(4)]
    maps = {"kind": "pde-map", "function": "u", "axes": ["x", "t"], "lows": [0, 0], "highs": [1, 2]}
    maps |= {"solution": side, "prediction": side, "error": [[None, *r[1:]] for r in side]}
    answers = [{"text": "45", "reward": 1.0, "ended": True}, {"text": "46", "reward": 0.0, "ended": False}]
    talk = {"transcripts": {"kind": "transcripts", "items": [{"prompt": "04+50=", "completions": answers}]}}
    x = [-1.0, 0.0, 1.0]
    shape = {"activation golu": {"kind": "activation", "x": x, "y": x, "dy": [1.0, 1.0, 1.0]}}
    rows = golden()
    rows[3]["exhibits"] = json.dumps(shape)
    pde = {"family": "pde", "metric": "log10_l2re", "unit": "log10"}
    heat = [
        *rows_of("heat", "reference", [-1.0, -1.2, -1.1], **pde),
        *rows_of("heat", "golu", [-2.0, -2.2, -2.3], **pde),
    ]
    heat[0]["exhibits"] = heat[3]["exhibits"] = json.dumps(maps)
    words = {"family": "rlvr", "metric": "pass@1", "unit": "share", "direction": "max"}
    chat = [*rows_of("add", "reference", [0.2, 0.3, 0.25], **words), *rows_of("add", "lion", [0.4, 0.5, 0.47], **words)]
    chat[0]["exhibits"] = json.dumps(talk)
    ladder = [r for s in (0.5, 2.0) for r in rows_of("toy", "reference", [1.0 / s, 1.2 / s, 1.4 / s], budget=100 * s)]
    smoke = [*rows_of("toy", "reference", [1.0, 1.1], tier="smoke"), *rows_of("toy", "golu", [1.0, 1.1], tier="smoke")]
    return [*rows, *heat, *chat, *ladder, *smoke]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return render(read_of(rich()))


class Page(HTMLParser):
    """Text, links, ids and loaded addresses of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "a":
            self.links.append(str(found.get("href")))
        elif found.get("src") or found.get("href"):
            self.loads.append(str(found.get("src") or found.get("href")))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def pages_of(files: dict[str, bytes]) -> dict[str, Page]:
    return {path: Page(content.decode()) for path, content in files.items() if path.endswith(".html")}


@pytest.mark.parametrize("seed", range(16))
def test_any_part_of_the_rows_makes_a_board_that_lists_its_methods(seed: int) -> None:
    """Cells, seeds, references and rungs missing at random, and runs that failed or were skipped."""
    rng = random.Random(seed)
    more = [*rows_of("heat", "mish", [-1.5, -1.6, -1.4], family="pde"), *rows_of("bare", "gelu", [0.9, 1.0])]
    rungs = rows_of("heat", "reference", [-0.5, -0.6, -0.4], family="pde", budget=50.0)
    share = rng.choice([0.3, 0.6, 0.9])
    rows = [dict(r) for r in [*rich(), *more, *rungs, *rows_of("bare", "reference", [1.0])] if rng.random() < share]
    for r in rows:
        if rng.random() < rng.choice([0.0, 0.3]):
            r |= {"status": rng.choice(["diverged", "timeout", "skipped"]), "score": None, "metrics": [], "curve": []}
    found = render(read_of(rows))
    shown = {r["method"] for r in rows if r["budget"] == 100 and r["method"] != "reference"}
    assert {f"method/{m}.html" for m in shown} <= set(found)
    assert all(m in found["coverage.html"].decode() for m in shown)


def test_every_page_is_there(files: dict[str, bytes]) -> None:
    wanted = {
        "index.html",
        "aggregates.html",
        "claims.html",
        "coverage.html",
        "overall.html",
        "failures.html",
        "LEADERBOARD.md",
    }
    wanted |= {"runs.csv", "runs.json", "runs.parquet", "static/board.css", "static/board.js"}
    wanted |= {"task/quick.toy.html", "task/smoke.toy.html", "task/quick.heat.html", "task/quick.add.html"}
    wanted |= {f"method/{m}.html" for m in ("reference", "golu", "mish", "relu", "lion")}
    wanted |= {f"{name}.{kind}" for name in ("cells", "standings", "claims") for kind in ("csv", "json", "parquet")}
    wanted |= {f"run/quick.toy.{m}.html" for m in ("reference", "golu", "mish", "relu")}
    wanted |= {f"run/{cell}.html" for cell in ("quick.heat.reference", "quick.heat.golu", "quick.add.reference")}
    wanted |= {f"run/{cell}.html" for cell in ("quick.add.lion", "smoke.toy.reference", "smoke.toy.golu")}
    wanted |= {"board/quick.vision.html", "board/quick.pde.html", "board/quick.rlvr.html"}
    assert set(files) == wanted


def test_every_link_inside_the_site_leads_somewhere(files: dict[str, bytes]) -> None:
    found = pages_of(files)
    for path, page in found.items():
        for link in page.links:
            if link.startswith("https://"):
                continue
            target, _, anchor = link.partition("#")
            place = _resolve(path, target) if target else path
            assert place in files, f"{path}: {link}"
            if anchor and place in found:
                assert anchor in found[place].ids, f"{path}: {link}"


def _resolve(path: str, target: str) -> str:
    parts: list[str] = []
    for part in (PurePosixPath(path).parent / target).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def test_nothing_is_loaded_from_elsewhere(files: dict[str, bytes]) -> None:
    for path, page in pages_of(files).items():
        for address in page.loads:
            assert address.startswith("data:") or _resolve(path, address) in files, f"{path}: {address}"
    style = files["static/board.css"].decode()
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|https?:", files["static/board.js"].decode())


def test_ids_are_unique_on_every_page(files: dict[str, bytes]) -> None:
    for path, page in pages_of(files).items():
        assert len(page.ids) == len(set(page.ids)), path


def test_every_table_header_cell_has_a_scope_and_rows_have_equal_cells(files: dict[str, bytes]) -> None:
    for path, content in files.items():
        if not path.endswith(".html"):
            continue
        text = content.decode()
        assert not re.search(r"<th(?![^>]*scope=)[ >]", text.replace("<thead", "")), path
        for part in re.findall(r"<table.*?</table>", text, re.S):
            widths = {len(re.findall(r"<t[hd][ >]", line)) for line in re.findall(r"<tr.*?</tr>", part, re.S)}
            assert len(widths) == 1, path


def test_every_number_of_a_cell_is_in_the_text(files: dict[str, bytes]) -> None:
    page = pages_of(files)["index.html"].text
    for words in ("+0.503", "+0.489 to +0.518", "n 3", "1 of 3 diverged", "−1 to −1", "1.20", "0.70 to 1.70"):
        assert words in page, words


def test_missing_failed_and_foreign_cells_say_so(files: dict[str, bytes]) -> None:
    board = pages_of(files)["index.html"].text
    assert "not run" in board  # mish on heat
    assert "1 of 3 diverged" in board  # relu on toy


def test_the_smoke_tier_comes_last_folded_and_marked(files: dict[str, bytes]) -> None:
    index = files["index.html"].decode()
    assert index.index('id="tier-quick"') < index.index('id="tier-smoke"')
    assert '<details class="tier"><summary><h2 id="tier-smoke">' in index
    assert "not evidence" in index
    assert "Not evidence" in pages_of(files)["task/smoke.toy.html"].text


def test_self_reported_results_are_listed_apart_and_on_no_board() -> None:
    rows = [*golden(), *rows_of("toy", "elu", [0.01, 0.02], trust="self-reported")]
    site = render(read_of(rows))
    index = pages_of(site)["index.html"].text
    assert "Self-reported, not ranked 1 result" in " ".join(index.split())
    assert "2 runs (self-reported: nobody has run it again)" in index
    assert "method/elu.html" not in site
    assert ",elu," not in site["runs.csv"].decode()
    assert "Self-reported, not ranked" not in render(read_of(golden()))["index.html"].decode()


def test_the_order_of_methods_is_explained_in_the_text(files: dict[str, bytes]) -> None:
    found = pages_of(files)
    assert "Best first by mean gain" in found["index.html"].text
    assert "Best first, each as it stands to the reference on the same seeds" in found["task/quick.toy.html"].text
    assert "First place is shared by" in found["task/quick.toy.html"].text


def test_the_overall_page_has_every_method_with_its_slot(files: dict[str, bytes]) -> None:
    page = pages_of(files)["overall.html"]
    rows = re.findall(r'<tr><th scope="row"><a href="method/([^"]+).html">', files["overall.html"].decode())
    assert set(rows) == {"golu", "mish", "relu", "lion"}
    assert {"index.html#quick-activation", "index.html#quick-optimizer"} <= set(page.links)
    assert "overall.html" in pages_of(files)["index.html"].links


def test_methods_run_on_few_tasks_stand_last_and_every_page_says_why() -> None:
    rows = [r for task in ("one", "two", "three") for r in rows_of(task, "reference", [1.0, 1.2])]
    for method in ("golu", "mish"):
        rows += [r for task in ("one", "two", "three") for r in rows_of(task, method, [0.9, 1.0])]
    files = render(read_of([*rows, *rows_of("one", "relu", [0.1, 0.2])]))
    says = (
        "1 method stands last, without a rank: run on fewer than half of the tasks that are meant for it and that most"
    )
    assert says in Page(files["index.html"].decode()).text
    assert says in files["LEADERBOARD.md"].decode()
    for path in ("index.html", "overall.html"):
        page = files[path].decode()
        assert re.findall(r'<tr class="partial"><th scope="row"><a href="method/(\w+).html"', page) == ["relu"]
        assert page.count("too few tasks") == 1
    assert "too few tasks" in files["method/relu.html"].decode()
    assert " of 3<" in files["method/golu.html"].decode()  # of the reference, golu and mish
    assert "without a rank" not in Page(render(read_of(rows))["index.html"].decode()).text


def test_aggregates_say_what_an_order_hangs_on() -> None:
    rows = [r for r in rich() if r["tier"] == "quick"]
    rows += [*rows_of("heat", "mish", [-1.1, -1.0, -1.2], family="pde", metric="log10_l2re", unit="log10")]
    source = render(read_of(rows))["aggregates.html"].decode()
    text = Page(source).text
    assert "one task left out" in text
    assert "place by mean rank one method left out" in text
    assert "Score profiles: the share of runs better than the reference by more than x" in text
    assert source.count('<svg class="chart"') == 1
    laddered = [
        r for s in (0.5, 2.0) for r in rows_of("heat", "reference", [-1 - s, -1.2 - s, -1.1 - s], budget=100 * s)
    ]
    facts = {"family": "pde", "metric": "log10_l2re", "unit": "log10"}
    text = Page(render(read_of([*rows, *(r | facts for r in laddered)]))["aggregates.html"].decode()).text
    assert "Performance profiles: the share of tasks on which a method is within 2^x of the best" in text


def test_a_task_page_shows_rank_intervals_letters_curves_cost_and_recipe(files: dict[str, bytes]) -> None:
    source, page = files["task/quick.toy.html"].decode(), pages_of(files)["task/quick.toy.html"]
    assert source.count('<svg class="chart"') == 3  # against steps, against seconds, cost and quality
    for words in ("1–", "ties", "1.25×", "1.20× to 1.30×", "slope = 0.25", "accuracy", "0.51", "diverged", "at commit"):
        assert words in page.text or words in source, words


def test_a_pde_page_shows_solution_prediction_and_error(files: dict[str, bytes]) -> None:
    source = files["task/quick.heat.html"].decode()
    assert source.count('<svg class="map"') == 5  # three of the reference, two of the best method
    assert source.count("data:image/png;base64,") == 10
    assert "u: prediction − solution" in source


def test_an_rlvr_page_shows_prompts_answers_and_rewards(files: dict[str, bytes]) -> None:
    text = pages_of(files)["task/quick.add.html"].text
    assert "04+50=" in text
    assert re.search(r"45 reward 1 .*46 reward 0, cut off", text)


def test_a_method_page_shows_doc_portrait_runs_and_commands(files: dict[str, bytes]) -> None:
    source, page = files["method/golu.html"].decode(), pages_of(files)["method/golu.html"]
    assert "https://arxiv.org/abs/2502.03654" in page.links
    assert '<span class="math">' in source
    assert "function and derivative, computed by the code that ran" in page.text
    assert "levelfield run --tasks toy --methods golu --tier quick --seeds 3" in page.text
    assert "../run/quick.toy.golu.html" in page.links


def test_a_method_page_starts_with_its_headline_on_every_board(files: dict[str, bytes]) -> None:
    found = pages_of(files)["method/golu.html"]
    assert "Where it stands" in found.text
    assert "default hyper-parameters, equal steps mean gain, seed sd +3.50" in found.text  # (1 + 6) / 2, cut off at 6
    assert "2 of 2" in found.text
    assert "../index.html#quick-activation" in found.links
    assert "Where it stands" not in pages_of(files)["method/reference.html"].text


def test_a_huge_difference_has_its_size_and_no_digits_without_meaning() -> None:
    wild = rows_of("toy", "elu", [3e7, 1e6, 2e7])
    page = pages_of(render(read_of([*golden(), *wild])))["task/quick.toy.html"]
    assert "−1.7e+07 −5.36e+07 to +1.96e+07" in page.text


def test_a_cell_has_a_page_with_every_run_its_curve_configuration_and_command(files: dict[str, bytes]) -> None:
    source, page = files["run/quick.toy.relu.html"].decode(), pages_of(files)["run/quick.toy.relu.html"]
    for r in golden()[9:12]:
        assert r["run_id"] in page.ids
        assert r["digest"][:10] in page.text
    for words in (
        "1 of 3 diverged", "training loss is not finite at step 12", "slope = 0.25", "1,234", "cccccccccc",
        "levelfield run --tasks toy --methods relu --tier quick --seeds 3", "one line a seed", "seed 2", "reproduced",
    ):  # fmt: skip
        assert words in page.text, words
    assert source.count('<svg class="chart"') == 1
    assert {"../method/relu.html", "../task/quick.toy.html#relu", "../index.html#env-e1"} <= set(page.links)


def test_every_run_shown_has_one_address(files: dict[str, bytes]) -> None:
    """The reference's, which is on several boards, too; its page has the ladder."""
    found = {path: page for path, page in pages_of(files).items() if path.startswith("run/")}
    ids = [i for page in found.values() for i in page.ids if re.fullmatch(r"[0-9a-f]{15,16}", i)]
    assert sorted(ids) == sorted(r["run_id"] for r in rich())
    ladder = found["run/quick.toy.reference.html"]
    assert len([i for i in ladder.ids if re.fullmatch(r"[0-9a-f]{15,16}", i)]) == 3 + 6
    assert "The reference's ladder" in ladder.text


def test_tuned_scores_stand_beside_the_default_ones() -> None:
    tuned = rows_of("toy", "golu", [0.3, 0.4, 0.5], trial=5, trials=8, set_hp='{"slope": 2}')
    trials = [row("toy", "golu", 1_000_000, 0.2 + i / 10, trial=i, trials=8, val_score=0.2 + i / 10) for i in range(8)]
    files = render(read_of([*golden(), *tuned, *trials]))
    found = pages_of(files)
    assert "best of 8" in found["index.html"].text
    assert "+4.00" in found["index.html"].text  # (1.2 - 0.4) / 0.2
    task = files["task/quick.toy.html"].decode()
    golu = re.search(r'<tr id="golu">.*?</tr>', task, re.S)
    assert golu is not None
    assert "+0.80" in golu[0]
    assert "run/quick-tuned8.toy.golu.html" in golu[0]
    assert "run/quick-tuned8.toy.reference.html" not in files  # the frozen reference's runs stand on its own page
    assert "What tuning buys" in task
    assert "best of 5" in found["task/quick.toy.html"].text
    assert "toy, tier quick: best of 8 trials, equal steps" in found["method/golu.html"].text  # its curve's caption


def test_a_column_without_any_value_is_left_out() -> None:
    untimed = [r | {"cost_ratio": None, "cost_low": None, "cost_high": None} for r in golden()]
    for path in ("index.html", "overall.html", "task/quick.toy.html", "method/golu.html"):
        assert "step time" in render(read_of(golden()))[path].decode()
        assert "step time" not in render(read_of(untimed))[path].decode()
    assert "nothing else on the machine was held still" in render(read_of(untimed))["task/quick.toy.html"].decode()


def test_the_downloads_of_the_view_hold_what_the_pages_show(files: dict[str, bytes]) -> None:
    for name in ("cells", "standings"):
        from_csv = pd.read_csv(io.BytesIO(files[f"{name}.csv"]), keep_default_na=False, na_values=[""])
        from_json = pd.read_json(io.BytesIO(files[f"{name}.json"]), orient="split", precise_float=True)
        from_parquet = pq.read_table(io.BytesIO(files[f"{name}.parquet"])).to_pandas()
        assert list(from_csv.columns) == list(from_json.columns) == list(from_parquet.columns)
        assert from_csv["method"].tolist() == from_json["method"].tolist() == from_parquet["method"].tolist()
        numbers = from_parquet.select_dtypes("float").columns
        assert len(numbers) > 5
        for other in (from_json, from_csv):
            pd.testing.assert_frame_equal(from_parquet[numbers], other[numbers].astype(float), rtol=1e-12)
    cells = pq.read_table(io.BytesIO(files["cells.parquet"])).to_pandas()
    mish = cells[(cells.method == "mish") & (cells.task == "toy")].iloc[0]
    assert mish.gain == pytest.approx(1.51 / 3)
    assert (mish.verdict, mish.n, mish.group, mish.rank_low) == ("better", 3, 1, 1)
    relu = cells[(cells.method == "relu") & (cells.task == "toy")].iloc[0]
    assert (relu.verdict, relu.failed) == ("worse", 1)
    slots = pq.read_table(io.BytesIO(files["standings.parquet"])).to_pandas()
    assert set(slots.family) == {"", "vision", "pde", "rlvr"}


def test_every_page_shows_the_command_that_makes_its_runs_again() -> None:
    tuned = rows_of("toy", "golu", [0.3, 0.4], trial=5, trials=8, set_hp='{"slope": 2}')
    gpu = {"budget_kind": "seconds", "environment": json.dumps({"device": "cuda", "hardware": "H"})}
    timed = [*rows_of("toy", "reference", [1.0, 1.2], **gpu), *rows_of("toy", "golu", [0.9, 1.0], **gpu)]
    ladder = rows_of("toy", "reference", [1.5, 1.6], budget=50.0)
    timed = [r | {"run_id": r["run_id"] + "s"} for r in timed]
    files = render(read_of([*golden(), *tuned, *timed, *ladder]))
    golu, base = (Page(files[f"method/{m}.html"].decode()).text for m in ("golu", "reference"))
    command = "--tasks toy --methods golu --tier quick --seeds"
    assert f"levelfield run {command} 3" in golu
    assert f"levelfield tune {command} 2 --trials 8" in golu
    assert f"levelfield run {command} 2 --budget seconds --device cuda" in golu
    assert "levelfield reference toy --tier quick --seeds 2" in base
    assert {"board/quick-tuned8.html", "task/quick-tuned8.toy.html"} <= set(files)
    assert "best of 8 trials, equal steps" in Page(files["index.html"].decode()).text
    assert "equal device time" in Page(files["index.html"].decode()).text


def test_provenance_and_what_is_left_out_are_visible() -> None:
    dirty = rows_of("toy", "silu", [1.0], set_hp='{"a": 1}')
    rows = [*golden(), *dirty, row("toy", "mish", 7, 1.0, dirty=True)]
    text = Page(render(read_of(rows, ["a.parquet: damaged"]))["index.html"].decode()).text
    assert "c" * 40 in text
    assert "with uncommitted changes" in text
    assert "hardware test" in text
    assert "1 run (hyper-parameters set by hand)" in text
    assert "a.parquet: damaged" in text


def test_downloads_hold_the_same_rows(files: dict[str, bytes]) -> None:
    rows = {r["run_id"]: r for r in rich()}
    from_csv = list(csv.DictReader(io.StringIO(files["runs.csv"].decode())))
    from_json = pd.read_json(io.BytesIO(files["runs.json"]), orient="split", dtype={"run_id": str})
    from_parquet = pq.read_table(io.BytesIO(files["runs.parquet"]))
    assert [r["run_id"] for r in from_csv] == from_json["run_id"].tolist() == from_parquet["run_id"].to_pylist()
    assert set(rows) == {r["run_id"] for r in from_csv}
    for found in from_csv:
        wanted = rows[found["run_id"]]["score"]
        assert found["score"] == ("" if wanted is None else repr(float(wanted)))
        assert found["message"] == rows[found["run_id"]]["message"]
    assert from_parquet["curve"].null_count == 0


def test_no_downloaded_text_is_a_spreadsheet_formula() -> None:
    rows = [*golden(), row("toy", "relu", 9, None, message="=HYPERLINK(1)")]
    found = list(csv.DictReader(io.StringIO(render(read_of(rows))["runs.csv"].decode())))
    assert "'=HYPERLINK(1)" in [r["message"] for r in found]


def test_two_builds_have_the_same_bytes_and_so_have_shuffled_rows(files: dict[str, bytes]) -> None:
    rows = rich()
    assert render(read_of(rows)) == files
    assert render(read_of(random.Random(3).sample(rows, len(rows)))) == files


def test_no_page_names_the_day_it_was_built(files: dict[str, bytes]) -> None:
    assert not any(re.search(rb"\b20\d\d-\d\d-\d\d\b", c) for p, c in files.items() if p.endswith((".html", ".md")))


def test_leaderboard_md_is_valid_markdown(files: dict[str, bytes]) -> None:
    blocks = re.split(r"\n\s*\n", files["LEADERBOARD.md"].decode())
    tables = [b.strip().splitlines() for b in blocks if b.strip().startswith("|")]
    assert len(tables) == 3  # quick: activations, optimizers; smoke: activations
    for lines in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) == 1
        assert re.fullmatch(r"(\| -{3}:? )+\|", lines[1])
    assert "+0.503 (+0.489 to +0.518)" in files["LEADERBOARD.md"].decode()


def test_markdown_is_escaped() -> None:
    assert escape("a|b <i> *x*\n[y](z)") == r"a\|b &lt;i&gt; \*x\* \[y\](z)"


@pytest.fixture
def evil(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A board whose every text tries to be markup: names, messages, docstring, paper, exhibits, hyper-parameters."""
    name = f'evil{EVIL}"onmouseover="x'
    doc = f"{EVIL} x = {EVIL}^2\n\nParameters\n----------\n{EVIL} : {EVIL}\n\n    {EVIL}\n\n- `{EVIL}`"
    paper = Paper(EVIL, url="javascript:alert(1)")
    method = Method(
        name=name, path="x", line=1, attribute="X", slot="activation", doc=doc, paper=paper, defaults={EVIL: EVIL}
    )
    monkeypatch.setitem(registry().methods, name, method)
    talk = {
        "transcripts": {
            "kind": "transcripts",
            "items": [{"prompt": EVIL, "completions": [{"text": EVIL, "reward": 1}]}],
        }
    }
    map_ = {"kind": "pde-map", "function": EVIL, "axes": [EVIL, EVIL], "lows": [0, 0], "highs": [1, 1]}
    map_ |= {"solution": [[0, 1], [1, 0]], "prediction": [[0, 1], [1, 0]], "error": [[0, 0], [0, 0]]}
    bad = {
        "hp": json.dumps({EVIL: EVIL}), "message": EVIL, "digest": EVIL, "commit": EVIL, "environment_hash": f'e"{EVIL}',
        "environment": json.dumps({EVIL: EVIL}), "method_hash": EVIL, "metrics": [(EVIL, 1.0)],
        "recipe": json.dumps({EVIL: {"method": EVIL, "hp": {EVIL: EVIL}}}), "unit": EVIL, "metric": EVIL,
        "budget_unit": EVIL, "slot": "activation", "family": EVIL, "task_hash": EVIL,
    }  # fmt: skip
    task = f"../../task{EVIL}"
    rows = [*rows_of(task, "reference", [1.0, 1.1], **bad), *rows_of(task, name, [0.5, None], **bad)]
    rows += rows_of(task, name, [0.25], **bad, trust=EVIL)
    rows[0]["exhibits"] = rows[2]["exhibits"] = json.dumps({"map": map_, **talk})
    for i, r in enumerate(rows):
        r["run_id"] = f'{EVIL}"{i}'
    return render(read_of(rows, [EVIL]))


def test_no_text_of_a_result_becomes_markup(evil: dict[str, bytes]) -> None:
    for path, content in evil.items():
        if path.endswith(".html"):
            text = content.decode()
            page = Page(text)
            assert page.tags.count("script") == 1, path  # the site's own
            assert EVIL not in text, path
            assert not re.search(r"<[^>]+\sonmouseover=", text), path
    assert "<script" not in evil["LEADERBOARD.md"].decode()


def test_no_name_leads_out_of_the_site(evil: dict[str, bytes]) -> None:
    assert all(".." not in path and "<" not in path and path.count("/") <= 1 for path in evil)


def test_only_https_papers_are_links(evil: dict[str, bytes]) -> None:
    assert not any("javascript:" in link for page in pages_of(evil).values() for link in page.links)
    assert safe_link("http://x.org") == safe_link("javascript:alert(1)") == safe_link("") == ""
    assert safe_link("https://x.org") == "https://x.org"


@pytest.mark.parametrize("name", ["golu", "a+b", "rel-bias.2"])
def test_plain_names_are_their_own_file_names(name: str) -> None:
    assert slug(name) == name


def test_names_that_differ_have_file_names_that_differ() -> None:
    names = ["a/b", "a_b", "a b", "../a", "", ".", "ä", "a" * 300 + "!"]
    assert len({slug(n) for n in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]*", slug(n)) for n in names)


@pytest.mark.parametrize(
    "stored", ["{", "[]", '{"kind": "pde-map", "solution": [[1], [1, 2]]}', '{"a": {"kind": "activation", "x": ["y"]}}',
               '{"t": {"kind": "transcripts", "items": [1, {"completions": [2]}]}}', '{"kind": "pde-map", "axes": 3, "solution": 1}'],
)  # fmt: skip
def test_a_damaged_exhibit_does_not_take_the_page_with_it(stored: str) -> None:
    rows = golden()
    rows[3]["exhibits"] = stored
    page = Page(render(read_of(rows))["method/golu.html"].decode())
    assert "Against the reference" in page.text


def test_write_replaces_a_site_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "site"
    written = write(read_of(rich()), out)
    assert written == sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    write(read_of(golden()), out)
    assert not (out / "task" / "quick.heat.html").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_write_refuses_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="holds other files"):
        write(read_of(golden()), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "x"


def test_a_build_that_fails_leaves_the_old_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "site"
    write(read_of(golden()), out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def broken(self: site._Site) -> Any:
        yield "index.html", b"half"
        raise OSError("disk full")

    monkeypatch.setattr(site._Site, "summary", broken)
    with pytest.raises(OSError, match="disk full"):
        write(read_of(golden()), out)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_differences_name_what_a_rebuild_would_change(tmp_path: Path) -> None:
    out = tmp_path / "site"
    read = read_of(golden())
    write(read, out)
    assert differences(read, out) == []
    (out / "index.html").write_text("edited by hand")
    (out / "extra.html").write_text("x")
    (out / "failures.html").unlink()
    assert differences(read, out) == ["extra.html", "failures.html", "index.html"]


def test_an_old_parquet_file_with_the_same_rows_is_no_difference(tmp_path: Path) -> None:
    out = tmp_path / "site"
    read = read_of(golden())
    write(read, out)
    pq.write_table(pq.read_table(out / "runs.parquet"), out / "runs.parquet", compression="gzip")
    assert differences(read, out) == []
    pq.write_table(pq.read_table(out / "runs.parquet").slice(1), out / "runs.parquet")
    assert differences(read, out) == ["runs.parquet"]


def test_a_build_needs_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from suite.store.files import Read\n"
        "from leaderboard.site import render\n"
        "print(len(render(Read())))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5


def test_an_empty_board_still_has_its_pages() -> None:
    files = render(read_of([], ["all.parquet: damaged"]))
    assert "all.parquet: damaged" in files["index.html"].decode()
    assert pq.read_table(io.BytesIO(files["runs.parquet"])).num_rows == 0
    assert json.loads(files["runs.json"])["data"] == []


def test_finished_times_decide_which_code_is_latest() -> None:
    late = row("toy", "golu", 0, 0.1, method_hash="m2", finished_at=START.replace(year=2027))
    rows = [*golden(), late | {"run_id": "late"}]
    assert table(rows).num_rows == 13
    assert "0.1000" not in Page(render(read_of(rows))["index.html"].decode()).text


def test_a_task_whose_ladder_is_flat_counts_in_no_effective_speedup_and_is_named() -> None:
    def task(name: str, worth: float) -> list[dict[str, Any]]:
        rungs = [(0.5, 1.0), (2.0, -worth)]
        ladder = [r for s, d in rungs for r in rows_of(name, "reference", [1.1 + d] * 3, budget=100 * s)]
        golu = rows_of(name, "golu", [0.95, 1.05, 1.15])
        return [*rows_of(name, "reference", [1.0, 1.1, 1.2]), *golu, *ladder]

    page = Page(
        render(read_of([*task("steep", 0.9), *task("other", 0.9), *task("level", 0.01)]))["index.html"].decode()
    )
    assert "Best first by effective speedup" in page.text
    assert "level does not count in it: there, one seed standard deviation above the reference is worth" in page.text
    assert re.search(r"golu 1\.0.{5,50} 2 of 3 ", page.text)
