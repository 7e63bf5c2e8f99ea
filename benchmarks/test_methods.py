"""Every registered activation, loss, objective and optimizer on fixed inputs; run with ``make bench``.

Benchmarks are named ``slot[method]``. Their exact counts (floating-point operations,
elements written, bytes saved for the backward pass, bytes of state) are in ``extra_info``, and
an optimizer's processor time there as a ratio to torch's AdamW on lists of tensors, measured
in turn in the same run on the weights of hmm-gpt's quick model. No ratio is above 3 without a
reason in the method's docstring, and one that the docstring states is right within a factor of 2.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import suite
from suite.registry import Method
from suite.runner.cost import paired_ratio, repeats
from suite.runner.micro import PIECES, Piece, complaint, counts, foreach_adamw

SECONDS = 1.0  # of interleaved measurement of one ratio
STEPS = 5  # of AdamW that are timed at once, and of a method whose steps are alike


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def every(slot: str) -> Any:
    return pytest.mark.parametrize("method", suite.methods(slot), ids=lambda m: m.name)


def measure(benchmark: Any, method: Method) -> Piece:
    """Time the method under its pinned name, with its exact counts beside."""
    benchmark.name, benchmark.group = f"{method.slot}[{method.name}]", method.slot
    piece = PIECES[method.slot](method)
    benchmark.extra_info.update(counts(piece))
    benchmark.pedantic(piece.run, rounds=20, iterations=5, warmup_rounds=2)
    return piece


def timed(run: Callable[[], Any], steps: int = STEPS) -> Callable[[], float]:
    """Processor seconds of one call, a mean over `steps`."""

    def once() -> float:
        started = time.process_time()
        for _ in range(steps):
            run()
        return (time.process_time() - started) / steps

    return once


@every("activation")
def test_activation(benchmark: Any, method: Method) -> None:
    """Forward and backward of (256, 64) inputs."""
    measure(benchmark, method)


@every("loss")
def test_loss(benchmark: Any, method: Method) -> None:
    """Forward and backward of the loss of 256 examples of 16 classes."""
    measure(benchmark, method)


@every("objective")
def test_objective(benchmark: Any, method: Method) -> None:
    """Forward and backward of the policy loss of 128 completions."""
    measure(benchmark, method)


@every("optimizer")
def test_optimizer(benchmark: Any, method: Method) -> None:
    """One update of a GPT of 27,000 weights, and its time over that of torch's AdamW on lists: whole periods."""
    steps = max(STEPS, repeats(method.defaults))
    ours, theirs = timed(measure(benchmark, method).run, steps), timed(foreach_adamw().run)
    theirs()
    ratio = paired_ratio(ours, theirs, SECONDS)
    benchmark.extra_info |= {f"adamw_{k}": ratio[f"cost_{k}"] for k in ("ratio", "low", "high")}
    wrong = complaint(method, ratio["cost_low"], ratio["cost_high"])
    assert not wrong, wrong
