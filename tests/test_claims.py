"""The claims ledger: complete, read strictly, judged from the rows that count, run where they are missing."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from scipy.stats import ttest_rel

from leaderboard.claims import aside
from suite.claim_runs import Plan
from suite.claims import Arm, Claim, ClaimError, judge, ledger, ledger_words, parse, select
from suite.effort import ProcessorTime, within
from suite.recipe import recipe_for
from suite.registry import registry
from suite.runner.spec import RunSpec
from suite.store.files import read
from suite.store.schema import RUNS

Levelfield = Callable[..., tuple[int, str, str]]

# ---------------------------------------------------------------- the project's ledger


def test_every_claim_of_the_catalogue_has_its_row() -> None:
    names = [claim.id for claim in ledger()]
    assert len(names) == len(set(names))
    catalogue = sorted({name.partition("/")[0] for name in names})
    assert len(catalogue) == 210
    assert set(catalogue) <= set(names)  # a variant stands beside its claim
    assert hashlib.sha256("\n".join(catalogue).encode()).hexdigest()[:16] == "5ad5ef4480851341"


def test_a_claim_is_tested_or_says_in_a_sentence_why_not() -> None:
    tested = {claim.id.partition("/")[0] for claim in ledger() if claim.arms}
    assert len(tested) >= 60
    for claim in ledger():
        assert bool(claim.arms) != bool(claim.reason), claim.id
        assert not claim.reason or re.fullmatch(r"[A-Z][^\n]{20,150}\.", claim.reason), claim.id
        assert re.fullmatch(r"(\d{4}\.\d{4,5})?", claim.paper.arxiv), claim.id


def test_a_paper_has_the_same_arxiv_id_in_the_ledger_as_with_its_methods() -> None:
    known = {m.paper.title.lower(): m.paper.arxiv for m in registry().methods.values() if m.paper and m.paper.arxiv}
    found = [(c.id, c.paper.arxiv, known[c.paper.title.lower()]) for c in ledger() if c.paper.title.lower() in known]
    assert len(found) > 40
    assert [(name, stated) for name, stated, wanted in found if stated != wanted] == []


def test_tasks_with_embedded_data_come_first() -> None:
    for claim in ledger():
        needs_data = [bool(registry().task(name).data) for name in claim.tasks]
        assert needs_data == sorted(needs_data), claim.id
        assert not claim.tasks or not needs_data[0] or claim.tier != "quick", claim.id


# ---------------------------------------------------------------- reading

GOOD = """
[mish-vs-relu]
paper = "Mish"
arxiv = "1908.08681"
statement = "Mish beats ReLU"
published = "+1 %"
a = "mish"
b = {method = "leaky-relu", negative_slope = 0.2}
tasks = ["shapes-cnn", "shapes-vit"]
metric = "accuracy"
direction = "A better"
"""


def test_a_claim_is_read() -> None:
    (claim,) = parse(GOOD)
    assert (claim.id, claim.paper.arxiv, claim.published, claim.tier) == ("mish-vs-relu", "1908.08681", "+1 %", "quick")
    assert claim.arms == {"A": Arm("mish"), "B": Arm("leaky-relu", {"negative_slope": 0.2})}
    assert claim.prediction == "mish better than leaky-relu (negative_slope = 0.2)"
    assert claim.methods == {"mish", "leaky-relu"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('a = "mish"', 'a = "mich"', r"\[mish-vs-relu\]: no method named 'mich'; did you mean mish"),
        ('"shapes-cnn"', '"shape-cnn"', "no task named 'shape-cnn'; did you mean shapes-cnn"),
        ('a = "mish"', 'a = "adam+gulo"', "no method named 'gulo'; did you mean"),
        ('a = "mish"', "a = 3", r"a takes a method's name or {method = name, setting = value}, got 3"),
        ('a = "mish"', "a = {slope = 0.2}", "a takes a method's name"),
        (
            "negative_slope",
            "negativ_slope",
            "b: leaky-relu has no hyper-parameter 'negativ_slope' .did you mean 'negative_slope'..; see",
        ),
        (
            'a = "mish"',
            'a = "grpo"',
            r"grpo \(objective\) does not fit shapes-cnn; see `levelfield methods --task shapes-cnn`",
        ),
        ('"shapes-vit"', '"shapes-cnn"', "names a task twice"),
        ('["shapes-cnn", "shapes-vit"]', '"shapes-cnn"', "tasks takes a list of names, got 'shapes-cnn'"),
        ('["shapes-cnn", "shapes-vit"]', "[]", "tasks takes a list of names"),
        (
            '"accuracy"',
            '"beauty"',
            "metric is one of accuracy, pass@4, pass@16, entropy, or left out for the primary one; got 'beauty'",
        ),
        ('"accuracy"', '"pass@4"', r"task shapes-cnn \(vision\) has no metric 'pass@4'"),
        ('"A better"', '"A wins"', "direction is one of A better, B better, equal, A no worse, got 'A wins'"),
        ('direction = "A better"', "", "states no direction; a claim that is not tested gives a reason"),
        (
            'direction = "A better"',
            'direction = "A better"\nreason = "Because."',
            "a reason why it is not tested and a comparison",
        ),
        ('a = "mish"', 'a = "mish+relu"', "'mish.relu' fills slot 'activation' twice"),
        (
            'direction = "A better"',
            'direction = "A better"\ntier = "full"',
            "task shapes-cnn has no tier 'full'; it has smoke, quick",
        ),
        ('statement = "Mish beats ReLU"', "", "states no statement"),
        ('paper = "Mish"', "paper = 3", "paper takes a text, got 3"),
        ("published", "publishd", "unknown field 'publishd' .did you mean 'published'..; there are a, arxiv"),
        ('{method = "leaky-relu", negative_slope = 0.2}', '"mish"', "a and b are the same"),
        ("[mish-vs-relu]", "mish-vs-relu = 3\n[other]", r"\[mish-vs-relu\]: is not a table"),
        ('paper = "Mish"', 'paper = "Mish', "not TOML: .*line 3"),
        ("[mish-vs-relu]", '[mish-vs-relu]\npaper = "a"\n[mish-vs-relu]', "not TOML"),
    ],
)
def test_what_is_wrong_with_a_claim_is_said_with_its_name(old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ClaimError, match=rf"^claims.toml: .*{says}"):
        parse(GOOD.replace(old, new))


def test_a_claim_that_is_not_tested_needs_only_a_reason() -> None:
    (claim,) = parse('[a]\npaper = "P"\nstatement = "S"\nreason = "No task."')
    assert (claim.arms, claim.tasks, claim.reason) == ({}, (), "No task.")


def test_claims_are_chosen_by_id_with_their_variants() -> None:
    claims = parse(
        GOOD + GOOD.replace("[mish-vs-relu]", '["mish-vs-relu/vit"]') + GOOD.replace("mish-vs-relu", "other")
    )
    assert [c.id for c in select(claims, ["mish-vs-relu"])] == ["mish-vs-relu", "mish-vs-relu/vit"]
    assert [c.id for c in select(claims, ["mish-vs-relu/vit", "other"])] == ["mish-vs-relu/vit", "other"]
    assert len(select(claims, [])) == 3
    with pytest.raises(ClaimError, match=r"no claim 'mish-vs-rel' .did you mean 'mish-vs-relu'"):
        select(claims, ["mish-vs-rel"])


# ---------------------------------------------------------------- judging

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(task: str, method: str, seed: int, score: float | None, **facts: Any) -> dict[str, Any]:
    """A result row; a score of None is a diverged run."""
    info = registry().task(task)
    number = f"{task}{method}{seed}{score}{sorted(facts.items())}"
    made = {
        "run_id": hashlib.sha256(number.encode()).hexdigest()[:16], "schema_version": 1, "task": task, "family": info.family,
        "task_hash": "t1", "method": method, "method_hash": "m1", "set_hp": "{}", "tier": "quick",
        "budget_kind": "steps", "budget": float(info.tiers["quick"].budget), "seed": seed, "trial": -1,
        "status": "ok" if score is not None else "diverged", "score": score,
        "metrics": [("accuracy", 1.0 - score), ("ce", score)] if score is not None else [],
        "finished_at": START + timedelta(seconds=seed),
    }  # fmt: skip
    return made | facts


def rows(task: str, method: str, scores: Iterable[float | None], **facts: Any) -> list[dict[str, Any]]:
    return [row(task, method, seed, score, **facts) for seed, score in enumerate(scores)]


def judged(claim: Claim | str, *groups: list[dict[str, Any]]) -> Any:
    claims = parse(claim) if isinstance(claim, str) else [claim]
    (found,) = judge(claims, pa.Table.from_pylist([r for group in groups for r in group], schema=RUNS))
    return found


PLAIN = GOOD.replace('metric = "accuracy"\n', "").replace('{method = "leaky-relu", negative_slope = 0.2}', '"relu"')
BASE = [0.50, 0.55, 0.45, 0.52, 0.48]
LESS = [0.40, 0.44, 0.36, 0.43, 0.37]


def test_a_verdict_on_every_task_and_on_all() -> None:
    found = judged(
        PLAIN,
        rows("shapes-cnn", "mish", LESS), rows("shapes-cnn", "relu", BASE),
        rows("shapes-vit", "mish", BASE), rows("shapes-vit", "relu", [*BASE[:4], 0.47]),
    )  # fmt: skip
    assert found.word == "holds"
    cnn, vit = found.tasks
    assert (cnn.task, cnn.word, vit.word) == ("shapes-cnn", "holds", "does not separate")
    assert cnn.difference == pytest.approx(0.10)  # cross-entropy: lower is better
    assert (cnn.n, cnn.failed, found.total.n) == (5, (0, 0), 2)
    assert len(found.runs) == 20
    assert {r.side for r in found.runs} == {"A", "B"}


def test_the_predicted_winner_may_stand_second() -> None:
    data = rows("shapes-cnn", "mish", LESS), rows("shapes-cnn", "relu", BASE)
    found = judged(PLAIN.replace("A better", "B better"), *data)
    assert found.word == "opposite"
    assert found.tasks[0].difference == pytest.approx(0.10)  # still A - B
    assert found.tasks[0].low > 0
    assert judged(PLAIN, *data).tasks[0].p == found.tasks[0].p


def test_another_metric_has_its_own_direction() -> None:
    text = PLAIN.replace('direction = "A', 'metric = "accuracy"\ndirection = "A')
    found = judged(text, rows("shapes-cnn", "mish", LESS), rows("shapes-cnn", "relu", BASE))
    assert found.word == "holds"
    assert found.runs[0].score == pytest.approx(0.60)
    bare = [r | {"metrics": []} for r in rows("shapes-cnn", "mish", LESS)]
    assert judged(text, bare, rows("shapes-cnn", "relu", BASE)).why == "no runs of both sides yet"


def test_equality_is_judged_by_the_noise_of_the_task() -> None:
    text = PLAIN.replace("A better", "equal")
    sd = registry().task("shapes-cnn").noise["quick"].sd
    near = [x + 0.1 * sd * (-1) ** i for i, x in enumerate(BASE)]
    found = judged(text, rows("shapes-cnn", "mish", near), rows("shapes-cnn", "relu", BASE))
    assert (found.word, found.tasks[0].margin) == ("holds", sd)
    far = [x + 5 * sd for x in BASE]
    assert judged(text, rows("shapes-cnn", "mish", far), rows("shapes-cnn", "relu", BASE)).word == "opposite"
    no_worse = PLAIN.replace("A better", "A no worse")
    assert judged(no_worse, rows("shapes-cnn", "mish", far), rows("shapes-cnn", "relu", BASE)).word == "opposite"
    assert judged(no_worse, rows("shapes-cnn", "relu", far), rows("shapes-cnn", "mish", BASE)).word == "holds"


def test_an_effect_is_in_no_smaller_unit_than_the_floor_of_the_task() -> None:
    floor = registry().task("shapes-cnn").noise["quick"].floor
    assert floor > 0
    steady = [[0.5 + 1e-8 * i for i in range(5)], [0.5 + 2 * floor + 3e-8 * i for i in range(5)]]
    mish, relu = (rows("shapes-cnn", name, values) for name, values in zip(("mish", "relu"), steady, strict=True))
    found = judged(PLAIN, mish, relu)
    assert (found.word, round(found.total.difference, 4)) == ("holds", 2.0)
    own = judged(PLAIN.replace('direction = "A', 'metric = "accuracy"\ndirection = "A'), mish, relu)
    assert own.total.difference > 1e4  # of another metric no floor is known


@pytest.mark.parametrize("way", ["equal", "A no worse"])
def test_two_sides_that_learned_nothing_are_not_called_equal(way: str) -> None:
    text = PLAIN.replace("A better", way)
    info = registry().task("shapes-cnn")
    chance, sd = info.metric.chance, info.noise["quick"].sd
    assert chance is not None
    flat = [chance + 1e-4 * i for i in range(5)]
    learned = rows("shapes-vit", "mish", BASE), rows("shapes-vit", "relu", BASE)
    found = judged(text, rows("shapes-cnn", "mish", flat), rows("shapes-cnn", "relu", flat), *learned)
    assert (found.word, [t.word for t in found.tasks]) == ("does not separate", ["does not separate", "holds"])
    assert (found.total.idle, [t.idle for t in found.tasks]) == (True, [True, False])
    assert aside(found) == "neither side beats chance on shapes-cnn: alike says nothing there"
    within = [x - 0.9 * sd for x in flat]  # the luck of a seed is no learning
    assert judged(text, rows("shapes-cnn", "mish", within), rows("shapes-cnn", "relu", within)).total.idle
    one = [*flat[:4], chance - 3 * sd]
    assert not judged(text, rows("shapes-cnn", "mish", one), rows("shapes-cnn", "relu", one)).total.idle
    assert judged(text, *learned).word == "holds"
    crashed = judged(text, rows("shapes-cnn", "mish", flat), rows("shapes-cnn", "relu", [None] * 5))
    assert (crashed.total.idle, crashed.word) == (True, "opposite" if way == "equal" else "does not separate")
    twins = [rows("shapes-cnn", name, flat, digest="c1") for name in ("mish", "relu")]
    found = judged(text, *twins)  # the same curves to the last bit: the same training, whatever it learned
    assert (found.word, found.total.idle) == ("holds", False)
    assert judged(text, twins[0], [*twins[1][:4], twins[1][4] | {"digest": "c2"}]).total.idle
    far = [x + 5 * sd for x in flat]  # worse than chance on one side: as bad as it says
    assert judged(text, rows("shapes-cnn", "mish", far), rows("shapes-cnn", "relu", flat)).word == "opposite"


def test_a_better_side_may_be_one_of_two_that_learned_nothing() -> None:
    chance = registry().task("shapes-cnn").metric.chance or 0.0
    flat = [chance + 1e-4 * i for i in range(5)]
    found = judged(PLAIN, rows("shapes-cnn", "mish", [x - 1e-3 for x in flat]), rows("shapes-cnn", "relu", flat))
    assert (found.word, found.total.idle) == ("holds", False)
    assert (found.unlearned, aside(found)) == (["shapes-cnn"], "neither side beats chance on shapes-cnn")
    learned = judged(PLAIN, rows("shapes-cnn", "mish", LESS), rows("shapes-cnn", "relu", BASE))
    assert (learned.word, learned.unlearned, aside(learned)) == ("holds", [], "")
    alike = judged(PLAIN, rows("shapes-cnn", "mish", flat[::-1]), rows("shapes-cnn", "relu", flat))
    assert alike.word == "does not separate" and alike.unlearned == ["shapes-cnn"]
    assert re.fullmatch(r"a true difference of .* sd .*; neither side beats chance on shapes-cnn", aside(alike))
    own = PLAIN.replace('direction = "A', 'metric = "accuracy"\ndirection = "A')  # what it measures is measured anyhow
    assert judged(own, rows("shapes-cnn", "mish", flat), rows("shapes-cnn", "relu", flat)).unlearned == []


def test_a_verdict_is_held_against_all_comparisons_that_look_for_a_better_side() -> None:
    others = "".join(
        PLAIN.replace("[mish-vs-relu]", f"[{name}]").replace('"mish"', f'"{name}"').replace('"A better"', f'"{way}"')
        for name, way in (("gelu", "A better"), ("silu", "B better"), ("golu", "equal"), ("selu", "A better"))
    )
    found = judge(
        parse(PLAIN + others),
        pa.Table.from_pylist(
            [
                *rows("shapes-cnn", "relu", BASE), *rows("shapes-cnn", "mish", LESS), *rows("shapes-cnn", "golu", LESS),
                *rows("shapes-cnn", "gelu", [0.49, 0.54, 0.46, 0.52, 0.49]),
                *rows("shapes-cnn", "silu", [0.51, 0.60, 0.49, 0.53, 0.53]),
            ],
            schema=RUNS,
        ),
    )  # fmt: skip
    assert [j.word for j in found] == ["holds", "does not separate", "holds", "opposite", "not tested"]
    assert [j.alone for j in found] == [False] * 5
    mish, gelu, silu = found[:3]
    assert silu.total.p == pytest.approx(ttest_rel(BASE, [0.51, 0.60, 0.49, 0.53, 0.53]).pvalue)
    assert (mish.q, silu.q, gelu.q) == pytest.approx((3 * mish.total.p, 1.5 * silu.total.p, gelu.total.p))
    assert math.isnan(found[3].q)
    assert math.isnan(found[4].q)
    assert ledger_words(found) == (
        "2 of the 2 that find a better side stand at a false discovery rate of 5% over all 3 comparisons that look for "
        "one"
    )
    assert replace(silu, q=0.06).alone
    assert ledger_words([mish, replace(silu, q=0.06)]).startswith("1 of the 2 ")
    assert ledger_words(found[3:]) == ""


def test_only_rows_that_may_be_compared_count() -> None:
    good = [rows("shapes-cnn", "mish", LESS), rows("shapes-cnn", "relu", BASE)]
    wrong = {
        "set_hp": '{"slope": 1}', "trial": 3, "budget": 1.0, "budget_kind": "seconds", "tier": "smoke", "status": "skipped",
    }  # fmt: skip
    noise = [rows("shapes-cnn", "relu", [0.1] * 5, **{key: value}) for key, value in wrong.items()]
    early = START - timedelta(days=1)
    noise += [
        rows("shapes-cnn", "relu", [0.1] * 5, **{key: "old"}, finished_at=early) for key in ("task_hash", "method_hash")
    ]
    found = judged(PLAIN, *good, *noise)
    assert found.runs == judged(PLAIN, *good).runs
    assert found.tasks[0].difference == pytest.approx(0.10)
    again = row("shapes-cnn", "relu", 0, 9.0, finished_at=START + timedelta(days=1))
    assert judged(PLAIN, *good, [again]).runs[-5].score == 9.0  # the latest run of a seed


def test_new_code_of_a_task_makes_older_runs_of_both_sides_stale() -> None:
    new = rows("shapes-cnn", "gelu", [0.5], task_hash="t2", finished_at=START + timedelta(days=1))
    found = judged(PLAIN, rows("shapes-cnn", "mish", LESS), rows("shapes-cnn", "relu", BASE), new)
    assert (found.word, found.why) == ("not tested", "no runs of both sides yet")


def test_set_hyper_parameters_are_matched_however_they_are_written() -> None:
    text = PLAIN.replace('"mish"', '{method = "leaky-relu", negative_slope = 1}')
    written = rows("shapes-cnn", "leaky-relu", LESS, set_hp='{"negative_slope": 1.0}')
    other = rows("shapes-cnn", "leaky-relu", BASE, set_hp='{"negative_slope": 0.5}')
    found = judged(text, written, other, rows("shapes-cnn", "relu", BASE))
    assert (found.word, [r.score for r in found.runs if r.side == "A"]) == ("holds", LESS)


def recipe(task: str, method: str, **hp: Any) -> str:
    return json.dumps(recipe_for(registry().task(task), method, hp).as_dict())


def test_the_reference_stands_in_for_the_method_that_it_holds() -> None:
    reference = rows("shapes-cnn", "reference", BASE, recipe=recipe("shapes-cnn", "relu"))
    mine = rows("shapes-cnn", "mish", LESS, recipe=recipe("shapes-cnn", "mish"))
    found = judged(PLAIN, mine, reference)
    assert (found.word, found.tasks[0].n) == ("holds", 5)
    assert [r.run_id for r in found.runs if r.side == "B"] == [r["run_id"] for r in reference]
    turned = judged(
        PLAIN.replace('"relu"', '"reference"'), mine, rows("shapes-cnn", "relu", BASE, recipe=reference[0]["recipe"])
    )
    assert turned.tasks[0] == found.tasks[0]

    own = row("shapes-cnn", "relu", 2, 0.9, finished_at=START - timedelta(days=1))
    found = judged(PLAIN, mine, reference, [own])
    assert [r.score for r in found.runs if r.side == "B"] == [0.50, 0.55, 0.9, 0.52, 0.48]  # a seed's own row first


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"recipe": recipe("shapes-cnn", "nesterov", lr=0.3)}, "another learning rate"),
        ({"recipe": recipe("shapes-cnn", "gelu")}, "another activation"),
        ({"recipe": "{"}, "unreadable"),
        ({"recipe": None}, "not stated"),
        ({"task": "digits-cnn", "recipe": recipe("digits-cnn", "relu")}, "another task"),
        ({"trial": 3}, "a tuning trial"),
        ({"budget": 7.0}, "another budget"),
        ({"trust": "self-reported"}, "not first-hand"),
    ],
)
def test_only_the_same_recipe_stands_in(changed: dict[str, Any], why: str) -> None:
    same = {"recipe": recipe("shapes-cnn", "relu")}
    mine = rows("shapes-cnn", "mish", LESS)
    assert judged(PLAIN, mine, rows("shapes-cnn", "reference", BASE, **same)).word == "holds"
    found = judged(PLAIN, mine, [r | changed for r in rows("shapes-cnn", "reference", BASE, **same)])
    assert (found.word, found.why) == ("not tested", "no runs of both sides yet"), why


def test_two_names_of_one_recipe_share_their_runs() -> None:
    text = PLAIN.replace('"relu"', '"gelu+batchnorm"')
    one = recipe("shapes-cnn", "gelu")
    assert one == recipe("shapes-cnn", "gelu+batchnorm") != recipe("shapes-cnn", "reference")
    old = rows("shapes-cnn", "gelu", [0.1] * 5, recipe=one, method_hash="old", finished_at=START - timedelta(days=1))
    found = judged(text, rows("shapes-cnn", "mish", LESS), old, rows("shapes-cnn", "gelu", BASE[:4], recipe=one))
    assert [r.score for r in found.runs if r.side == "B"] == BASE[:4]  # of the latest code
    assert found.word == "holds"


def test_failures_are_counted_and_decide_where_nothing_else_does() -> None:
    found = judged(PLAIN, rows("shapes-cnn", "mish", BASE), rows("shapes-cnn", "relu", [None] * 5))
    assert (found.word, found.tasks[0].failed, found.tasks[0].n) == ("holds", (0, 5), 0)
    assert math.isnan(found.total.difference)
    turned = judged(
        PLAIN.replace("A better", "B better"), rows("shapes-cnn", "mish", BASE), rows("shapes-cnn", "relu", [None] * 5)
    )
    assert (turned.word, turned.tasks[0].failed) == ("opposite", (0, 5))


def test_one_seed_tests_nothing() -> None:
    found = judged(PLAIN, rows("shapes-cnn", "mish", LESS[:1]), rows("shapes-cnn", "relu", BASE[:1]))
    assert (found.word, found.why) == ("not tested", "fewer than two pairs of seeds")


# ---------------------------------------------------------------- the command

TOYS = """
[more]
paper = "A paper"
statement = "one more operation changes nothing"
published = "0"
a = "toy-more"
b = "reference"
tasks = ["toy"]
tier = "smoke"
direction = "equal"

