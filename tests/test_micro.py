"""Exact counts of single methods: complete over the registry, repeatable, and what they should be by hand."""

from __future__ import annotations

import functools
import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import suite
from suite.recipe import recipe_for
from suite.registry import Method, registry
from suite.runner import micro
from suite.runner.cost import ElementCounter, operations, saved_bytes
from suite.runner.micro import DEAR, PIECES, SHAPES, Piece, complaint, counts, foreach_adamw, stated_cost
from suite.train.roles import param_groups
from suite.train.workload import Context

ROOT = Path(__file__).parents[1]
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
    assert not dear or stated_cost(method), f"say in the docstring of {method.name} what makes a step cost so"


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


def test_the_weights_of_an_optimizers_piece_are_those_of_hmm_gpt_in_the_groups_of_the_loop() -> None:
    info = registry().task("hmm-gpt")
    context = Context(info, info.tiers["quick"], "quick", recipe_for(info, "reference"), 0, torch.device("cpu"))
    groups = param_groups(info.factory(info).workload(context).model)
    found: list[dict[str, Any]] = []

    def make(made: list[dict[str, Any]]) -> torch.optim.Optimizer:
        found.extend(dict(group) for group in made)
        return torch.optim.SGD(made, lr=0.0)

    micro.update(make)

    def described(groups: list[dict[str, Any]]) -> list[Any]:
        return [(g["role"], g.get("weight_decay"), sorted(p.shape for p in g["params"])) for g in groups]

    assert described(found) == described(groups)


def test_the_loss_of_closures_has_the_gradient_and_the_curvature_of_its_formula() -> None:
    w, s, v = torch.randn(3, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w.requires_grad_()
    expected = (w**4 / 4 + w**2 / 2 + s * w).sum()
    (slope,) = torch.autograd.grad(expected, w, create_graph=True)
    (product,) = torch.autograd.grad(slope, w, v)
    torch.testing.assert_close(micro._loss([w], [s]), expected.detach())
    torch.testing.assert_close(w.grad, slope.detach())
    torch.testing.assert_close(micro._curvature([w], [v])[0], product)


@pytest.mark.parametrize("name", ["lbfgs", "adam-lbfgs"])
def test_a_line_search_has_work_at_every_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations, compute = [0], micro._loss

    def counting(*args: Any) -> torch.Tensor:
        evaluations[0] += 1
        return compute(*args)

    monkeypatch.setattr(micro, "_loss", counting)
    piece = PIECES["optimizer"](suite.method(name))
    taken = []
    for _ in range(8):
        evaluations[0] = 0
        piece.run()
        taken.append(evaluations[0])
    assert min(taken) > 20


# ---------------------------------------------------------------- the benchmarks themselves


@pytest.fixture(scope="module")
def benchmarks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarked_methods", ROOT / "benchmarks" / "test_methods.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("slot", PIECES)
def test_every_entry_of_a_slot_has_a_benchmark_under_its_name(benchmarks: ModuleType, slot: str) -> None:
    (mark,) = getattr(benchmarks, f"test_{slot}").pytestmark
    ids = [mark.kwargs["ids"](method) for method in mark.args[1]]
    files = (ROOT / "baselines" / slot).glob("*.py")
    registered = [
        n for f in files for n in re.findall(rf'^(?:@|\w+ = ){slot}\(\s*"([^"]+)"', f.read_text(), re.MULTILINE)
    ]
    assert sorted(ids) == sorted(registered)


class NoClock:
    """In the place of pytest-benchmark's fixture."""

    def __init__(self) -> None:
        self.extra_info: dict[str, float] = {}

    def pedantic(self, run: Any, **rounds: int) -> None:
        pass


def measured(benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, ratio: float) -> dict[str, float]:
    """What the benchmark of an optimizer leaves when its step takes `ratio` of AdamW's, within 2%."""
    taken = {"cost_ratio": ratio, "cost_low": ratio / 1.02, "cost_high": ratio * 1.02}
    monkeypatch.setattr(benchmarks, "paired_ratio", lambda ours, theirs, seconds: taken)
    clock = NoClock()
    benchmarks.test_optimizer(clock, suite.method(name))
    return clock.extra_info


def test_the_benchmark_of_an_optimizer_keeps_its_ratio_and_passes_up_to_three(
    benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(benchmarks, monkeypatch, "sgd", 3.0)
    assert (found["adamw_ratio"], found["adamw_low"], found["adamw_high"]) == (3.0, 3.0 / 1.02, 3.0 * 1.02)
    assert {"flops", "elementwise", "state_bytes"} < set(found)


def test_the_benchmark_fails_above_three_without_a_reason(
    benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=r"sgd costs 4\.90 to 5\.10 .* make it faster, .* cost about 5 of AdamW's"):
        measured(benchmarks, monkeypatch, "sgd", 5.0)


@pytest.mark.parametrize(("ratio", "right"), [(1.3, False), (2.0, True), (5.0, True), (7.0, False)])
def test_the_benchmark_holds_a_stated_cost_within_a_factor_of_two(
    benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch, ratio: float, right: bool
) -> None:
    assert stated_cost(suite.method("soap")) == 3
    if right:
        measured(benchmarks, monkeypatch, "soap", ratio)
    else:
        with pytest.raises(AssertionError, match="its docstring says 3"):
            measured(benchmarks, monkeypatch, "soap", ratio)


def test_a_reason_is_a_number_of_adamws_steps() -> None:
    said = {
        "a step costs about\n    4 of\n    AdamW's": 4,
        "a step costs several of AdamW's": None,
        "costs a lot": None,
    }
    for doc, cost in said.items():
        method: Any = SimpleNamespace(name="made", doc=doc)
        assert stated_cost(method) == cost
        assert bool(complaint(method, 3.9, 4.1)) is (cost is None)


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
