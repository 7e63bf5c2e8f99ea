"""Highway backpropagation against the iteration written out in numpy, and on the suite's residual models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suite
from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.train.loop import Trainer
from suite.train.roles import mark_residual
from suite.train.workload import DoesNotApply

DEPTH, WIDTH, COUNT = 4, 5, 7


class Block(nn.Module):
    """x + B tanh(A x)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.act, self.outer = (
            nn.Linear(WIDTH, WIDTH, bias=False),
            nn.Tanh(),
            nn.Linear(WIDTH, WIDTH, False),
        )
        mark_residual(self.outer)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(self.act(self.inner(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Linear(3, WIDTH, bias=False), nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.head = nn.Linear(WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


def stepper_of(net: nn.Module, iterations: int, name: str = "highway-bp-k") -> Any:
    stepper = suite.method(name).make(torch.optim.SGD(net.parameters(), lr=0.1), iterations=iterations)
    stepper.set_model(net)
    return stepper


def problem() -> tuple[Net, Any, list[int]]:
    torch.manual_seed(0)
    net, x, calls = Net().double(), torch.randn(COUNT, 3, dtype=torch.float64), [0]

    def closure() -> Tensor:
        calls[0] += 1
        net.zero_grad()
        loss = 0.5 * net(x).square().sum()
        loss.backward()
        return loss.detach()

    closure.x = x  # type: ignore[attr-defined]
    return net, closure, calls


def by_hand(net: Net, x: np.ndarray, iterations: int) -> dict[str, np.ndarray]:
    """Gradients of ½‖head(...)‖² with g_l estimated by the iteration over explicit Jacobians."""
    weights = {name: p.detach().numpy() for name, p in net.named_parameters()}
    a = [weights[f"blocks.{i}.inner.weight"] for i in range(DEPTH)]
    b = [weights[f"blocks.{i}.outer.weight"] for i in range(DEPTH)]
    stream = [x @ weights["stem.weight"].T]
    hidden = []
    for i in range(DEPTH):
        hidden.append(np.tanh(stream[-1] @ a[i].T))
        stream.append(stream[-1] + hidden[-1] @ b[i].T)
    out = stream[-1] @ weights["head.weight"].T
    top = out @ weights["head.weight"]
    jacobians = [[b[i] @ np.diag(1 - h**2) @ a[i] for h in hidden[i]] for i in range(DEPTH)]
    g = [top] * (DEPTH + 1)  # g[l] belongs to the input of block l
    for _ in range(iterations):
        v = [np.stack([j.T @ row for j, row in zip(jacobians[i], g[i + 1], strict=True)]) for i in range(DEPTH)]
        g = [top + sum(v[i:]) for i in range(DEPTH)] + [top]
    found = {"head.weight": out.T @ stream[-1], "stem.weight": g[0].T @ x}
    for i in range(DEPTH):
        found[f"blocks.{i}.outer.weight"] = g[i + 1].T @ hidden[i]
        found[f"blocks.{i}.inner.weight"] = (g[i + 1] @ b[i] * (1 - hidden[i] ** 2)).T @ stream[i]
    return found


@pytest.mark.parametrize("iterations", [0, 1, 2, DEPTH, DEPTH + 2])
def test_gradients_are_those_of_the_iteration(iterations: int) -> None:
    net, closure, calls = problem()
    stepper = stepper_of(net, iterations)
    wanted = by_hand(net, closure.x.numpy(), iterations)
    for _ in range(2):
        calls[0] = 0
        loss = stepper.gradients(closure)
        for name, p in net.named_parameters():
            np.testing.assert_allclose(p.grad.numpy(), wanted[name], rtol=1e-10, atol=1e-12, err_msg=name)
    assert calls[0] == iterations + 1
    assert loss.item() == pytest.approx(closure().item())


def test_as_many_iterations_as_branches_are_backpropagation_and_no_iteration_is_not() -> None:
    net, closure, _ = problem()
    closure()
    exact = {name: p.grad.clone() for name, p in net.named_parameters()}
    for iterations, same in ((DEPTH, True), (0, False)):
        stepper_of(net, iterations).gradients(closure)
        close = [torch.allclose(p.grad, exact[name], rtol=1e-10) for name, p in net.named_parameters()]
        assert all(close) == same


def test_gates_change_nothing_outside_a_step() -> None:
    net, closure, _ = problem()
    closure()
    before = [p.grad.clone() for p in net.parameters()]
    stepper_of(net, 0).gradients(closure)
    closure()
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), before, strict=True))
    with torch.no_grad():
        assert net(closure.x).shape == (COUNT, 1)


def test_the_entry_that_knows_only_the_skip_path_is_the_one_without_iterations() -> None:
    assert suite.method("highway-bp-k0").defaults == {"iterations": 0}
    assert suite.method("highway-bp-k").passes == suite.method("highway-bp-k").defaults["iterations"] + 1


@pytest.mark.parametrize(
    ("task", "entry"),
    [("hmm-gpt", "_norm"), ("shapes-vit", "_norm"), ("normfree-gpt", "")],
)
def test_branches_of_a_tasks_model_begin_where_they_take_in_the_stream(task: str, entry: str) -> None:
    spec = RunSpec(task, "highway-bp-k", "smoke", 0)
    work = make_workload(spec)
    trainer = Trainer(work, spec.recipe, spec.given)
    placed: list[nn.Module] = []
    place = trainer.stepper.place_gates
    trainer.stepper.place_gates = lambda found: (placed.extend(found), place(found))
    trainer.stepper.set_model(work.model)
    trainer.step()
    names = {module: name for name, module in work.model.named_modules()}
    layers = len(work.model.layers)
    wanted = [f"layers.{i}.{part}{entry}" for i in range(layers) for part in ("attention", "block")]
    assert [names[m] for m in placed] == wanted
    trainer.closure()
    exact = [p.grad.clone() for p in work.model.parameters()]
    trainer.stepper.iterations = 2 * layers
    trainer.stepper.gradients(trainer.closure)
    for p, g in zip(work.model.parameters(), exact, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-5, atol=1e-7)


def test_a_branch_beside_a_projected_shortcut_begins_at_its_own_first_layer() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.shortcut = nn.Linear(3, 6), mark_residual(nn.Linear(6, 4)), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))

    net = nn.Sequential(nn.Linear(3, 3), Projected(), nn.Linear(4, 1))
    stepper, found = stepper_of(net, 1), []
    stepper.place_gates = found.extend
    stepper.set_model(net)
    net(torch.randn(5, 3)).sum().backward()
    assert found == [net[1].first]


def test_a_model_without_residual_branches_is_not_for_it() -> None:
    with pytest.raises(DoesNotApply, match="residual"):
        stepper_of(nn.Sequential(nn.Linear(2, 2)), 1)
    result = suite.run("digits-cnn", "highway-bp-k", tier="smoke")
    assert result.status == "skipped"
    assert "residual" in result.message
