"""Data methods: what they keep, and how often a verifier that errs does."""

from __future__ import annotations

import math

import pytest
import torch

import suite
from suite.train.data import DataMethod

NAMES = [m.name for m in suite.methods(slot="data")]
# What each method changes: nothing, the examples, the step's prompts or the rewards.
CHANGES = {
    "all-data": None,
    "random-subset": "subset",
    "self-prompts": "prompts",
    "verifier-false-negatives": "rewards",
    "verifier-false-positives": "rewards",
}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_registered_data_method_is_described_here():
    assert sorted(NAMES) == sorted(CHANGES)


@pytest.mark.parametrize("name", NAMES)
def test_the_hooks_that_a_method_does_not_change_do_nothing(name):
    method: DataMethod = suite.method(name).make()
    inputs, rewards = torch.randn(10, 3), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    if CHANGES[name] != "subset":
        assert torch.equal(method.subset(inputs, None, stream()), torch.arange(10))
    if CHANGES[name] != "rewards":
        assert torch.equal(method.rewards(rewards, stream()), rewards)
    assert method.asks_greedily == (CHANGES[name] == "prompts")
    if CHANGES[name] != "prompts":
        assert method.prompts(torch.tensor([True, False])).tolist() == [True, True]


def test_a_random_subset_holds_the_share_it_says_once_each_and_follows_from_the_stream():
    method = suite.method("random-subset").make(share=0.3)
    inputs = torch.zeros(200, 2)
    kept = method.subset(inputs, None, stream())
    assert len(set(kept.tolist())) == len(kept) == 60
    assert torch.equal(kept, method.subset(inputs, None, stream()))
    assert not torch.equal(kept, method.subset(inputs, None, stream(1)))
    assert torch.equal(suite.method("random-subset").make(share=1.0).subset(inputs, None, stream()), torch.arange(200))


def test_self_prompts_keeps_what_the_greedy_answer_gets_wrong():
    solved = torch.tensor([True, False, True, False, False])
    assert suite.method("self-prompts").make().prompts(solved).tolist() == [False, True, False, True, True]


@pytest.mark.parametrize(("name", "flipped"), [("verifier-false-negatives", 1.0), ("verifier-false-positives", 0.0)])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4, 1.0])
def test_a_verifier_errs_on_one_kind_of_answer_at_the_stated_rate(name, flipped, rate):
    truth = (torch.rand(4000, 8, generator=stream(1)) < 0.4).float()
    seen = suite.method(name).make(rate=rate).rewards(truth, stream())
    assert set(seen.unique().tolist()) <= {0.0, 1.0}
    wrong = seen != truth
    assert not wrong[truth != flipped].any()
    of_kind = wrong[truth == flipped].float()
    assert of_kind.mean().item() == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / len(of_kind)) + 1e-9)


@pytest.mark.parametrize("name", ["verifier-false-negatives", "verifier-false-positives"])
def test_what_a_better_verifier_gets_wrong_a_worse_one_gets_wrong_too(name):
    truth = (torch.rand(50, 8, generator=stream(1)) < 0.5).float()
    wrong = [suite.method(name).make(rate=r).rewards(truth, stream()) != truth for r in (0.1, 0.3)]
    assert (wrong[0] <= wrong[1]).all()
    assert wrong[0].sum() < wrong[1].sum()
