"""Exact counts of single methods: complete over the registry, repeatable, and what they should be by hand."""

from __future__ import annotations

import functools
import math

import pytest
import torch

import suite
from suite.registry import Method
from suite.runner.cost import ElementCounter, operations, saved_bytes
from suite.runner.micro import DEAR, PIECES, SHAPES, Piece, counts, foreach_adamw, gives_reason

METHODS = [m for slot in PIECES for m in suite.methods(slot)]
WEIGHTS = sum(count * math.prod(shape) for _, shape, count in SHAPES)


def counted_anew(name: str) -> dict[str, float]:
    torch.manual_seed(0)
    return counts(PIECES[suite.method(name).slot](suite.method(name)))


counted = functools.cache(counted_anew)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.slot}[{m.name}]")
def test_every_method_has_a_piece_that_computes_something_and_counts_the_same_again(method: Method) -> None:
    first, again = counted(method.name), counted_anew(method.name)
    assert first == again
    assert first["elementwise"] > 0
    assert all(value >= 0 and value == int(value) for value in first.values())
    if method.slot == "optimizer":
        assert first["saved_bytes"] == 0


@pytest.mark.parametrize("method", suite.methods("optimizer"), ids=lambda m: m.name)
def test_a_dear_optimizer_gives_its_reason(method: Method) -> None:
    """Matrix products, or three times the elements that AdamW writes, are more than a step usually costs."""
    found = counted(method.name)
    dear = found["flops"] > 0 or found["elementwise"] > DEAR * counts(foreach_adamw())["elementwise"]
    assert not dear or gives_reason(method), f"say in the docstring of {method.name} what makes a step cost so"


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("sgd", 1),
        ("adamw", 2),
        ("lion", 1),
        ("amsgrad-paper", 3),
        ("sign-descent", 0),
        ("sophia-h", 2),
        ("ademamix", 3),
    ],
)
def test_state_is_as_many_copies_of_the_weights_as_the_rule_keeps(name: str, tensors: int) -> None:
    assert counted(name)["state_bytes"] == pytest.approx(4 * tensors * WEIGHTS, abs=200)  # torch keeps its step counts


def test_adamw_by_lists_writes_what_adamw_by_tensors_does() -> None:
    assert counts(foreach_adamw())["elementwise"] == pytest.approx(counted("adamw")["elementwise"], rel=1e-3)


def test_relu_reads_one_input_writes_one_output_and_keeps_one_tensor() -> None:
    found, size = counted("relu"), 256 * 64
    assert found["saved_bytes"] == 4 * size
    assert found["state_bytes"] == found["flops"] == 0
    assert counted("identity")["saved_bytes"] == 0
    assert found["elementwise"] - counted("identity")["elementwise"] == 2 * size
    assert counted("prelu")["state_bytes"] == 4 * 64


def test_a_loss_with_a_head_is_counted_with_it() -> None:
    found = counted("ebv")
    assert found["flops"] == 3 * 2 * 256 * 64 * 64 + 2 * 2 * 256 * 64 * 16  # fixed directions have no gradient
    assert found["state_bytes"] == 4 * (64 * 64 + 64 + 64 * 16)


def test_lists_that_are_changed_in_place_count() -> None:
    tensors = [torch.ones(3), torch.ones(5)]
    with ElementCounter() as counter:
        torch._foreach_add_(tensors, 1.0)
    assert counter.elements == 8
    assert operations(lambda: torch.ones(4, 5) @ torch.ones(5, 6))["flops"] == 2 * 4 * 5 * 6


def test_saved_bytes_leave_out_what_they_are_told() -> None:
    x, w = torch.ones(4, requires_grad=True), torch.ones(4, requires_grad=True)
    assert saved_bytes(lambda: (x * w).sum()) == 32
    assert saved_bytes(lambda: (x * w).sum(), [w]) == 16


def test_a_piece_without_a_forward_half_saves_nothing() -> None:
    assert counts(Piece(lambda: torch.ones(2) + 1, None, lambda: [torch.ones(3)])) == {
        "flops": 0.0, "elementwise": 4.0, "saved_bytes": 0, "state_bytes": 12,
    }  # fmt: skip