["more/raises"]
paper = "A paper"
statement = "an operation that works is better than one that does not"
a = "toy-more"
b = {method = "toy-descent+toy-raises", lr = 0.2}
tasks = ["toy"]
tier = "smoke"
direction = "A better"

[never]
paper = "Another paper"
statement = "time passes"
reason = "No task waits."
"""


def test_the_command_runs_what_is_missing_and_judges_by_all_folders(levelfield: Levelfield, toy: Path) -> None:
    (toy / "mine.toml").write_text(TOYS)
    command = ["claims", "--ledger", toy / "mine.toml", "--out", toy / "out", "--results", toy / "none"]
    code, out, _ = levelfield(*command)
    assert code == 0
    assert re.search(r"^more +toy-more equal to reference +not tested .* no runs of both sides yet$", out, re.M)
    assert re.search(r"^never +No task waits\.$", out, re.M)
    assert out.endswith("2 claims, 1 of which no task tests; comparisons: 2 wait for runs (--run)\n")

    run = ["--run", "--seeds", "3", "--workers", "1", "--cost", "0"]
    code, out, err = levelfield(*command, *run)
    assert code == 0, err
    assert re.search(r"^more +toy-more equal to reference +holds +0 +0 to 0 ", out, re.M)
    assert re.search(
        r"^more/raises +toy-more better than toy-descent\+toy-raises \(lr = 0\.2\) +does not separate", out, re.M
    )
    assert re.search(r"^toy +does not separate .* 0, 3$", out, re.M)  # 3 failures of 3 are no proof
    assert "not finished: toy, 3 runs (toy-descent+toy-raises): error: ValueError: no line today" in out
    assert len((toy / "log").read_text().splitlines()) == 9  # toy-more once for both claims

    elsewhere = ["--out", toy / "other", "--results", toy / "out", "--ids", "more/raises", "--json"]
    code, out, _ = levelfield("claims", "--ledger", toy / "mine.toml", *elsewhere, *run[:2], "6", *run[3:])
    assert code == 0
    assert len((toy / "log").read_text().splitlines()) == 15  # seeds 3 to 5 of both sides, nothing twice
    (found,) = json.loads(out)["claims"]
    assert (found["verdict"], found["total"]["difference"], found["tasks"][0]["failed"]) == ("holds", None, [0, 6])
    assert found["B"] == {"method": "toy-descent+toy-raises", "hp": {"lr": 0.2}}
    stored = {r["run_id"] for r in read([toy / "out", toy / "other"]).table.to_pylist()}
    assert {r["run_id"] for r in found["runs"]} <= stored
    assert len(found["runs"]) == 12


SAME = """
["same"]
paper = "A paper"
statement = "one more operation changes nothing"
a = "toy-more"
b = "toy-plain"
tasks = ["toy"]
tier = "smoke"
direction = "equal"

