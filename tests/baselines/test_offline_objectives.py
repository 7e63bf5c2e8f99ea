"""Offline objectives against loops over traces and tokens written from the formulas, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import suite
from suite.train.objective import Rollouts
from suite.train.offline import OfflineObjective

NAMES = [m.name for m in suite.methods(slot="offline-objective")]
ALPHABET = 3  # few letters, so that equal traces are common


def traces(seed: int) -> tuple[Rollouts, torch.Tensor]:
    """Random groups, right and wrong ones in each, of random lengths; NaN wherever a value must not be read."""
    rng = np.random.default_rng(seed)
    prompts, group, width = rng.integers(1, 5), rng.integers(2, 7), rng.integers(1, 6)
    rows = prompts * group
    lengths = rng.integers(1, width + 1, rows)
    mask = np.arange(width) < lengths[:, None]
    rewards = (rng.random((prompts, group)) < rng.choice([0.2, 0.5, 0.8], size=(prompts, 1))).astype(float)
    rewards[:, 0], rewards[:, -1] = 1.0, 0.0
    old = -rng.exponential(1.0, (rows, width))
    new = old + rng.normal(0.0, 0.7, (rows, width))
    old[~mask] = new[~mask] = np.nan
    batch = Rollouts(
        rewards=torch.from_numpy(rewards),
        mask=torch.from_numpy(mask),
        old_logp=torch.from_numpy(old),
        prompts=torch.zeros(prompts, 2, dtype=torch.long),
        completions=torch.from_numpy(rng.integers(0, ALPHABET, (rows, width))),
    )
    return batch, torch.from_numpy(new)


def value_and_gradient(objective: OfflineObjective, batch: Rollouts, logp: torch.Tensor) -> tuple[float, np.ndarray]:
    free = logp.clone().requires_grad_()
    loss = objective.loss(batch, free)
    (slope,) = torch.autograd.grad(loss, free)
    return loss.item(), slope.numpy()


class Trace:
    """One trace as plain numbers: what it says, how likely policy and warm start find each token, and its reward."""

    def __init__(self, row: int, batch: Rollouts, logp: torch.Tensor) -> None:
        self.row, self.length = row, int(batch.mask[row].sum())
        self.new, self.old = logp[row, : self.length].tolist(), batch.old_logp[row, : self.length].tolist()
        self.text = batch.completions[row, : self.length].tolist()
        self.right = batch.rewards.flatten()[row].item() == 1.0

    @property
    def ratio(self) -> float:
        """Policy over warm start."""
        return math.exp(sum(self.new) - sum(self.old))


class Reference:
    """Adds up a loss and its slopes in the log-probabilities, trace by trace."""

    def __init__(self, batch: Rollouts, logp: torch.Tensor) -> None:
        rows = [Trace(i, batch, logp) for i in range(len(logp))]
        size = batch.rewards.shape[1]
        self.groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        self.rows = rows
        self.loss, self.slopes = 0.0, np.zeros(logp.shape)

    def add(self, value: float, *terms: tuple[Trace, float]) -> None:
        """`value` to the loss; each term's factor to the slope of every token of its trace."""
        self.loss += value
        for trace, slope in terms:
            self.slopes[trace.row, : trace.length] += slope

    def add_token(self, trace: Trace, t: int, value: float, slope: float) -> None:
        self.loss += value
        self.slopes[trace.row, t] += slope


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def imitation(keep):
    def reference(r: Reference) -> None:
        kept = [trace for group in r.groups for i, trace in enumerate(group) if keep(group, i)]
        tokens = sum(trace.length for trace in kept)
        for trace in kept:
            r.add(-sum(trace.new) / tokens, (trace, -1 / tokens))

    return reference


def first_right(group, i):
    return group[i].right and all(group[i].text != earlier.text for earlier in group[:i])


def pairs(score, factor, margin=0.0):
    """-log sigmoid of score differences; factor(trace) is the score's slope in each token of the trace."""

    def reference(r: Reference) -> None:
        for group in r.groups:
            found = [(w, l) for w in group for l in group if w.right and not l.right]  # noqa: E741
            for w, l in found:  # noqa: E741
                weight = 1 / (len(found) * len(r.groups))
                gap = score(w) - score(l) - margin
                slope = -sigmoid(-gap) * weight
                r.add(softplus(-gap) * weight, (w, slope * factor(w)), (l, -slope * factor(l)))

    return reference


