"""RLVR objectives against loops over tokens written from the formulas, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import suite
from suite.train.objective import Objective, Rollouts

NAMES = [m.name for m in suite.methods(slot="objective")]


def rollouts(seed: int, rehearsal: bool = False) -> tuple[Rollouts, torch.Tensor, torch.Tensor]:
    """Random groups and lengths, rewards that are sometimes all equal, NaN wherever a value must not be read.

    With `rehearsal`, some groups are stored right completions of the warm start.
    """
    rng = np.random.default_rng(seed)
    prompts, group, width = rng.integers(1, 5), rng.integers(2, 7), rng.integers(1, 7)
    rows = prompts * group
    lengths = rng.integers(1, width + 1, rows)
    mask = np.arange(width) < lengths[:, None]
    chance = rng.choice([0.0, 0.3, 0.5, 0.8, 1.0], size=(prompts, 1))
    rewards = (rng.random((prompts, group)) < chance).astype(float)
    old = -rng.exponential(1.0, (rows, width))
    new = old + rng.normal(0.0, 0.4, (rows, width))
    reference = old + rng.normal(0.0, 0.4, (rows, width))
    entropy = rng.exponential(1.0, (rows, width))
    for values in (old, new, reference, entropy):
        values[~mask] = np.nan
    rehearsed = rng.random(prompts) < 0.4
    if rehearsal:
        rewards[rehearsed] = 1.0
    batch = Rollouts(
        rewards=torch.from_numpy(rewards),
        rehearsed=torch.from_numpy(rehearsed) if rehearsal else None,
        mask=torch.from_numpy(mask),
        old_logp=torch.from_numpy(old),
        reference_logp=torch.from_numpy(reference),
        limit=int(width + rng.integers(0, 3)),
    )
    return batch, torch.from_numpy(new), torch.from_numpy(entropy)


def value_and_gradient(
    objective: Objective, batch: Rollouts, logp: torch.Tensor, entropy: torch.Tensor
) -> tuple[float, np.ndarray]:
    free = logp.clone().requires_grad_()
    loss = objective.loss(batch, free, entropy if objective.needs_entropy else None)
    (slope,) = torch.autograd.grad(loss, free)
    return loss.item(), slope.numpy()


# ------------------------------------------------------------ loops over groups and tokens


class Loop:
    """One batch as plain numbers; an objective's reference fills in values and slopes token by token."""

    def __init__(self, batch: Rollouts, logp: torch.Tensor, entropy: torch.Tensor) -> None:
        self.rewards = batch.rewards.tolist()
        self.group = batch.rewards.shape[1]
        self.old, self.new = batch.old_logp.tolist(), logp.tolist()
        self.start, self.entropy = batch.reference_logp.tolist(), entropy.tolist()
        self.lengths = [sum(row) for row in batch.mask.tolist()]
        self.limit = batch.limit
        self.rehearsed = [False] * len(self.rewards) if batch.rehearsed is None else batch.rehearsed.tolist()
        self.shape = logp.shape

    def policy_gradient(self, advantage, token, weight, keep=lambda rewards: True, extra=None):
        """Loss and slopes: weight(row, rows) times the sum of token(new, old, advantage) -> (value, slope).

        advantage(self, p) gives a group's list; extra(self, row, t) -> (value, slope) is added to each token.
        """
        groups = [p for p in range(len(self.rewards)) if keep(self.rewards[p]) and not self.rehearsed[p]]
        rows = [p * self.group + g for p in groups for g in range(self.group)]
        loss, slopes = 0.0, np.zeros(self.shape)
        for p in groups:
            advantages = advantage(self, p)
            for g in range(self.group):
                i = p * self.group + g
                for t in range(self.lengths[i]):
                    value, slope = token(self.new[i][t], self.old[i][t], advantages[g])
                    if extra is not None:
                        more = extra(self, i, t)
                        value, slope = value + more[0], slope + more[1]
                    loss += weight(self, i, rows) * value
                    slopes[i, t] += weight(self, i, rows) * slope
        return loss, slopes

    def confidence(self, i: int) -> float:
        n = self.lengths[i]
        return math.exp(sum(self.old[i][:n]) / n)


def mean(values):
    return sum(values) / len(values)


def deviation(values):
    m = mean(values)
    return math.sqrt(sum((v - m) ** 2 for v in values) / (len(values) - 1))


def grpo_advantage(loop, p):
    r = loop.rewards[p]
    return [(x - mean(r)) / (deviation(r) + 1e-6) for x in r]


