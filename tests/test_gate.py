"""The gate: unchanged code passes, another function, a worse score or a dearer step does not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from suite.cli.main import app
from suite.gate import report
from suite.gate.quality import FAIL, INCONCLUSIVE, PASS, Verdict, definition, quality
from suite.gate.speed import counters, step_time
from suite.registry import _registry as scans
from suite.registry import registry

TASK = registry().task("digits-cnn")


def rows(scores: list[float | None], digests: list[str] | None = None, **more: object) -> pd.DataFrame:
    """Result rows of one cell; a score of None is a run that diverged."""
    return pd.DataFrame(
        {
            "seed": range(len(scores)),
            "score": [math.nan if s is None else s for s in scores],
            "status": ["diverged" if s is None else "ok" for s in scores],
            "message": ["loss is not finite" if s is None else "" for s in scores],
            "digest": digests or [f"{s}" for s in scores],
            "exhibits": "",
            **more,
        }
    )


def judged(base: list[float | None], head: list[float | None]) -> Verdict:
    return quality(TASK, "no-noise-stored", "golu", rows(base), rows(head))


BASE = [0.50, 0.52, 0.49, 0.51, 0.53]
SD = float(np.std(BASE, ddof=1))


def test_bit_identical_curves_pass_by_the_first_rule() -> None:
    verdict = judged(BASE, BASE)
    assert verdict.verdict == PASS
    assert verdict.rule.startswith("T0")


def test_a_difference_far_under_the_noise_passes_by_the_second_rule() -> None:
    verdict = judged(BASE, [b + e for b, e in zip(BASE, [1e-4, -1e-4, 2e-4, 0.0, -2e-4], strict=True)])
    assert verdict.verdict == PASS
    assert verdict.rule.startswith("T1")
    assert verdict.high < verdict.margin == pytest.approx(SD)


def test_a_drop_of_three_seed_deviations_fails() -> None:
    jitter = np.random.default_rng(0).normal(0, 0.2 * SD, 5)
    verdict = judged(BASE, list(np.array(BASE) + 3 * SD + jitter))
    assert verdict.verdict == FAIL
    assert verdict.effect == pytest.approx(3 * SD, rel=0.3)


def test_a_gain_that_is_too_good_needs_a_review() -> None:
    verdict = judged(BASE, [b - 10 * SD + 1e-4 * i for i, b in enumerate(BASE)])
    assert verdict.verdict == INCONCLUSIVE
    assert "review" in verdict.rule


def test_a_run_that_now_diverges_fails_whatever_the_others_reach() -> None:
    verdict = judged(BASE, [*BASE[:4], None])
    assert verdict.verdict == FAIL
    assert "diverged" in verdict.rule


def test_one_seed_cannot_decide() -> None:
    assert judged([0.5], [0.6]).verdict == INCONCLUSIVE


def test_missing_runs_fail() -> None:
    assert quality(TASK, "quick", "golu", rows(BASE), rows([])).verdict == FAIL


def portrait(y: float) -> str:
    return json.dumps({"activation golu": {"kind": "activation", "x": [0.0, 1.0], "y": [0.0, y], "dy": [0.5, 1.0]}})


def test_another_function_under_the_same_name_fails() -> None:
    base, head = rows([0.5], exhibits=portrait(0.69)), rows([0.5], exhibits=portrait(1.0))
    (verdict,) = definition("digits-cnn", "golu", base, head)
    assert verdict.verdict == FAIL
    assert "x = 1" in verdict.rule
    assert definition("digits-cnn", "golu", base, base) == []


def test_exact_counts_fail_beyond_their_margin_and_only_there() -> None:
    base = pd.Series({"flops": 100.0, "elementwise": 100.0, "saved_bytes": 1000, "state_bytes": 0})
    head = pd.Series({"flops": 100.0, "elementwise": 104.0, "saved_bytes": 1500, "state_bytes": 8})
    verdicts = {v.question: v.verdict for v in counters("t", "m", base, head)}
    assert verdicts == {"flops": PASS, "elements": PASS, "memory": FAIL, "optimizer state": FAIL}


def ratio(value: float, half: float = 0.02) -> dict[str, float]:
    return {"cost_ratio": value, "cost_low": value * (1 - half), "cost_high": value * (1 + half)}


def test_a_step_time_regression_must_show_in_every_measurement() -> None:
    assert step_time("t", "m", 1.2, [ratio(1.5), ratio(1.5), ratio(1.6)], noise=0.01).verdict == FAIL
    assert step_time("t", "m", 1.2, [ratio(1.5), ratio(1.21), ratio(1.5)], noise=0.01).verdict == PASS
    assert step_time("t", "m", 1.2, [ratio(1.25)], noise=0.01).verdict == PASS


def test_a_machine_that_cannot_tell_says_so() -> None:
    verdict = step_time("t", "m", 1.2, [ratio(1.5)] * 3, noise=0.2)
    assert verdict.verdict == INCONCLUSIVE
    assert "noisy" in verdict.rule


def test_the_worst_verdict_counts_and_none_at_all_is_a_failure() -> None:
    def one(verdict: str) -> Verdict:
        return Verdict("t", "m", "quality", verdict, "rule | with a bar")

    assert report.overall([one(PASS), one(INCONCLUSIVE)]) == INCONCLUSIVE
    assert report.overall([one(PASS), one(INCONCLUSIVE), one(FAIL)]) == FAIL
    assert report.overall([]) == FAIL
    assert "rule \\| with a bar" in report.markdown([one(PASS)])


GOLU = """
import torch
from torch import nn
from suite import activation

@activation("my-golu")
class Mine(nn.Module):
    "x exp(-exp(-x))."
    def forward(self, x):
        x = x.clamp(min=-10.0)
        {body}
"""
HONEST = "return x * torch.exp(-torch.exp(-x))"


def gate(folder: Path, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["gate", "--against", str(folder), "--cost", "0", "--workers", "1", *more])
    return result.exit_code, result.output


def test_gate_runs_stored_seeds_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unchanged code passes with exit code 0; the file edited to return relu fails with 1."""
    file = tmp_path / "mine.py"
    file.write_text(GOLU.format(body=HONEST))
    monkeypatch.setenv("LEVELFIELD_ENTRY", str(file))
    stored = tmp_path / "stored"
    words = ["run", "--tasks", "digits-cnn", "--methods", "my-golu", "--tier", "smoke", "--seeds", "2"]
    done = CliRunner().invoke(app, [*words, "--out", str(stored), "--cost", "0", "--workers", "1", "--json"])
    assert done.exit_code == 0, done.output
    code, text = gate(stored)
    assert code == 0, text
    assert "bit-identical" in text
    file.write_text(GOLU.format(body="return torch.relu(x)"))
    scans.cache_clear()
    code, text = gate(stored, "--summary", str(tmp_path / "summary.md"))
    assert code == 1, text
    assert "another function" in (tmp_path / "summary.md").read_text()


def test_gate_with_nothing_to_compare_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["gate", "--against", str(tmp_path)])
    assert result.exit_code != 0
    assert "no runs" in str(result.exception)