["same/descent"]
paper = "A paper"
statement = "one more operation changes nothing"
a = "toy-more+toy-descent"
b = {method = "toy-descent", lr = 0.1}
tasks = ["toy"]
tier = "smoke"
direction = "equal"
"""


def test_names_of_one_recipe_are_run_once_and_listed_before(levelfield: Levelfield, toy: Path) -> None:
    (toy / "mine.toml").write_text(SAME)
    command = ["claims", "--ledger", toy / "mine.toml", "--out", toy / "out", "--results", toy / "none"]
    command += ["--workers", "1", "--cost", "0", "--seeds"]
    code, out, _ = levelfield(*command, "2", "--dry-run")
    assert code == 0
    runs = r"4 runs, processor time unknown"
    assert re.search(rf"^same +{runs} +unknown +toy: toy-more x2, reference x2$", out, re.M)
    assert re.search(rf"^same/descent +{runs} +unknown +toy: toy-more x2, reference x2$", out, re.M)
    assert out.endswith(f"\nall claims together, no run twice: {runs}\n")
    assert not (toy / "out").exists()

    code, out, err = levelfield(*command, "2", "--run", "--hours", "1")
    assert (code, err.splitlines()[:2]) == (0, [f"missing: {runs}", "within 1 h: 0 of 2 comparisons, no run"])
    assert not (toy / "log").exists()  # nobody knows what a run takes
    code, _, err = levelfield(*command, "2", "--hours", "1")
    assert (code, "give both" in err) == (2, True)

    code, out, err = levelfield(*command, "2", "--run", "--ids", "same/descent")
    assert (code, err.splitlines()[0]) == (0, f"missing: {runs}")
    assert "0 to 0" in out
    assert len((toy / "log").read_text().splitlines()) == 4

    code, out, _ = levelfield(*command, "3", "--dry-run", "--json")
    for claim in json.loads(out):  # seed 2 is new, and the time that a run of the others took is known
        assert (claim["unknown"], [(m["method"], m["seed"]) for m in claim["missing"]]) == (
            0, [("toy-more", 2), ("reference", 2)],
        )  # fmt: skip
        assert 0 < claim["seconds"] == claim["so_far"] < 100  # the second claim needs what the first does
    code, out, err = levelfield(*command, "2", "--run", "--json")
    assert {c["verdict"] for c in json.loads(out)["claims"]} == {"holds"}
    assert len((toy / "log").read_text().splitlines()) == 4  # nothing was missing


def times(*groups: list[dict[str, Any]]) -> ProcessorTime:
    return ProcessorTime(pa.Table.from_pylist([r for group in groups for r in group], schema=RUNS))


def spec(method: str, seed: int = 0) -> RunSpec:
    return RunSpec("digits-cnn", method, seed=seed)


def test_the_claim_goes_first_that_needs_the_least_beside_those_before() -> None:
    known = times(
        *(rows("digits-cnn", name, BASE[:1], cpu_seconds=s) for name, s in (("gelu", 2000.0), ("mish", 1000.0))),
        rows("digits-cnn", "silu", BASE[:1], cpu_seconds=2500.0),
    )
    assert math.isnan(known.of(RunSpec("shapes-vit", "gelu")))
    missing = {
        "unknown": [RunSpec("shapes-vit", "gelu")],
        "silu": [spec("silu")],
        "both": [spec("gelu"), spec("mish"), spec("mish", 1)],
        "gelu": [spec("gelu")],
        "nothing": [],
    }
    steps = Plan(missing, missing).steps(known)
    assert [(s.name, s.specs, s.seconds) for s in steps[:3]] == [
        ("gelu", [spec("gelu")], 2000.0),
        ("both", [spec("mish"), spec("mish", 1)], 4000.0),  # less than silu once gelu has run
        ("silu", [spec("silu")], 6500.0),
    ]
    assert [s.name for s in steps[3:]] == ["unknown"]
    assert math.isnan(steps[3].seconds)
    for hours, fit in ((0.5, 0), (1.0, 1), (4000 / 3600, 2), (1.5, 2), (100.0, 3)):
        assert within(steps, hours) == steps[:fit]


def test_a_bad_ledger_or_id_is_one_message(levelfield: Levelfield, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD.replace("mish", "mich"))
    for arguments, says in (
        (
            ["--ledger", tmp_path / "mine.toml"],
            r"mine\.toml: \[mich-vs-relu\]: no method named 'mich'; did you mean mish",
        ),
        (["--ids", "mish-vs-rel"], "no claim 'mish-vs-rel' .did you mean 'mish-vs-relu'"),
        (["--ledger", tmp_path / "none.toml"], "none.toml"),
    ):
        code, out, err = levelfield("claims", *arguments)
        assert (code, out) == (2, "")
        assert re.search(says, err), err


def test_the_whole_ledger_is_listed(levelfield: Levelfield, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = levelfield("claims", "--json")
    assert code == 0
    listed = json.loads(out)["claims"]
    assert [c["id"] for c in listed] == [c.id for c in ledger()]
    assert {c["verdict"] for c in listed} == {"not tested"}
    assert all(c["why"] for c in listed)
