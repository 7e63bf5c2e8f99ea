"""What the gate promises: error rates by simulation, and injected regressions in real trees."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import suite
from suite.gate.compare import Gate
from suite.gate.quality import FAIL, PASS, Batch, Facts, finished, quality
from suite.gate.report import Report
from suite.gate.sides import Tree
from suite.gate.speed import counters
from suite.runner.cost import counters as count
from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.stats.verdict import t2_decision
from suite.train.loop import Trainer

CELLS, SEEDS, SD = 24, 5, 1.0
TASK = Facts("task", "quick", "min", sd=SD, floor=0.0)

# ---------------------------------------------------------------- error rates, by the gate's own decisions


def failed(rng: np.random.Generator, cells: int, shift: float, paired: bool = True) -> np.ndarray:
    """Which of `cells` independent cells with a true shift FAIL; base and head share no noise (the worst case)."""
    base, head, base_again, head_again = rng.normal(0, SD, (4, cells, SEEDS))
    out = np.zeros(cells, dtype=bool)
    for i in range(cells):
        first = Batch(base[i], head[i] + shift).decide(SD, "min")
        if first.verdict == FAIL:
            second = Batch(base_again[i] if paired else base[i], head_again[i] + shift, paired).decide(SD, "min")
            out[i] = t2_decision(first, second) == FAIL
    return out


def stated() -> Report:
    """The report of one suite, whose verdicts state their rates."""
    rng = np.random.default_rng(1)

    def drawn() -> pd.DataFrame:
        return frame(rng.normal(0, SD, SEEDS))

    return Report([quality(TASK, "m", drawn(), drawn(), lambda: finished(drawn(), drawn())) for _ in range(CELLS)])


def frame(scores: np.ndarray) -> pd.DataFrame:
    words = {"digest": [str(s) for s in scores], "status": "ok", "message": "", "environment_hash": ""}
    return pd.DataFrame({"seed": range(len(scores)), "score": scores, **words})


def test_about_two_in_a_hundred_unchanged_suites_fail_and_the_report_says_so() -> None:
    suites = 600
    fails = failed(np.random.default_rng(0), suites * CELLS, 0.0).reshape(suites, CELLS).any(axis=1).mean()
    assert fails == pytest.approx(0.021, abs=0.015)
    assert stated().rates["false_alarm"] == pytest.approx(0.021, abs=0.002)


@pytest.mark.parametrize(("shift", "power", "key"), [(2.0, 0.68, "power_2"), (3.0, 0.97, "power_3")])
def test_a_shift_of_two_or_three_seed_deviations_is_found_as_often_as_stated(
    shift: float, power: float, key: str
) -> None:
    found = failed(np.random.default_rng(2), 1500, shift * SD).mean()
    assert found == pytest.approx(power, abs=0.035)
    assert stated().rates[key] == pytest.approx(power, abs=0.02)


@pytest.mark.slow
def test_unpaired_confirmation_keeps_the_false_alarms_of_the_paired_one() -> None:
    suites = 1500
    fails = (
        failed(np.random.default_rng(3), suites * CELLS, 0.0, paired=False).reshape(suites, CELLS).any(axis=1).mean()
    )
    assert fails == pytest.approx(0.023, abs=0.015)
    assert failed(np.random.default_rng(4), 1500, 3.0, paired=False).mean() == pytest.approx(0.82, abs=0.04)


def test_plain_significance_on_every_cell_would_fail_most_unchanged_suites() -> None:
    """Why the rules are what they are: p < .05 alone."""
    d = np.random.default_rng(5).normal(0, SD, (2000, CELLS, SEEDS))
    t = d.mean(-1) / (d.std(-1, ddof=1) / math.sqrt(SEEDS))
    assert (t > 2.132).any(axis=1).mean() == pytest.approx(0.71, abs=0.04)


# ---------------------------------------------------------------- injected regressions: exact counters

GOLU = """
import torch
from torch import nn
from suite import activation

@activation("base-golu")
class Base(nn.Module):
    "x exp(-exp(-x))."
    def forward(self, x):
        x = x.clamp(min=-10.0)
        return x * torch.exp(-torch.exp(-x))

@activation("slow-golu")
class Slow(Base):
    "The same, and one pass over the elements more."
    def forward(self, x):
        return super().forward(x) * 1.0

@activation("fat-golu")
class Fat(Base):
    "The same, and three tensors more kept for the backward pass."
    def forward(self, x):
        y = super().forward(x)
        for _ in range(3):
            y = y * torch.ones_like(y)
        return y
"""


def counted(method: str) -> dict[str, float]:
    spec = RunSpec("digits-cnn", method, "smoke")
    return count(Trainer(make_workload(spec), spec.recipe, spec.given))


def test_an_extra_pass_and_half_as_much_memory_again_fail_by_exact_counts(entry: Callable[..., Path]) -> None:
    """A clock on a shared machine would need a 20% slower activation to be seen; the counts need nothing of the kind."""
    entry(GOLU)
    base, slow, fat = (counted(name) for name in ("base-golu", "slow-golu", "fat-golu"))
    assert {v.verdict for v in counters("digits-cnn", "golu", base, base)} == {PASS}
    verdicts = {v.question: v for v in counters("digits-cnn", "golu", base, slow)}
    assert verdicts["elements"].verdict == FAIL
    assert verdicts["flops"].verdict == PASS
    memory = next(v for v in counters("digits-cnn", "golu", base, fat) if v.question == "memory")
    assert memory.verdict == FAIL
    assert memory.effect == pytest.approx(0.5, abs=0.1)


# ---------------------------------------------------------------- injected regressions: whole trees


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """A copy of the project's packages, its GoLU edited by an (old, new) pair."""
    root = Path(suite.__file__).parent.parent

    def make(name: str, old: str = "", new: str = "") -> Path:
        for package in ("suite", "tasks", "baselines"):
            shutil.copytree(root / package, tmp_path / name / package, ignore=shutil.ignore_patterns("__pycache__"))
        file = tmp_path / name / "baselines" / "activation" / "golu.py"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new) if old else text)
        return tmp_path / name

    return make


FORMULA = "return x * torch.exp(-torch.exp(-x))"
REGRESSIONS = {
    "nothing": ("", "", set()),
    "prose": ("Gompertz linear unit,", "Gompertz's linear unit,", set()),
    "slower": (FORMULA, FORMULA + " * 1.0", {"elements"}),
    "larger": (FORMULA, FORMULA + 3 * " * torch.ones_like(x)", {"elements", "memory"}),
    "worse": (FORMULA, "return x * torch.exp(-torch.exp(4.0 - x))", {"quality", "definition"}),
    "crashing": (FORMULA, "raise RuntimeError('no')", {"failures"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REGRESSIONS)
def test_an_injected_regression_fails_for_what_it_is(project: Callable[..., Path], tmp_path: Path, name: str) -> None:
    old, new, expected = REGRESSIONS[name]
    base = Tree(project("base"), tmp_path / "runs-base", "base")
    head = Tree(project("head", old, new), tmp_path / "runs-head", "head")
    report = Gate(base, head, cost=0.0).report(["digits-cnn"], ["golu"], "smoke")
    golu = [v for v in report.verdicts if v.method == "golu"]
    assert {v.question for v in golu if v.verdict == FAIL} == expected
    assert {v.verdict for v in report.verdicts if v.method == "reference"} == {PASS}
    assert report.verdict == (FAIL if expected else PASS)