def centred_advantage(loop, p):
    r = loop.rewards[p]
    return [x - mean(r) for x in r]


def ppo(low, high):
    def token(new, old, advantage):
        rho = math.exp(new - old)
        bounded = min(max(rho, 1 - low), 1 + high)
        if rho * advantage <= bounded * advantage:
            return -rho * advantage, -rho * advantage
        return -bounded * advantage, 0.0

    return token


def per_sequence(loop, i, rows):
    return 1 / (loop.lengths[i] * len(rows))


def per_token(loop, i, rows):
    return 1 / sum(loop.lengths[j] for j in rows)


def per_row(loop, i, rows):
    return 1 / len(rows)


def per_limit(loop, i, rows):
    return 1 / (len(rows) * loop.limit)


def is_mixed(rewards):
    return 0 < sum(rewards) < len(rewards)


def grpo(loop):
    return loop.policy_gradient(grpo_advantage, ppo(0.2, 0.2), per_sequence)


def dr_grpo(loop):
    return loop.policy_gradient(centred_advantage, ppo(0.2, 0.2), per_limit)


def bnpo(loop):
    return loop.policy_gradient(grpo_advantage, ppo(0.2, 0.2), per_token)


def dapo(loop):
    return loop.policy_gradient(grpo_advantage, ppo(0.2, 0.28), per_token, keep=is_mixed)


def ngrpo(loop):
    def advantage(loop, p):
        r = loop.rewards[p]
        extended = [*r, 1.0]
        return [(x - mean(extended)) / (deviation(extended) + 1e-6) for x in r]

    return loop.policy_gradient(advantage, ppo(0.16, 0.24), per_token, keep=lambda r: sum(r) < len(r))


def rloo(loop):
    def advantage(loop, p):
        r = loop.rewards[p]
        return [x - (sum(r) - x) / (len(r) - 1) for x in r]

    def token(new, old, a):
        return -math.exp(new - old) * a, -math.exp(new - old) * a

    return loop.policy_gradient(advantage, token, per_row)


def reinforce(loop):
    return loop.policy_gradient(lambda loop, p: loop.rewards[p], lambda new, old, a: (-a * new, -a), per_row)


def reinforce_plus_plus_baseline(loop):
    spread = [
        c
        for p in range(len(loop.rewards))
        for g, c in enumerate(centred_advantage(loop, p))
        for _ in range(loop.lengths[p * loop.group + g])
    ]
    m, v = mean(spread), deviation(spread) ** 2

    def advantage(loop, p):
        return [(c - m) / math.sqrt(v + 1e-8) for c in centred_advantage(loop, p)]

    return loop.policy_gradient(advantage, ppo(0.2, 0.2), per_token)


def gspo(loop):
    loss, slopes, rows = 0.0, np.zeros(loop.shape), len(loop.lengths)
    for p in range(len(loop.rewards)):
        for g, a in enumerate(grpo_advantage(loop, p)):
            i = p * loop.group + g
            n = loop.lengths[i]
            s = math.exp(sum(loop.new[i][t] - loop.old[i][t] for t in range(n)) / n)
            bounded = min(max(s, 1 - 3e-4), 1 + 4e-4)
            loss -= min(s * a, bounded * a) / rows
            if s * a <= bounded * a:
                slopes[i, :n] = -s * a / n / rows
    return loss, slopes


def cispo(loop):
    def token(new, old, a):
        weight = min(math.exp(new - old), 5.0)
        return -weight * a * new, -weight * a

    return loop.policy_gradient(grpo_advantage, token, per_token)


def signed(positive, negative):
    def reference(loop):
        def advantage(loop, p):
            return [positive if r else -negative for r in loop.rewards[p]]

        return loop.policy_gradient(advantage, ppo(0.2, 0.2), per_token)

    return reference


def grpo_revkl(loop):
    def extra(loop, i, t):
        d = loop.start[i][t] - loop.new[i][t]
        return 0.01 * (math.exp(d) - d - 1), 0.01 * (1 - math.exp(d))

    return loop.policy_gradient(grpo_advantage, ppo(0.2, 0.2), per_sequence, extra=extra)


def entropy_bonus(loop):
    def extra(loop, i, t):
        return -0.02 * loop.entropy[i][t], 0.0

    return loop.policy_gradient(grpo_advantage, ppo(0.2, 0.2), per_sequence, extra=extra)


