"""What a physics-informed step costs beside one written by hand, and what each derivative engine is worth.

Ratios of processor time, taken in turn (A B B A) on one thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.recipe import Choice, recipe_for
from suite.registry import registry
from suite.runner.cost import paired_ratio
from suite.train.derivatives import Engine, autograd_fields
from suite.train.jets import AxisJets, forward_laplacian, through
from suite.train.loop import Trainer
from suite.train.pinn import PinnWorkload
from suite.train.workload import Context

WIDTH, DEPTH, POINTS = 64, 4, 2048
VISCOSITY = 0.01 / math.pi
SECONDS = 20.0


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One compute thread, and a registry cache of the benchmarks' own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("LEVELFIELD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    yield
    torch.set_num_threads(threads)


class Mlp(nn.Module):
    """Four hidden layers of 64 tanh units; takes points and jets."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        sizes = (inputs, *[WIDTH] * DEPTH)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.tanh, self.head = nn.Tanh(), nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = through(self.tanh, layer(x))
        return self.head(x)


def workload(task: str, method: str, tier: str = "quick", **sizes: Any) -> PinnWorkload:
    """A task's workload with Adam on fixed points."""
    info = registry().task(task)
    recipe = recipe_for(info, "reference")
    for slot, choice in {
        "pde-method": Choice(method, registry().method(method).defaults),
        "optimizer": Choice("adam", {"lr": 1e-3}),
        "sampler": Choice("fixed-points"),
    }.items():
        recipe = recipe.with_choice(slot, choice)
    small = replace(info.tiers[tier], sizes={**info.tiers[tier].sizes, **sizes})
    made: PinnWorkload = info.factory(info).workload(Context(info, small, tier, recipe, 0, torch.device("cpu")))
    return made


def trainer(work: PinnWorkload) -> Trainer:
    return Trainer(work, work.context.recipe, 1e9)


def timed(step: Callable[[], Any], count: int = 3) -> Callable[[], float]:
    """Processor seconds of one step, a mean over `count`."""

    def measure() -> float:
        started = time.process_time()
        for _ in range(count):
            step()
        return (time.process_time() - started) / count

    step()
    return measure


def ratio(benchmark: Any, ours: Callable[[], Any], theirs: Callable[[], Any]) -> dict[str, Any]:
    """Cost of `ours` over that of `theirs`, kept with the benchmark of `ours`."""
    found = paired_ratio(timed(ours), timed(theirs), SECONDS)
    benchmark.extra_info.update({k: found[k] for k in ("cost_ratio", "cost_low", "cost_high", "pairs")})
    benchmark.pedantic(ours, rounds=3)
    return found


def slope(value: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), x, create_graph=True)[0]


class Bare:
    """Burgers' step as one would write it without the suite: the same points, network and optimizer."""

    def __init__(self, work: PinnWorkload) -> None:
        self.net = Mlp(2)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.points = work.sampler.points().clone().requires_grad_()
        self.start, self.ends = (c.points for c in work.problem.conditions)
        self.sine = torch.sin(math.pi * self.start[:, :1])
        self.scale, self.centre = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.5])

    def u(self, x: Tensor) -> Tensor:
        return self.net((x - self.centre) * self.scale)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        u = self.u(self.points)[:, 0]
        u_x, u_t = slope(u, self.points).unbind(1)
        u_xx = slope(u_x, self.points)[:, 0]
        residual = u_t + u * u_x - VISCOSITY * u_xx
        both = self.u(torch.cat([self.start, self.ends]))
        start, ends = both.split([len(self.start), len(self.ends)])
        loss = residual.square().mean() + (start + self.sine).square().mean() + ends.square().mean()
        loss.backward()
        self.optimizer.step()


def burgers() -> PinnWorkload:
    work = workload("burgers", "pinn", points=POINTS)
    work.model.core = Mlp(2)
    return work


def test_a_burgers_step_against_one_written_by_hand(benchmark: Any) -> None:
    """At most 1.05 times nested differentiation in a bare loop."""
    work = burgers()
    found = ratio(benchmark, trainer(work).step, Bare(work).step)
    assert found["cost_low"] <= 1.05


ENGINES: dict[str, Engine] = {
    "burgers": AxisJets({0: 2, 1: 1}),
    "wave": AxisJets({0: 2, 1: 2}),
    "helmholtz": forward_laplacian,
    "poisson-10": forward_laplacian,
}


@pytest.mark.parametrize("task", ENGINES)
def test_the_taylor_engine_against_nested_differentiation(benchmark: Any, task: str) -> None:
    """A step of the same loss through either engine: at most 0.95 times where the task uses the Taylor engine."""
    works = []
    for engine in (ENGINES[task], autograd_fields):
        work = burgers() if task == "burgers" else workload(task, "pinn", points=POINTS)
        if task != "burgers":
            work.model.core = Mlp(work.task.domain.dims)
        work.problem.engine = engine
        works.append(trainer(work))
    found = ratio(benchmark, works[0].step, works[1].step)
    if works[0].workload.task.jets is not None:
        assert found["cost_low"] <= 0.95


def test_a_step_of_stde_in_100_dimensions_against_the_nested_laplacian(benchmark: Any) -> None:
    """At least ten times cheaper."""
    stde = trainer(workload("poisson-100", "stde-sparse"))
    full = trainer(workload("poisson-100", "full-laplacian"))
    found = ratio(benchmark, stde.step, full.step)
    assert found["cost_high"] <= 0.1