def dpo(alpha=1.0, beta=0.1):
    return pairs(lambda t: beta * (alpha * sum(t.new) - sum(t.old)), lambda t: alpha * beta)


def redi(r: Reference) -> None:
    for group in r.groups:
        found = [(w, l) for w in group for l in group if w.right and not l.right]  # noqa: E741
        share = 1 / (len(found) * len(r.groups))
        for w, l in found:  # noqa: E741
            value = -sum(w.new) / w.length + 0.8 * sum(l.new) / l.length
            r.add(share * value, (w, -share / w.length), (l, 0.8 * share / l.length))


def pro(r: Reference) -> None:
    def score(trace: Trace) -> float:
        return sum(trace.new) / trace.length

    for group in r.groups:
        wrong = [t for t in group if not t.right]
        good = [t for t in group if t.right]
        share = 1 / (len(good) * len(r.groups))
        for w in good:
            total = sum(math.exp(score(t)) for t in [w, *wrong])
            chance = {t.row: math.exp(score(t)) / total for t in [w, *wrong]}
            fit = 0.05 * len(wrong) ** 2
            r.add(
                share * (-math.log(chance[w.row]) - fit * sum(w.new)),
                (w, share * ((chance[w.row] - 1) / w.length - fit)),
                *[(t, share * chance[t.row] / t.length) for t in wrong],
            )


def npo(retain):
    def reference(r: Reference) -> None:
        wrong = [t for t in r.rows if not t.right]
        for t in wrong:
            power = t.ratio**0.1
            r.add(2 / 0.1 * math.log(1 + power) / len(wrong), (t, 2 * power / (1 + power) / len(wrong)))
        good = [t for t in r.rows if t.right]
        tokens = sum(t.length for t in good)
        for t in good:
            r.add(-retain * sum(t.new) / tokens, (t, -retain / tokens))

    return reference


def gradient_ascent(r: Reference) -> None:
    wrong = [t for t in r.rows if not t.right]
    for t in wrong:
        r.add(sum(t.new) / len(wrong), (t, 1 / len(wrong)))


def d2o(r: Reference) -> None:
    count = sum(not t.right for t in r.rows)
    for group in r.groups:
        for rejected in group:
            if rejected.right:
                continue
            others = [t for t in group if t is not rejected]
            z = 0.1 / len(others) * sum(math.log(t.ratio) for t in others) - 0.1 * math.log(rejected.ratio)
            slope = -sigmoid(-z) / count
            r.add(
                -math.log(sigmoid(z)) / count,
                (rejected, -0.1 * slope),
                *[(t, 0.1 / len(others) * slope) for t in others],
            )


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def advantage(group, trace) -> float:
    return max(trace.right - sum(t.right for t in group) / len(group), 0.0)


def reward(group, trace) -> float:
    return float(trace.right)


def weighted(worth, importance, kl=0.0):
    """-importance * worth * log p and kl * log-ratio, mean over traces."""

    def reference(r: Reference) -> None:
        n = len(r.rows)
        for group in r.groups:
            for t in group:
                w = worth(group, t) * importance(t)
                r.add((-w * sum(t.new) + kl * math.log(t.ratio)) / n, (t, (kl - w) / n))

    return reference


def token_weighted(worth, importance):
    """-worth * sum over tokens of importance * log p, mean over traces."""

    def reference(r: Reference) -> None:
        n = len(r.rows)
        for group in r.groups:
            for t in group:
                for position, (new, old) in enumerate(zip(t.new, t.old, strict=True)):
                    w = worth(group, t) * importance(new, old) / n
                    r.add_token(t, position, -w * new, -w)

    return reference


def importance_weighted(weight, slope):
    """-weight * reward, mean over traces; slope(trace) is d weight / d log p."""

    def reference(r: Reference) -> None:
        for t in r.rows:
            if t.right:
                r.add(-weight(t) / len(r.rows), (t, -slope(t) / len(r.rows)))

    return reference


def smoothed(t: Trace) -> float:
    return math.exp(sum(t.new)) / math.exp(sum(t.old)) ** 0.7


