"""Every registered activation, loss, objective and optimizer on fixed inputs; run with ``make bench``.

Benchmarks are named ``slot[method]``. Their exact counts (floating-point operations,
elements written, bytes saved for the backward pass, bytes of state) are in ``extra_info``, and
an optimizer's time there as a ratio to torch's AdamW on lists of tensors, measured
in turn in the same run; no ratio is above 3 without a reason in the method's docstring.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import suite
from suite.registry import Method
from suite.runner.cost import paired_ratio
from suite.runner.micro import DEAR, PIECES, Piece, counts, foreach_adamw, gives_reason

SECONDS = 1.0  # of interleaved measurement of one ratio


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


def timed(run: Callable[[], Any]) -> Callable[[], float]:
    """Seconds of one call, a mean over five."""

    def once() -> float:
        started = time.perf_counter()
        for _ in range(5):
            run()
        return (time.perf_counter() - started) / 5

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
    """One update of a GPT of 28,000 parameters, and its time over that of torch's AdamW on lists."""
    ours, theirs = timed(measure(benchmark, method).run), timed(foreach_adamw().run)
    theirs()
    ratio = paired_ratio(ours, theirs, SECONDS)
    benchmark.extra_info |= {f"adamw_{k}": ratio[f"cost_{k}"] for k in ("ratio", "low", "high")}
    dear = f"a step takes {ratio['cost_ratio']:.1f} of AdamW's"
    assert ratio["cost_low"] <= DEAR or gives_reason(method), f"{dear}; say in the docstring what makes it cost so"