def qae(loop):
    def advantage(loop, p):
        r = sorted(loop.rewards[p])
        position = 0.4 * (len(r) - 1)
        below = int(position)
        above = min(below + 1, len(r) - 1)
        baseline = r[below] + (position - below) * (r[above] - r[below])
        return [(x - baseline) / (deviation(r) + 1e-6) for x in loop.rewards[p]]

    return loop.policy_gradient(advantage, ppo(0.2, 0.28), per_token, keep=is_mixed)


def delta_l(loop):
    def weight(loop, i, rows):
        inverse = [1 / loop.lengths[j] for j in rows]
        return 1 / loop.lengths[i] / mean(inverse) / (len(rows) * loop.shape[1])

    return loop.policy_gradient(grpo_advantage, ppo(0.2, 0.3), weight)


def lens(loop):
    def calibrated(loop, p):
        r = loop.rewards[p]
        pi = [loop.confidence(p * loop.group + g) for g in range(loop.group)]
        scale = 2 * max(pi)
        if any(r):
            scale = max(scale, 1 / mean([x / q for x, q in zip(r, pi, strict=True)]))
        return [1.0 if x else -q / (scale - q) / loop.group for x, q in zip(r, pi, strict=True)]

    def advantage(loop, p):
        c = calibrated(loop, p)
        if not any(loop.rewards[p]):
            return [x - mean(c) for x in c]
        return [(x - mean(c)) / (deviation(c) + 1e-6) for x in c]

    def weight(loop, i, rows):
        return per_sequence(loop, i, rows) * (1.0 if any(loop.rewards[i // loop.group]) else 0.25)

    return loop.policy_gradient(advantage, ppo(0.2, 0.2), weight)


def nft_with(weight):
    def reference(loop):
        loss, slopes = 0.0, np.zeros(loop.shape)
        for p, rewards in enumerate(loop.rewards):
            if not is_mixed(rewards):
                continue
            share = mean(rewards)
            w = weight(share) / 1000
            for g, right in enumerate(rewards):
                i = p * loop.group + g
                for t in range(loop.lengths[i]):
                    rho = math.exp(loop.new[i][t] - loop.old[i][t])
                    if right:
                        loss -= w * math.log(rho)
                        slopes[i, t] = -w
                    else:
                        implicit = max((1 - share * rho) / (1 - share), 1.0)
                        loss -= w * math.log(implicit)
                        slopes[i, t] = w * share * rho / (1 - share) / implicit
        return loss, slopes

    return reference


def dph(coefficient, divergence):
    """divergence(log u) -> (f(u), df/dlog u), u = new / warm start."""

    def reference(loop):
        loss, slopes = dapo(loop)
        rows = [p * loop.group + g for p, stored in enumerate(loop.rehearsed) if stored for g in range(loop.group)]
        for i in rows:
            for t in range(loop.lengths[i]):
                value, slope = divergence(loop.new[i][t] - loop.old[i][t])
                loss += coefficient * per_token(loop, i, rows) * value
                slopes[i, t] += coefficient * per_token(loop, i, rows) * slope
        return loss, slopes

    return reference


def jensen_shannon(log_u):
    u = math.exp(log_u)
    return u * log_u - (u + 1) * math.log((u + 1) / 2), u * (log_u - math.log((u + 1) / 2))


def alpha_divergence(log_u, a=0.2):
    u = math.exp(log_u)
    slope = u * ((1 - a) * u**-a - (1 - a)) / (a * (a - 1))
    return (u ** (1 - a) - (1 - a) * u - a) / (a * (a - 1)), slope


REFERENCES = {
    "dph-fkl": dph(0.01, lambda log_u: (math.exp(log_u) - 1 - log_u, math.exp(log_u) - 1)),
    "dph-js": dph(0.05, jensen_shannon),
    "dph-alpha": dph(0.01, alpha_divergence),
    "grpo": grpo,
    "dr-grpo": dr_grpo,
    "bnpo": bnpo,
    "dapo": dapo,
    "ngrpo": ngrpo,
    "rloo": rloo,
    "reinforce": reinforce,
    "reinforce-plus-plus-baseline": reinforce_plus_plus_baseline,
    "gspo": gspo,
    "cispo": cispo,
    "psr": signed(1.0, 0.0),
    "nsr": signed(0.0, 1.0),
    "w-reinforce": signed(0.1, 1.0),
    "grpo-revkl": grpo_revkl,
    "entropy-bonus": entropy_bonus,
    "qae": qae,
    "delta-l": delta_l,
    "lens": lens,
    "nft": nft_with(lambda r: 1 - r),
    "nft-uniform": nft_with(lambda r: 1.0),
    "nft-sqrt": nft_with(lambda r: math.sqrt((1 - r) / r)),
}


def test_every_registered_objective_has_a_reference_here():
    assert sorted(NAMES) == sorted(REFERENCES)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_loss_and_gradient_equal_the_formula_whatever_the_groups_lengths_and_padding(name, seed):
    batch, logp, entropy = rollouts(seed, rehearsal=name.startswith("dph"))
    loss, slope = value_and_gradient(suite.method(name).make(), batch, logp, entropy)
    expected_loss, expected_slope = REFERENCES[name](Loop(batch, logp, entropy))
    assert loss == pytest.approx(expected_loss, rel=1e-9, abs=1e-11)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_single_precision_agrees_with_double(name, seed):
    batch, logp, entropy = rollouts(seed)
    single = Rollouts(
        batch.rewards.float(),
        batch.mask,
        batch.old_logp.float(),
        reference_logp=batch.reference_logp.float(),
        limit=batch.limit,
    )
    objective = suite.method(name).make()
    with_entropy = entropy if objective.needs_entropy else None
    expected = objective.loss(batch, logp, with_entropy)
    got = objective.loss(single, logp.float(), None if with_entropy is None else with_entropy.float())
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(expected.item(), rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_groups_that_are_not_kept_change_nothing(name):
    objective = suite.method(name).make()
    for seed in range(20):
        batch, logp, entropy = rollouts(seed)
        kept = objective.keep(batch.rewards)
        if not kept.any():
            continue
        whole, slope = value_and_gradient(objective, batch, logp, entropy)
        rows = batch.rows(kept)
        alone, part = value_and_gradient(objective, batch.select(kept), logp[rows], entropy[rows])
        assert alone == pytest.approx(whole, rel=1e-12, abs=1e-14)
        np.testing.assert_allclose(slope[rows.numpy()], part, rtol=1e-12, atol=1e-14)
        assert not slope[~rows.numpy()].any()


@pytest.mark.parametrize(
    "name", [n for n in NAMES if suite.method(n).make().keep(torch.zeros(1, 4)).logical_not().all()]
)
def test_a_batch_without_a_kept_group_has_loss_zero_and_zero_gradients(name):
    mask = torch.ones(4, 3, dtype=torch.bool)
    batch = Rollouts(torch.zeros(1, 4), mask, torch.zeros(4, 3))
    loss, slope = value_and_gradient(suite.method(name).make(), batch, torch.zeros(4, 3), torch.zeros(4, 3))
    assert loss == 0.0
    assert not slope.any()


GROUP = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]


def on_policy_slope(name: str, seed: int = 0, **hp) -> tuple[Rollouts, np.ndarray]:
    torch.manual_seed(seed)
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4, 2, 2, 5, 3])[:, None]
    old = -torch.rand(8, 5, dtype=torch.float64)
    batch = Rollouts(torch.tensor(GROUP, dtype=torch.float64), mask, old, reference_logp=old)
    return batch, value_and_gradient(suite.method(name).make(**hp), batch, old.clone(), old)[1]


def per_token_advantages(batch: Rollouts, slope: np.ndarray) -> np.ndarray:
    """Slopes of a loss that weighs all tokens alike, as (P, G) values up to the sign."""
    first = slope[:, 0].reshape(batch.rewards.shape)
    np.testing.assert_allclose(slope, slope[:, :1] * batch.mask.numpy(), rtol=1e-12, atol=1e-15)
    return -first


def test_nft_on_policy_has_the_gradient_of_centred_rewards():
    batch, slope = on_policy_slope("nft")
    centred = suite.method("dr-grpo").make().advantages(batch.rewards).numpy()
    np.testing.assert_allclose(per_token_advantages(batch, slope) * 1000, centred, rtol=1e-12)


def test_nft_sqrt_on_policy_has_the_gradient_of_rewards_over_the_population_standard_deviation():
    batch, slope = on_policy_slope("nft-sqrt")
    rewards = np.array(GROUP)
    expected = (rewards - rewards.mean(1, keepdims=True)) / rewards.std(1, keepdims=True)
    np.testing.assert_allclose(per_token_advantages(batch, slope) * 1000, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["nft", "nft-uniform", "nft-sqrt"])
def test_nft_advantages_are_those_of_its_on_policy_gradient(name):
    batch, slope = on_policy_slope(name)
    stated = suite.method(name).make().advantages(batch.rewards).numpy()
    np.testing.assert_allclose(per_token_advantages(batch, slope) * 1000, stated, rtol=1e-12)


def test_nft_without_negatives_trains_on_right_completions_only():
    batch, slope = on_policy_slope("nft", negative_weight=0.0)
    wrong = batch.rewards.flatten().numpy() == 0
    assert not slope[wrong].any()
    assert slope[~wrong][:, 0].all()


def test_rloo_is_dr_grpo_up_to_one_factor_on_policy():
    batch, rloo_slope = on_policy_slope("rloo")
    _, dr_slope = on_policy_slope("dr-grpo")
    group, width = batch.rewards.shape[1], batch.mask.shape[1]
    np.testing.assert_allclose(rloo_slope, dr_slope * width * group / (group - 1), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "hp", "other", "other_hp"),
    [
        ("gspo", {}, "grpo", {}),  # every token ratio is 1, and so is their geometric mean
        ("cispo", {}, "bnpo", {}),  # stopgrad(rho) grad log p = grad rho
        ("dapo", {}, "bnpo", {}),  # both groups are mixed
        ("qae", {"quantile": 1.0}, "dapo", {}),
        ("grpo-revkl", {"coefficient": 0.0}, "grpo", {}),
        ("entropy-bonus", {"coefficient": 0.0}, "grpo", {}),
        ("reinforce", {}, "psr", {}),
    ],
)
def test_objectives_that_differ_off_policy_only_have_one_gradient_on_policy(name, hp, other, other_hp):
    batch, slope = on_policy_slope(name, **hp)
    _, expected = on_policy_slope(other, **other_hp)
    scale = batch.mask.sum().item() / len(batch.mask) if name == "reinforce" else 1.0  # sums over a row, not tokens
    np.testing.assert_allclose(slope, expected * scale, rtol=1e-9, atol=1e-14)