def explored(t: Trace) -> float:
    return math.exp(sum(t.new)) / (math.exp(sum(t.old)) + 0.1)


REFERENCES = {
    "sft": imitation(lambda group, i: group[i].right),
    "rft": imitation(first_right),
    "dpo": dpo(),
    "h-dpo": dpo(alpha=0.95),
    "simpo": pairs(lambda t: 2.0 * sum(t.new) / t.length, lambda t: 2.0 / t.length, margin=0.5),
    "redi": redi,
    "pro": pro,
    "npo": npo(0.0),
    "npo-rt": npo(1.0),
    "gradient-ascent": gradient_ascent,
    "d2o": d2o,
    "a-lol": weighted(advantage, lambda t: clip(t.ratio, 0.1, 1.9)),
    "a-lol-seq": token_weighted(advantage, lambda new, old: clip(math.exp(new - old), 0.1, 1.9)),
    "a-lol-reffree": weighted(advantage, lambda t: 1.0),
    "a-lol-kl": weighted(advantage, lambda t: 1.0, kl=0.2),
    "r-lol": weighted(reward, lambda t: clip(t.ratio, 0.1, 1.9)),
    "weighted-bc": weighted(reward, lambda t: 1.0),
    "reward-gold": token_weighted(reward, lambda new, old: max(math.exp(new), 0.1)),
    "es-ips": importance_weighted(smoothed, smoothed),
    "ips": importance_weighted(lambda t: t.ratio, lambda t: t.ratio),
    "clipped-ips": importance_weighted(lambda t: min(t.ratio, 10.0), lambda t: t.ratio if t.ratio < 10.0 else 0.0),
    "ix": importance_weighted(explored, explored),
}


