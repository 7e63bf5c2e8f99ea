"""Power: against statsmodels, and the gate's error rates against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from suite.stats import (
    gate_detectable,
    gate_failure,
    gate_power,
    minimum_detectable_effect,
    paired_power,
    seeds_needed,
    suite_false_alarm,
    t1_decision,
    t2_decision,
)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("effect", [0.0, 0.3, 1.0, 2.0])
def test_power_is_statsmodels(n, effect):
    assert paired_power(effect, 1, n) == pytest.approx(TTestPower().power(effect, n, 0.05), abs=1e-5)
    one = TTestPower().power(effect, n, 0.05, alternative="larger")
    assert paired_power(effect, 1, n, two_sided=False) == pytest.approx(one, abs=1e-5)


def test_power_depends_on_the_effect_in_sd_only_and_on_its_sign_only_one_sided():
    assert paired_power(0.6, 0.3, 6) == pytest.approx(paired_power(2, 1, 6))
    assert paired_power(-2, 1, 6) == pytest.approx(paired_power(2, 1, 6))
    assert paired_power(-2, 1, 6, two_sided=False) < 0.001
    assert paired_power(9.0, 1, 1) == 0


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_detectable_effect_is_detected_with_its_power(n):
    effect = minimum_detectable_effect(n, 0.5)
    assert paired_power(effect, 0.5, n) == pytest.approx(0.8, abs=1e-9)
    assert effect / 0.5 == pytest.approx(TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8), rel=1e-5)


def test_one_seed_detects_nothing():
    assert minimum_detectable_effect(1, 0.5) == math.inf


@pytest.mark.parametrize("effect", [0.2, 0.5, 1.0, 3.0])
def test_seeds_needed_is_the_fewest(effect):
    n = seeds_needed(effect, 1)
    assert paired_power(effect, 1, n) >= 0.8
    assert paired_power(effect, 1, n - 1) < 0.8
    assert seeds_needed(-effect, 1) == n


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="effect of 0"):
        seeds_needed(0, 1)
    with pytest.raises(ValueError, match="more than"):
        seeds_needed(1e-4, 1)
    with pytest.raises(ValueError, match="sd"):
        paired_power(1, 0, 5)
    with pytest.raises(ValueError, match="alpha"):
        paired_power(1, 1, 5, alpha=0)
    with pytest.raises(ValueError, match="power"):
        minimum_detectable_effect(5, 1, power=0.01)


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_the_gates_probabilities_are_those_of_its_decisions(n, shift):
    rng = np.random.default_rng(int(10 * shift) + n)
    head = rng.normal(shift, math.sqrt(2), (2, 1000, n))
    batches = [[t1_decision(np.zeros(n), row, 1.0) for row in batch] for batch in head]
    found = gate_power(shift, math.sqrt(2), 1.0, n)
    first = [d.verdict for d in batches[0]]
    assert first.count("PASS") / 1000 == pytest.approx(found.passes, abs=0.04)
    assert first.count("FAIL") / 1000 == pytest.approx(found.fails, abs=0.04)
    final = [t2_decision(a, b) for a, b in zip(*batches, strict=True)]
    assert final.count("PASS") / 1000 == pytest.approx(found.final_pass, abs=0.04)
    assert final.count("FAIL") / 1000 == pytest.approx(found.final_fail, abs=0.04)
    assert sum(found[:3]) == pytest.approx(1)
    assert sum(found[3:]) == pytest.approx(1)


def test_an_unchanged_suite_fails_in_2_percent_and_large_shifts_are_caught():
    sd = math.sqrt(2)
    assert suite_false_alarm(24, sd, 1.0) == pytest.approx(0.02, abs=0.002)
    assert gate_power(2.0, sd, 1.0).final_fail == pytest.approx(0.67, abs=0.01)
    assert gate_power(3.0, sd, 1.0).final_fail == pytest.approx(0.97, abs=0.01)


def test_what_is_detectable_fails_with_its_power():
    sd = math.sqrt(2)
    assert gate_failure(2.0, sd, 1.0) == gate_power(2.0, sd, 1.0).final_fail
    assert gate_failure(2.0, sd, 1.0, (3, 5)) == gate_power(2.0, sd, 1.0, 3).fails * gate_power(2.0, sd, 1.0, 5).fails
    for batches in ((5, 5), (3, 5)):
        assert gate_failure(gate_detectable(sd, 1.0, batches), sd, 1.0, batches) == pytest.approx(0.8)
    assert gate_detectable(1e-6, 1.0) == pytest.approx(1.0, abs=1e-5)
    assert gate_detectable(sd, 1.0, (1, 5)) == math.inf


def test_pairing_that_cuts_the_noise_makes_the_gate_sharp():
    sd = 0.23 * math.sqrt(2)
    assert suite_false_alarm(24, sd, 1.0) < 1e-6
    assert gate_power(0.0, sd, 1.0).passes > 0.999
    assert gate_power(2.0, sd, 1.0).final_fail > 0.999


def test_a_shift_at_the_margin_passes_in_5_percent_at_most():
    assert gate_power(1.0, 0.5, 1.0).passes == pytest.approx(0.05, abs=1e-6)


def test_plain_significance_on_every_cell_would_fail_most_unchanged_suites():
    assert 1 - (1 - paired_power(0.0, 1, 5, two_sided=False)) ** 24 == pytest.approx(0.71, abs=0.01)