def test_grpo_on_policy_is_dr_grpo_over_the_groups_standard_deviation():
    """Where all completions are as long as they may be, nothing but the division tells the two apart."""
    rewards = torch.tensor(GROUP, dtype=torch.float64)
    old = -torch.rand(8, 3, dtype=torch.float64)
    batch = Rollouts(rewards, torch.ones(8, 3, dtype=torch.bool), old)
    slopes = [value_and_gradient(suite.method(n).make(), batch, old.clone(), old)[1] for n in ("grpo", "dr-grpo")]
    deviations = (rewards.std(1) + 1e-6).repeat_interleave(4)[:, None].numpy()
    np.testing.assert_allclose(slopes[0] * deviations, slopes[1], rtol=1e-12)


def test_positive_and_negative_reinforcement_add_up_to_the_weighted_one():
    slopes = {name: on_policy_slope(name)[1] for name in ("psr", "nsr", "w-reinforce")}
    np.testing.assert_allclose(0.1 * slopes["psr"] + slopes["nsr"], slopes["w-reinforce"], rtol=1e-12, atol=1e-15)
    assert not (slopes["psr"].any(1) & slopes["nsr"].any(1)).any()


@pytest.mark.parametrize("name", ["ngrpo", "lens"])
def test_an_all_wrong_group_that_teaches_grpo_nothing_teaches_these(name):
    old = torch.log(torch.tensor([[0.9, 0.5], [0.5, 0.2], [0.1, 0.9], [0.3, 0.3]], dtype=torch.float64))
    batch = Rollouts(torch.zeros(1, 4, dtype=torch.float64), torch.ones(4, 2, dtype=torch.bool), old)
    assert not value_and_gradient(suite.method("grpo").make(), batch, old.clone(), old)[1].any()
    slope = value_and_gradient(suite.method(name).make(), batch, old.clone(), old)[1]
    assert slope.any(1).all()
    assert slope[0].max() > 0  # the most confident mistake becomes less likely