def test_every_registered_offline_objective_has_a_reference_here():
    assert sorted(NAMES) == sorted(REFERENCES)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_loss_and_gradient_equal_the_formula_whatever_the_groups_lengths_and_padding(name, seed):
    batch, logp = traces(seed)
    loss, slope = value_and_gradient(suite.method(name).make(), batch, logp)
    expected = Reference(batch, logp)
    REFERENCES[name](expected)
    assert loss == pytest.approx(expected.loss, rel=1e-9, abs=1e-11)
    np.testing.assert_allclose(slope, expected.slopes, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_agrees_with_double(name):
    batch, logp = traces(7)
    single = Rollouts(batch.rewards.float(), batch.mask, batch.old_logp.float(), batch.prompts, batch.completions)
    objective = suite.method(name).make()
    got = objective.loss(single, logp.float())
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(objective.loss(batch, logp).item(), rel=1e-4, abs=1e-5)


def one_group(*right: bool, length: int = 2) -> tuple[Rollouts, torch.Tensor]:
    """A group of distinct traces under the warm start itself."""
    n = len(right)
    old = -torch.arange(1.0, n * length + 1, dtype=torch.float64).view(n, length) / 5
    return Rollouts(
        torch.tensor([right], dtype=torch.float64),
        torch.ones(n, length, dtype=torch.bool),
        old,
        torch.zeros(1, 1, dtype=torch.long),
        torch.arange(n)[:, None].expand(n, length),
    ), old.clone()


@pytest.mark.parametrize("name", ["dpo", "h-dpo", "simpo", "pro", "redi", "npo-rt", "a-lol", "sft", "rft", "ips"])
def test_a_step_down_the_gradient_favours_right_over_wrong(name):
    batch, logp = one_group(True, False, True, False)
    _, slope = value_and_gradient(suite.method(name).make(), batch, logp)
    assert (slope[[0, 2]] < 0).all()
    assert (slope[[1, 3]] >= 0).all()


@pytest.mark.parametrize("name", ["npo", "gradient-ascent", "d2o"])
def test_methods_without_positives_push_wrong_traces_down(name):
    batch, logp = one_group(True, False, True)
    _, slope = value_and_gradient(suite.method(name).make(), batch, logp)
    assert (slope[1] > 0).all()


def test_pro_on_a_pair_without_sft_is_simpo_without_temperature_and_margin():
    batch, logp = one_group(True, False)
    loss, slope = value_and_gradient(suite.method("pro").make(sft=0.0), batch, logp)
    simpo_loss, simpo_slope = value_and_gradient(suite.method("simpo").make(beta=1.0, margin=0.0), batch, logp)
    assert loss == pytest.approx(simpo_loss, rel=1e-12)
    np.testing.assert_allclose(slope, simpo_slope, rtol=1e-12)


def test_pro_of_a_group_without_rivals_has_no_gradient():
    batch, logp = one_group(True, True)
    loss, slope = value_and_gradient(suite.method("pro").make(), batch, logp)
    assert loss == 0.0
    assert not slope.any()


def test_h_dpo_with_alpha_one_is_dpo():
    batch, logp = traces(3)
    dpo_loss, dpo_slope = value_and_gradient(suite.method("dpo").make(), batch, logp)
    loss, slope = value_and_gradient(suite.method("h-dpo").make(alpha=1.0), batch, logp)
    assert loss == pytest.approx(dpo_loss, rel=1e-12)
    np.testing.assert_allclose(slope, dpo_slope, rtol=1e-12)


def test_npo_tends_to_gradient_ascent_as_beta_tends_to_zero():
    batch, logp = traces(5)
    _, ascent = value_and_gradient(suite.method("gradient-ascent").make(), batch, logp)
    _, bounded = value_and_gradient(suite.method("npo").make(beta=1e-7), batch, logp)
    np.testing.assert_allclose(bounded, ascent, rtol=1e-5, atol=1e-9)


def test_npo_stops_pushing_a_trace_that_has_become_unlikely():
    batch, logp = one_group(True, False)
    logp[1] -= 50.0
    _, slope = value_and_gradient(suite.method("npo").make(beta=1.0), batch, logp)
    assert np.abs(slope).max() < 1e-12
    _, unbounded = value_and_gradient(suite.method("gradient-ascent").make(), batch, logp)
    assert unbounded[1].max() == 1.0


def test_a_lol_takes_nothing_from_wrong_traces_and_most_from_rare_right_ones():
    rare, _ = one_group(True, False, False, False)
    common, _ = one_group(True, True, True, False)
    weights = [suite.method("a-lol").make().weights(b)[0] for b in (rare, common)]
    assert weights[0].tolist() == [0.75, 0.0, 0.0, 0.0]
    assert weights[1].tolist() == [0.25, 0.25, 0.25, 0.0]


def test_on_the_warm_start_itself_the_ratio_methods_are_their_ratio_free_forms():
    batch, logp = one_group(True, False, True)
    slopes = {n: value_and_gradient(suite.method(n).make(), batch, logp)[1] for n in NAMES}
    for name, other in (("a-lol", "a-lol-reffree"), ("a-lol-seq", "a-lol-reffree"), ("r-lol", "weighted-bc")):
        np.testing.assert_allclose(slopes[name], slopes[other], rtol=1e-12)
    np.testing.assert_allclose(slopes["ips"], slopes["weighted-bc"], rtol=1e-12)


def test_es_ips_with_alpha_one_is_ips_and_with_alpha_zero_needs_no_warm_start():
    batch, logp = traces(11)
    _, ips = value_and_gradient(suite.method("ips").make(), batch, logp)
    _, smooth = value_and_gradient(suite.method("es-ips").make(alpha=1.0), batch, logp)
    np.testing.assert_allclose(smooth, ips, rtol=1e-12)
    other = Rollouts(batch.rewards, batch.mask, batch.old_logp - 1.0, batch.prompts, batch.completions)
    free = suite.method("es-ips").make(alpha=0.0)
    assert value_and_gradient(free, other, logp)[0] == value_and_gradient(free, batch, logp)[0]


def test_rft_keeps_one_of_equal_right_traces_and_tells_traces_of_other_lengths_apart():
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)
    completions = torch.tensor([[1, 2, 0], [1, 2, 0], [1, 2, 0], [1, 2, 0]])
    rewards = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    batch = Rollouts(rewards, mask, torch.zeros(4, 3), torch.zeros(1, 1, dtype=torch.long), completions)
    assert suite.method("rft").make().chosen(batch).tolist() == [[True, False, True, False]]
    with pytest.raises(ValueError, match="completions"):
        suite.method("rft").make().chosen(Rollouts(rewards, mask, torch.zeros(4, 3)))
