"""The gate's rules: unchanged code passes; another function, a worse score or a dearer step does not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from suite.gate import report
from suite.gate.quality import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Batch,
    Facts,
    Verdict,
    definition,
    failures,
    finished,
    quality,
    unpaired,
)
from suite.gate.report import Report
from suite.gate.speed import Timing, against_stored, counters, step_time
from suite.gate.stepping import MIN_PAIRS, interleaved
from suite.registry import registry

TASK = Facts("digits-cnn", "smoke", "min")  # no noise stored: the margin is the sd of base's own seeds


def rows(scores: list[float | None], digests: list[str] | None = None, **more: object) -> pd.DataFrame:
    """Result rows of one cell; a score of None is a run that diverged."""
    return pd.DataFrame(
        {
            "seed": range(len(scores)),
            "score": [math.nan if s is None else s for s in scores],
            "status": ["diverged" if s is None else "ok" for s in scores],
            "message": ["loss is not finite" if s is None else "" for s in scores],
            "digest": digests or [f"{s}" for s in scores],
            "environment_hash": "here",
            "exhibits": "",
            **more,
        }
    )


def judged(
    base: list[float | None], head: list[float | None], fresh: Batch | None = None, task: Facts = TASK
) -> Verdict:
    return quality(task, "golu", rows(base), rows(head), lambda: fresh)


BASE = [0.50, 0.52, 0.49, 0.51, 0.53]
SD = float(np.std(BASE, ddof=1))
JITTER = np.random.default_rng(0).normal(0, 0.2 * SD, 5)
WORSE = list(np.array(BASE) + 3 * SD + JITTER)

# ---------------------------------------------------------------- quality


def test_bit_identical_curves_pass_by_the_first_rule() -> None:
    verdict = judged(BASE, BASE)
    assert (verdict.verdict, verdict.effect) == (PASS, 0.0)
    assert verdict.rule == "T0: 5 curves bit-identical"


def test_equal_digests_of_two_environments_are_not_taken_for_the_same_run() -> None:
    other = rows(BASE, environment_hash="elsewhere")
    assert quality(TASK, "golu", rows(BASE), other).rule.startswith("T1")


def test_a_difference_far_under_the_noise_passes_by_the_second_rule() -> None:
    verdict = judged(BASE, [b + e for b, e in zip(BASE, [1e-4, -1e-4, 2e-4, 0.0, -2e-4], strict=True)])
    assert verdict.verdict == PASS
    assert verdict.rule.startswith("T1")
    assert verdict.high < verdict.margin == pytest.approx(SD)
    assert verdict.detectable == pytest.approx(SD, rel=0.05)  # pairing leaves hardly any noise


def test_a_drop_of_three_seed_deviations_fails_once_fresh_seeds_confirm_it() -> None:
    same_again = Batch(np.array(BASE), np.array(WORSE)[::-1])
    verdict = judged(BASE, WORSE, same_again)
    assert verdict.verdict == FAIL
    assert verdict.effect == pytest.approx(3 * SD, rel=0.3)
    assert "T1: 5 pairs" in verdict.rule and "T2: 5 pairs" in verdict.rule
    assert 0 < verdict.false_alarm < 0.01 < verdict.power_2 < verdict.power_3 < 1


def test_a_first_batch_alone_fails_nothing() -> None:
    assert judged(BASE, WORSE).verdict == INCONCLUSIVE
    unlucky = judged(BASE, WORSE, Batch(np.array(BASE), np.array(BASE) + JITTER))
    assert unlucky.verdict == PASS
    assert abs(unlucky.effect) < SD  # the confirming batch is what is told, not a pool of both


def test_seeds_that_base_never_ran_are_compared_unpaired_and_more_strictly() -> None:
    head = rows(WORSE).assign(seed=range(10, 15))
    batch = unpaired(rows(BASE), head)
    assert not batch.paired
    verdict = judged(BASE, WORSE, batch)
    assert verdict.verdict == FAIL
    assert "unpaired" in verdict.rule
    close = [s + 1.5 * SD for s in BASE]
    assert judged(BASE, close, unpaired(rows(BASE), rows(close))).verdict == INCONCLUSIVE


def test_the_margin_is_the_larger_of_stored_noise_and_floor() -> None:
    known = replace(TASK, sd=0.01, floor=0.5)
    assert known.margin(BASE) == 0.5
    assert replace(known, floor=0.0).margin(BASE) == 0.01
    assert judged(BASE, WORSE, task=known).verdict == PASS  # under the floor
    assert TASK.margin([0.5, 0.5]) == pytest.approx(1e-6)  # no noise at all: any change beyond rounding counts
    info = registry().task("digits-cnn")
    assert Facts.of(info, "quick").sd == info.noise["quick"].sd
    assert Facts.of(info, "smoke").sd is None


def test_a_metric_to_maximise_is_worse_when_it_falls() -> None:
    task = replace(TASK, direction="max")
    assert judged(BASE, WORSE, task=task).effect == pytest.approx(-3 * SD, rel=0.3)
    assert judged(WORSE, BASE, Batch(np.array(WORSE), np.array(BASE)), task=task).verdict == FAIL


def test_a_gain_that_is_too_good_needs_a_review() -> None:
    verdict = judged(BASE, [b - 10 * SD + 1e-4 * i for i, b in enumerate(BASE)])
    assert verdict.verdict == INCONCLUSIVE
    assert "review" in verdict.rule


@pytest.mark.parametrize(("direction", "best"), [("min", 0.495), ("max", 0.525)])
def test_a_score_beyond_the_best_there_can_be_needs_a_review(direction: str, best: float) -> None:
    head = [b + 1e-4 * i for i, b in enumerate(BASE)]
    assert "beyond" in judged(BASE, head, task=replace(TASK, direction=direction, best=best)).rule
    assert "beyond" not in judged(BASE, head, task=replace(TASK, direction=direction, best=None)).rule


def test_one_seed_cannot_decide() -> None:
    assert judged([0.5], [0.6]).verdict == INCONCLUSIVE


# ---------------------------------------------------------------- failures


def test_a_run_that_now_diverges_fails_whatever_the_others_reach() -> None:
    head = rows([*BASE[:4], None])
    verdict = failures(TASK, "golu", rows(BASE), head)
    assert (verdict.verdict, verdict.effect) == (FAIL, 1.0)
    assert "seed 4 now ends as diverged: loss is not finite" in verdict.rule
    assert quality(TASK, "golu", rows(BASE), head).verdict == PASS  # of the runs that ended
    assert len(finished(rows(BASE), head).base) == 4


def test_failures_are_compared_as_counts() -> None:
    assert failures(TASK, "golu", rows([None, *BASE]), rows([*BASE, None])).verdict == PASS  # one before, one now
    assert failures(TASK, "golu", rows([None, *BASE]), rows([*BASE, 0.5])).effect == -1.0


def test_missing_runs_fail() -> None:
    verdict = failures(TASK, "golu", rows(BASE), rows(BASE[:3]))
    assert verdict.verdict == FAIL
    assert "seeds 3, 4 came back" in verdict.rule
    assert quality(TASK, "golu", rows([None, None]), rows([None, None], ["other", "digest"])).verdict == INCONCLUSIVE


# ---------------------------------------------------------------- definition


def portrait(y: float, points: int = 2) -> str:
    drawn = {"kind": "activation", "x": [0.0, 1.0][:points], "y": [0.0, y][:points], "dy": [0.5, 1.0][:points]}
    return json.dumps({"activation golu": drawn})


def test_another_function_under_the_same_name_fails() -> None:
    base = rows([0.5], exhibits=portrait(0.69))
    (verdict,) = definition(TASK, "golu", base, rows([0.5], exhibits=portrait(1.0)))
    assert verdict.verdict == FAIL
    assert "its value at x = 1 was 0.69 and is 1" in verdict.rule
    assert definition(TASK, "golu", base, base) == []
    assert definition(TASK, "golu", base, rows([0.5], exhibits=portrait(0.690001))) == []
    for changed in (portrait(math.nan), portrait(0.69, points=1)):
        assert [v.verdict for v in definition(TASK, "golu", base, rows([0.5], exhibits=changed))] == [FAIL]


# ---------------------------------------------------------------- counters


COUNTS = {"flops": 100.0, "elementwise": 100.0, "saved_bytes": 1000, "state_bytes": 0}


def test_exact_counts_fail_beyond_their_margin_and_only_there() -> None:
    head = {"flops": 100.0, "elementwise": 104.0, "saved_bytes": 1500, "state_bytes": 8}
    verdicts = {v.question: v.verdict for v in counters("t", "m", COUNTS, head)}
    assert verdicts == {"flops": PASS, "elements": PASS, "memory": FAIL, "optimizer state": FAIL}
    assert {v.verdict for v in counters("t", "m", head, COUNTS)} == {PASS}  # less is no regression


@pytest.mark.parametrize("lost", [None, math.nan, math.inf, "many"])
def test_a_count_that_is_gone_fails(lost: object) -> None:
    verdicts = {v.question: v.verdict for v in counters("t", "m", COUNTS, {**COUNTS, "flops": lost})}
    assert verdicts.pop("flops") == FAIL
    assert set(verdicts.values()) == {PASS}
    assert [v.question for v in counters("t", "m", {"flops": 1.0}, COUNTS)] == ["flops"]  # what base lacks is not held


# ---------------------------------------------------------------- step times


def timing(ratio: float, half: float = 0.02, itself: float = 0.01) -> Timing:
    return Timing(math.log(ratio), math.log(ratio) - half, math.log(ratio) + half, itself, 20)


@pytest.mark.parametrize(
    ("timings", "expected"),
    [
        ([timing(1.0)], PASS),
        ([timing(1.05)], PASS),
        ([timing(0.5)], PASS),
        ([timing(1.09)], INCONCLUSIVE),  # the interval holds the margin
        ([timing(1.5)], INCONCLUSIVE),  # not confirmed yet
        ([timing(1.5), timing(1.4)], FAIL),
        ([timing(1.5), timing(1.0)], PASS),
        ([timing(1.0, half=0.2), timing(1.5)], INCONCLUSIVE),
        ([timing(1.5, itself=0.06), timing(1.5)], INCONCLUSIVE),
        ([timing(1.5), timing(1.5, itself=0.06)], INCONCLUSIVE),
    ],
)
def test_a_slower_step_must_show_twice_on_a_machine_that_can_tell(timings: list[Timing], expected: str) -> None:
    verdict = step_time("t", "m", timings)
    assert verdict.verdict == expected
    assert verdict.low <= verdict.effect <= verdict.high
    assert verdict.detectable > verdict.margin == pytest.approx(0.1)


def test_a_machine_that_cannot_tell_says_so() -> None:
    verdict = step_time("t", "m", [timing(1.5, itself=0.2)] * 2)
    assert verdict.verdict == INCONCLUSIVE
    assert "too noisy: base against itself is 22% off" in verdict.rule


def test_both_intervals_of_two_stored_ratios_count() -> None:
    was = {"cost_ratio": 1.0, "cost_low": 0.9, "cost_high": 1.1}
    now = {"cost_ratio": 1.5, "cost_low": 1.4, "cost_high": 1.6}
    found = against_stored(was, now)
    assert [math.exp(v) for v in (found.value, found.low, found.high)] == pytest.approx([1.5, 1.4 / 1.1, 1.6 / 0.9])


def machine(seed: int, spread: float = 0.05, drift: float = 0.002) -> Callable[[float], Callable[[], float]]:
    """Clocks of a machine that slows down steadily and stalls now and then; one for each cost of a step."""
    draw, calls = np.random.default_rng(seed), iter(range(10**6))

    def clock(cost: float) -> Callable[[], float]:
        def steps() -> float:
            stalled = 5.0 if draw.random() < 0.05 else 1.0
            return cost * stalled * math.exp(drift * next(calls) + spread * draw.normal())

        return steps

    return clock


@pytest.mark.parametrize("cost", [0.8, 1.0, 1.3])
def test_interleaved_times_cover_the_true_ratio_on_a_machine_that_slows_down(cost: float) -> None:
    found = []
    for seed in range(40):
        clock = machine(seed)
        found.append(interleaved(clock(1.0), clock(cost), clock(1.0), seconds=60.0))
    covered = sum(t.low <= math.log(cost) <= t.high for t in found)
    assert covered >= 34  # 38 expected; fewer than 34 has a probability of 3%, and these seeds are fixed
    assert all(t.itself < 0.05 for t in found)
    assert all(t.pairs >= MIN_PAIRS for t in found)


def test_an_unchanged_step_never_fails_and_one_twice_as_slow_does() -> None:
    for seed in range(40):
        clock = machine(seed, spread=0.3)
        same = [interleaved(clock(1.0), clock(1.0), clock(1.0), seconds=0.0) for _ in range(2)]
        assert step_time("t", "m", same).verdict != FAIL
    clock = machine(0)
    slower = [interleaved(clock(1.0), clock(2.0), clock(1.0), seconds=60.0) for _ in range(2)]
    assert step_time("t", "m", slower).verdict == FAIL


def test_the_three_are_called_in_turn() -> None:
    calls: list[str] = []

    def step(name: str) -> Callable[[], float]:
        return lambda: calls.append(name) or 1.0  # type: ignore[func-returns-value]

    interleaved(step("b"), step("h"), step("a"), seconds=60.0)
    assert "".join(calls) == "bhhbbaab" * MIN_PAIRS


# ---------------------------------------------------------------- reports


def one(verdict: str, **more: object) -> Verdict:
    stated = {"task": "t", "method": "m", "question": "quality", "rule": "a rule", **more}
    return Verdict(verdict=verdict, **stated)  # type: ignore[arg-type]


def test_the_worst_verdict_counts_and_none_at_all_is_a_failure() -> None:
    for verdicts, expected, code in (
        ([PASS, PASS], PASS, 0),
        ([PASS, INCONCLUSIVE], INCONCLUSIVE, 4),
        ([PASS, INCONCLUSIVE, FAIL], FAIL, 1),
        ([], FAIL, 1),
    ):
        found = Report([one(v) for v in verdicts])
        assert (found.verdict, found.exit_code) == (expected, code)


NASTY = 'a | b <script> & "quotes" \x00\x1b[31m, 100%\nsecond: line'


def test_markdown_shows_what_failed_first_and_escapes_what_is_in_it() -> None:
    verdicts = [
        one(PASS, effect=0.1, low=0.0, high=0.2, margin=0.3, detectable=0.4, seconds=1.25),
        one(FAIL, rule=NASTY),
    ]
    text = report.markdown(Report(verdicts, ["a note"], seconds=12.0))
    failed, passed = text.index("| t | m | quality | FAIL"), text.index("| t | m | quality | PASS")
    assert failed < text.index("<details>") < passed
    assert "| +0.1 | [+0, +0.2] | +0.3 | +0.4 | 1.2 |" in text
    assert "a \\| b &lt;script>" in text
    assert "- a note" in text and "- cost: 12 s" in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_junit_holds_a_case_a_cell_and_question_and_any_text() -> None:
    verdicts = [one(PASS, tier="smoke", seconds=2.0), one(FAIL, rule=NASTY), one(INCONCLUSIVE, question="step time")]
    suite = ElementTree.fromstring(report.junit(Report(verdicts, seconds=3.0))).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    cases = {(c.get("classname"), c.get("name")): c for c in suite}
    assert cases["t.smoke", "m: quality"].get("time") == "2.000"
    failure = cases["t", "m: quality"].find("failure")
    assert failure is not None and 'a | b <script> & "quotes"' in failure.get("message", "")
    assert cases["t", "m: step time"].find("skipped") is not None
    empty = ElementTree.fromstring(report.junit(Report([])))
    assert empty.find(".//failure") is not None


def test_annotations_are_one_line_each_with_what_github_wants_escaped() -> None:
    lines = report.github(Report([one(PASS), one(FAIL, rule=NASTY), one(INCONCLUSIVE)]))
    assert [line.split(" ", 1)[0] for line in lines] == ["::error", "::warning"]
    assert "\n" not in lines[0]
    assert "100%25%0Asecond: line" in lines[0]
    assert lines[0].startswith("::error title=levelfield gate%3A quality::t, m: ")
    assert report.github(Report([])) == ["::error title=levelfield gate::nothing was compared"]


def test_json_has_no_number_that_json_cannot_hold() -> None:
    found = report.as_json(Report([one(FAIL, effect=math.inf, low=math.nan)]))
    assert json.loads(json.dumps(found, allow_nan=False))["cells"][0]["effect"] is None
    assert found["verdict"] == FAIL


def test_the_stated_rates_are_those_of_the_cells_together() -> None:
    cells = [
        one(PASS, false_alarm=0.01, power_2=0.6, power_3=0.9),
        one(PASS, false_alarm=0.02, power_2=0.8, power_3=1.0),
    ]
    rates = Report(cells).rates
    assert rates["false_alarm"] == pytest.approx(1 - 0.99 * 0.98)
    assert (rates["power_2"], rates["power_3"]) == (pytest.approx(0.7), pytest.approx(0.95))
    assert "3.0% of such gates FAIL" in report.markdown(Report(cells))
    assert math.isnan(Report([one(PASS, false_alarm=0.0)]).rates["false_alarm"])  # bit-identical: no noise was met
