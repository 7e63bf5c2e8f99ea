"""Throughput of sampling: the key-value cache against reading the whole sequence for every token."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from suite.registry import registry
from suite.train.decode import Sampled, _gumbel, sample
from suite.train.policy import END, Policy

PROMPTS, SAMPLES = 32, 8


@torch.no_grad()
def sample_without_cache(
    policy: Policy, prompts: Tensor, samples: int, limit: int, generator: torch.Generator
) -> Sampled:
    """The same draws as `suite.train.decode.sample`, each from a pass over everything before it."""
    sequence = prompts.repeat_interleave(samples, dim=0)
    start = prompts.shape[1]
    noise: Tensor | None = None
    chosen = []
    for position in range(limit):
        logp = policy(sequence)[:, -1].log_softmax(-1)
        noise = _gumbel((len(sequence), limit, logp.shape[-1]), generator) if noise is None else noise
        token = (logp + noise[:, position]).argmax(-1)
        ended = (sequence[:, start:] == END).any(1)
        token = torch.where(ended, END, token)
        chosen.append(torch.where(ended, 0.0, logp.gather(-1, token[:, None])[:, 0]))
        sequence = torch.cat([sequence, token[:, None]], dim=1)
    tokens = sequence[:, start:]
    mask = (tokens == END).cumsum(1) - (tokens == END).long() == 0
    return Sampled(tokens, mask, torch.stack(chosen, dim=1))


@pytest.fixture(params=["parity12-rlvr", "countdown3-rlvr"])
def samplers(request: pytest.FixtureRequest) -> dict[str, Callable[[], Sampled]]:
    info = registry().task(request.param)
    task = info.factory(info)
    policy, prompts = task.policy(), task.prompts("train")[:PROMPTS]

    def with_cache() -> Sampled:
        return sample(policy, prompts, SAMPLES, task.limit, torch.Generator().manual_seed(0))

    def without_cache() -> Sampled:
        return sample_without_cache(policy, prompts, SAMPLES, task.limit, torch.Generator().manual_seed(0))

    return {"cache": with_cache, "no cache": without_cache}


@pytest.mark.parametrize("kind", ["cache", "no cache"])
def test_rollout_throughput(benchmark, samplers, kind):
    drawn = benchmark(samplers[kind])
    benchmark.extra_info["generated tokens"] = int(drawn.mask.sum())


def test_both_samplers_draw_the_same_completions(samplers):
    cached, plain = samplers["cache"](), samplers["no cache"]()
    agree = (cached.tokens == plain.tokens).all(1)
    assert agree.float().mean() > 0.99  # rounding may decide a rare near tie differently
    torch.testing.assert_close(cached.logp[agree], plain.logp[agree], rtol=1e-3, atol=1e-4)
    assert torch.equal(cached.mask[agree], plain.mask[agree])


def test_the_cache_is_at_least_three_times_faster(samplers):
    seconds: dict[str, list[float]] = {kind: [] for kind in samplers}
    for _ in range(7):
        for kind, draw in samplers.items():
            started = time.process_time()
            draw()
            seconds[kind].append(time.process_time() - started)
    assert min(seconds["no cache"]) >= 3.0 * min(seconds["cache"])