def test_delta_l_with_alpha_zero_divides_by_completions_times_padded_length():
    _, flat = on_policy_slope("delta-l", alpha=0.0)
    batch, weighted = on_policy_slope("delta-l", alpha=1.0)
    advantages = suite.method("delta-l").make().advantages(batch.rewards).reshape(-1, 1).numpy()
    np.testing.assert_allclose(flat, -advantages * batch.mask.numpy() / batch.mask.numel(), rtol=1e-12)
    assert not np.allclose(flat, weighted)


@pytest.mark.parametrize("group", [2, 4, 8, 16])
def test_ngrpo_gives_all_wrong_groups_minus_one_over_root_g_plus_one(group):
    advantages = suite.method("ngrpo").make().advantages(torch.zeros(3, group, dtype=torch.float64))
    torch.testing.assert_close(advantages, torch.full_like(advantages, -1 / math.sqrt(group + 1)), rtol=1e-5, atol=0)


def test_ngrpo_drops_only_all_right_groups():
    rewards = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert suite.method("ngrpo").make().keep(rewards).tolist() == [True, True, False]


def test_lens_blames_the_confident_mistakes_of_an_all_wrong_group_most():
    old = torch.log(torch.tensor([[0.9], [0.5], [0.1]], dtype=torch.float64))
    batch = Rollouts(torch.zeros(1, 3, dtype=torch.float64), torch.ones(3, 1, dtype=torch.bool), old)
    advantages = suite.method("lens").make().advantages(batch.rewards, batch)[0]
    assert advantages[0] < advantages[1] < advantages[2]
    assert advantages.sum().item() == pytest.approx(0.0, abs=1e-12)


def test_lens_says_what_its_advantages_need():
    with pytest.raises(ValueError, match="batch"):
        suite.method("lens").make().advantages(torch.zeros(1, 2))


def test_rehearsal_divergences_of_whole_distributions_are_the_divergences_they_are_named_after():
    rng = np.random.default_rng(0)
    p, q = (torch.from_numpy(rng.dirichlet(np.full(6, 5.0))) for _ in range(2))  # warm start, policy
    log_u = torch.log(q / p)
    mean = {name: (p * suite.method(name).make().divergence(log_u)).sum().item() for name in NAMES if "dph" in name}
    middle = (p + q) / 2
    kl = lambda a, b: (a * torch.log(a / b)).sum().item()  # noqa: E731
    assert mean["dph-fkl"] == pytest.approx(kl(p, q), rel=1e-12)
    assert mean["dph-js"] == pytest.approx(kl(p, middle) + kl(q, middle), rel=1e-12)
    power = (p**0.2 * q**0.8).sum().item()
    assert mean["dph-alpha"] == pytest.approx((1 - power) / (0.2 * 0.8), rel=1e-12)


def test_rehearsal_stays_finite_when_the_policy_has_left_the_warm_start_far_behind():
    log_u = torch.tensor([-100.0, 100.0], requires_grad=True)
    values = suite.method("dph-fkl").make().divergence(log_u)
    assert values.isfinite().all()
    assert values.max() <= 10.0


@pytest.mark.parametrize("name", ["grpo", "dr-grpo", "rloo", "bnpo", "gspo", "cispo", "delta-l"])
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_groups_of_equal_rewards_teach_baseline_methods_nothing(name, reward):
    mask = torch.ones(4, 3, dtype=torch.bool)
    batch = Rollouts(torch.full((1, 4), reward), mask, torch.zeros(4, 3))
    _, slope = value_and_gradient(suite.method(name).make(), batch, torch.rand(4, 3), torch.zeros(4, 3))
    assert not slope.any()


def test_qae_moves_right_completions_of_hard_groups_and_wrong_ones_of_easy_groups():
    hard, easy = [1.0] + [0.0] * 9, [0.0] + [1.0] * 9
    advantages = suite.method("qae").make().advantages(torch.tensor([hard, easy], dtype=torch.float64))
    assert (advantages[0] != 0).tolist() == [r == 1.0 for r in hard]
    assert (advantages[1] != 0).tolist() == [r == 0.0 for r in easy]
    assert advantages[0, 0] > 0 > advantages[1, 0]


def test_qae_outside_the_unit_interval_is_the_mean_baseline():
    rewards = torch.tensor(GROUP)
    assert torch.equal(
        suite.method("qae").make(quantile=1.0).advantages(rewards), suite.method("grpo").make().advantages(rewards)
    )


@pytest.mark.parametrize("name", [n for n in NAMES if n != "lens"])
def test_advantages_take_a_plain_tensor_of_rewards(name):
    rewards = torch.tensor(GROUP, dtype=torch.float64)
    advantages = suite.method(name).make().advantages(rewards)
    assert advantages.shape == rewards.shape
    assert advantages.isfinite().all()


@pytest.mark.parametrize("name", ["grpo-revkl", "entropy-bonus"])
def test_objectives_say_which_tensor_they_miss(name):
    mask = torch.ones(2, 1, dtype=torch.bool)
    batch = Rollouts(torch.tensor([[0.0, 1.0]]), mask, torch.zeros(2, 1))
    with pytest.raises(ValueError, match=name):
        suite.method(name).make().loss(batch, torch.zeros(2, 1))
