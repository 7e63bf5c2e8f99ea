"""Averages against numpy recomputations from the recorded iterates, and the contract of every registered one."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suite
from suite.train.average import Averager

NAMES = [m.name for m in suite.methods("averaging")]
STEPS = 60
HP: dict[str, dict[str, Any]] = {
    "ema": {"decay": 0.7},
    "ema-eval": {"decay": 0.9},
    "ema-scaling": {"decay": 0.9, "kappa": 3.0},
    "swa": {"start": 0.5, "stride": 4},
    "tail-average": {"start": 0.6},
    "swa-window": {"window": 0.2, "stride": 5},
    "lawa": {"snapshots": 3, "every": 0.1},
    "bema": {"burn_in": 0.25, "every": 0.05, "bias_power": 0.3, "ema_power": 0.6, "lag": 3.0, "rate": 0.5},
    "ouema": {"burn_in": 0.25, "every": 0.05, "bias_power": 0.3, "ema_power": 0.6},
    "double-ema": {"burn_in": 0.25, "every": 0.05, "ema_power": 0.6, "floor": 0.2},
    "dynamic-ema": {"fallback": 0.02},
}

State = dict[str, np.ndarray]


class Net(nn.Module):
    """Parameters, running statistics, an integer buffer, a complex parameter and one without a gradient."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Linear(3, 4)
            self.norm = nn.BatchNorm1d(4)
            self.last = nn.Linear(4, 2)
            self.spectrum = nn.Parameter(torch.randn(3, dtype=torch.complex64))
            self.idle = nn.Parameter(torch.randn(2))
        self.double()
        self.spectrum.data = self.spectrum.data.to(torch.complex128)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x))) + self.spectrum.abs().sum()


def arrays(net: nn.Module) -> State:
    return {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}


def train_step(net: Net, step: int) -> State:
    """One noisy gradient step, fixed by its number; returns the gradients."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    net.zero_grad()
    (net(x) - x[:, :2]).square().mean().backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
            if p.grad is not None:
                p -= 0.1 * p.grad
    return {n: (torch.zeros_like(p) if p.grad is None else p.grad).numpy().copy() for n, p in net.named_parameters()}


def evaluated(averager: Averager) -> State:
    with averager.applied():
        return arrays(averager.model)


# ---------------------------------------------------------------- references
#
# reference(w, g, n, hp): the state that evaluation sees after n updates, from the iterates w[0..n] (w[0]
# initial) and gradients g[1..n]; integer entries are not looked at.


def combine(states: list[State], weights: list[float]) -> State:
    return {k: sum(c * s[k] for c, s in zip(weights, states, strict=True)) for k in states[0]}


def last(w: list[State], g: list[State], n: int, hp: dict) -> State:
    return w[n]


def ema(decay: Callable[[int, dict], float]) -> Callable[..., State]:
    def reference(w: list[State], g: list[State], n: int, hp: dict) -> State:
        """Closed form: the weight of iterate i is (1 - d_i) times the product of the later decays."""
        d = [decay(t, hp) for t in range(n)]
        weights = [math.prod(d)] + [(1 - d[i]) * math.prod(d[i + 1 :]) for i in range(n)]
        return combine(w[: n + 1], weights)

    return reference


def mean_of(w: list[State], picked: list[int]) -> State:
    return combine([w[i] for i in picked], [1 / len(picked)] * len(picked))


def uniform(w: list[State], g: list[State], n: int, hp: dict) -> State:
    first = max(1, math.ceil(hp["start"] * STEPS))
    return mean_of(w, list(range(first, n + 1, hp["stride"]))) if n >= first else w[n]


def window(w: list[State], g: list[State], n: int, hp: dict) -> State:
    length = round(hp["window"] * STEPS)
    ended = n // length
    return mean_of(w, list(range((ended - 1) * length + 1, ended * length + 1, hp["stride"]))) if ended else w[n]


def lawa(w: list[State], g: list[State], n: int, hp: dict) -> State:
    period = round(hp["every"] * STEPS)
    taken = list(range(period, n + 1, period))[-hp["snapshots"] :]
    return mean_of(w, taken) if taken else w[n]


def power(kind: str) -> Callable[..., State]:
    def reference(w: list[State], g: list[State], n: int, hp: dict) -> State:
        start = max(0, math.ceil(hp["burn_in"] * STEPS))
        if n < start:
            return w[n]
        period = round(hp["every"] * STEPS)
        zero = average = second = seen = w[start]
        buffers = [k for k in zero if "running" in k or "tracked" in k]
        for t in range(start + 1, n + 1):
            if t % period:
                continue
            time = hp["lag"] + hp["rate"] * t
            beta = max(time ** -hp["ema_power"], hp["floor"])
            target = w[t]
            if kind == "ouema":
                s = time ** -hp["bias_power"]
                target = combine([w[t], zero], [1 / (1 - s), -s / (1 - s)]) | {k: w[t][k] for k in buffers}
            average = combine([average, target], [1 - beta, beta])
            second = combine([second, average], [1 - beta, beta])
            seen = average
            if kind == "bema":
                alpha = time ** -hp["bias_power"]
                seen = combine([average, w[t], zero], [1, alpha, -alpha])
            elif kind == "double-ema":
                seen = combine([average, second], [2, -1])
            seen = seen | {k: average[k] for k in buffers}
        return seen

    return reference


def dynamic(w: list[State], g: list[State], n: int, hp: dict) -> State:
    average = dict(w[0])
    for t in range(1, n + 1):
        for k in average:
            alpha = hp["fallback"]
            if k in g[t] and t > 1:
                a, b, c = (np.abs(v).sum() for v in (w[t][k] - average[k], g[t][k], g[t][k] - g[t - 1][k]))
                if a * c > 0 and 0 < 2 * (1 + b) / (a * c) < 1:
                    alpha = 2 * (1 + b) / (a * c)
            average[k] = average[k] + alpha * (w[t][k] - average[k])
    return average


REFERENCES: dict[str, Callable[..., State]] = {
    "last": last,
    "ema": ema(lambda t, hp: min(hp["decay"], (1 + t) / (10 + t))),
    "ema-eval": ema(lambda t, hp: hp["decay"]),
    "ema-scaling": ema(lambda t, hp: hp["decay"] ** hp["kappa"]),
    "swa": uniform,
    "tail-average": uniform,
    "average-from-start": uniform,
    "swa-window": window,
    "lawa": lawa,
    "bema": power("bema"),
    "ouema": power("ouema"),
    "double-ema": power("double-ema"),
    "dynamic-ema": dynamic,
}


def test_every_registered_averaging_has_a_reference() -> None:
    assert set(REFERENCES) == set(NAMES)


@pytest.mark.parametrize("unit", [1, 102.4], ids=["steps", "tokens"])
@pytest.mark.parametrize("name", NAMES)
def test_evaluation_weights_agree_with_numpy_at_every_step(name: str, unit: float) -> None:
    net = Net()
    hp = {**suite.method(name).defaults, **HP.get(name, {})}
    averager = suite.method(name).make(net, **hp)
    iterates, gradients = [arrays(net)], [{}]
    for n in range(STEPS + 1):
        if n:
            gradients.append(train_step(net, n))
            averager.update(n * unit, STEPS * unit)
            iterates.append(arrays(net))
        expected = REFERENCES[name](iterates, gradients, n, hp)
        for key, value in evaluated(averager).items():
            if value.dtype != np.int64:
                np.testing.assert_allclose(value, expected[key], rtol=1e-9, atol=1e-11, err_msg=f"{key} after {n}")


def test_dynamic_weight_is_really_reached() -> None:
    """The numpy check above would pass with the fallback alone if the formula never gave a weight in (0, 1)."""
    model = nn.Linear(200, 1, bias=False)
    averager = suite.method("dynamic-ema").make(model, fallback=1e-3)
    for step in (1, 2):
        with torch.no_grad():
            model.weight += 1.0
        model.weight.grad = torch.full_like(model.weight, float(step))
        averager.update(step, 10)
    travel, gradient, turn = 200 * (2 - 1e-3), 400.0, 200.0
    expected = 2 * (1 + gradient) / (travel * turn)
    moved = averager.weights()["weight"] - (model.weight - 2.0)
    assert 1e-3 < expected < 1
    np.testing.assert_allclose(moved.detach(), 1e-3 + expected * (2 - 1e-3), rtol=1e-4)


# ---------------------------------------------------------------- contract


def trained(name: str, steps: int = 50) -> tuple[Net, Averager]:
    net = Net()
    averager = suite.method(name).make(net, **HP.get(name, {}))
    for n in range(1, steps + 1):
        train_step(net, n)
        averager.update(n, STEPS)
    return net, averager


def clones(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_model_is_bit_identical_after_evaluation(name: str) -> None:
    net, averager = trained(name)
    before = clones(net)
    for _ in range(2):
        with averager.applied():
            net.eval()
            net(torch.ones(2, 3, dtype=torch.float64))
        net.train()
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    with pytest.raises(KeyError), averager.applied():
        raise KeyError
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_does_not_steer_the_average(name: str) -> None:
    _, quiet = trained(name)
    net = Net()
    averager = suite.method(name).make(net, **HP.get(name, {}))
    for n in range(1, 51):
        train_step(net, n)
        averager.update(n, STEPS)
        with averager.applied():
            pass
    once, often = evaluated(quiet), evaluated(averager)
    assert all(np.array_equal(once[key], often[key]) for key in once)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"last"}))
def test_running_statistics_are_averaged_and_counters_are_the_models(name: str) -> None:
    net, averager = trained(name)
    live, seen = arrays(net), evaluated(averager)
    assert seen["norm.num_batches_tracked"] == live["norm.num_batches_tracked"] == 50
    assert not np.array_equal(seen["norm.running_mean"], live["norm.running_mean"])
    assert (seen["norm.running_var"] > 0).all()
    assert not np.array_equal(seen["first.weight"], live["first.weight"])
    assert not np.array_equal(seen["spectrum"], live["spectrum"])


@pytest.mark.parametrize("name", NAMES)
def test_average_of_weights_that_stand_still_is_those_weights(name: str) -> None:
    net = Net()
    averager = suite.method(name).make(net, **HP.get(name, {}))
    for n in range(1, STEPS + 1):
        averager.update(n, STEPS)
    live, seen = arrays(net), evaluated(averager)
    for key in live:
        np.testing.assert_allclose(seen[key], live[key], rtol=1e-12, err_msg=key)


@pytest.mark.parametrize("cut", [1, 17, 40])
@pytest.mark.parametrize("name", NAMES)
def test_state_round_trip_in_the_middle_changes_nothing(name: str, cut: int) -> None:
    _, whole = trained(name)
    net, averager = trained(name, steps=cut)
    state = averager.state_dict()
    assert all(isinstance(v, Tensor | int | float) for v in state.values())
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    resumed_net = Net(seed=9)
    resumed = suite.method(name).make(resumed_net, **HP.get(name, {}))
    resumed_net.load_state_dict(net.state_dict())
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for n in range(cut + 1, 51):
        train_step(resumed_net, n)
        resumed.update(n, STEPS)
    expected, found = evaluated(whole), evaluated(resumed)
    assert all(np.array_equal(expected[key], found[key]) for key in expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("total", [1, 5])
def test_run_of_a_few_updates_gives_finite_weights(name: str, total: int) -> None:
    net = Net()
    averager = suite.method(name).make(net)
    for n in range(1, total + 1):
        train_step(net, n)
        averager.update(n, total)
    assert all(np.isfinite(value).all() for value in evaluated(averager).values())


@pytest.mark.parametrize("name", NAMES)
def test_default_differs_from_the_last_iterate_by_the_end_of_a_run(name: str) -> None:
    net = Net()
    averager = suite.method(name).make(net)
    for n in range(1, 201):
        train_step(net, n)
        averager.update(n, 200)
    same = np.array_equal(evaluated(averager)["first.weight"], arrays(net)["first.weight"])
    assert same == (name == "last")


@pytest.mark.parametrize("name", NAMES)
def test_averages_carry_no_gradient_graph(name: str) -> None:
    _, averager = trained(name)
    assert not any(tensor.requires_grad for tensor in (averager.weights() or {}).values())


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"last"}))
def test_tied_and_parametrised_weights_are_averaged_and_come_back(name: str) -> None:
    net = nn.ModuleDict({"table": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False), "mix": nn.Linear(3, 3)})
    net["head"].weight = net["table"].weight
    nn.utils.parametrizations.weight_norm(net["mix"])
    averager = suite.method(name).make(net, **HP.get(name, {}))
    for n in range(1, 51):
        with torch.no_grad():
            for p in net.parameters():
                p += torch.randn(p.shape, generator=torch.Generator().manual_seed(n))
        averager.update(n, STEPS)
    before = clones(net)
    with averager.applied():
        assert torch.equal(net["head"].weight, net["table"].weight)
        assert not torch.equal(net["head"].weight, before["head.weight"])
        assert not torch.equal(
            net["mix"].parametrizations.weight.original0, before["mix.parametrizations.weight.original0"]
        )
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_buffer_put_in_anew_by_the_model_is_followed() -> None:
    net = nn.BatchNorm1d(2).double()
    averager = suite.method("ema-eval").make(net, decay=0.5)
    net.running_mean = torch.full((2,), 8.0, dtype=torch.float64)
    averager.update(1, 10)
    assert torch.equal(averager.weights()["running_mean"], torch.full((2,), 4.0, dtype=torch.float64))


# ---------------------------------------------------------------- what each is for


def test_scaled_ema_spans_the_same_examples_at_four_times_the_batch() -> None:
    """Four updates at the base batch see the weights one update sees at four times the batch."""
    net = Net()
    base = suite.method("ema-eval").make(net, decay=0.9)
    scaled = suite.method("ema-scaling").make(net, decay=0.9, kappa=4.0)
    for n in range(1, 6):
        train_step(net, n)
        for i in range(4):
            base.update(4 * n + i, 40)
        scaled.update(4 * n, 40)
    small, large = evaluated(base), evaluated(scaled)
    for key in small:
        np.testing.assert_allclose(small[key], large[key], rtol=1e-12)


def test_ema_forgets_the_initial_weights_early() -> None:
    net = Net()
    averager = suite.method("ema").make(net, decay=0.9999)
    start = arrays(net)["idle"]
    with torch.no_grad():
        net.idle += 1.0
    for n in range(1, 31):
        averager.update(n, 1000)
    assert np.abs(evaluated(averager)["idle"] - start).min() > 0.99


def test_bema_removes_the_lag_of_an_ema_on_a_straight_path() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    hp = {"burn_in": 0.0, "every": 1e-3, "lag": 1.0}
    plain = suite.method("bema").make(model, **hp, bias_power=50.0)
    corrected = suite.method("bema").make(model, **hp)
    for n in range(1, 201):
        with torch.no_grad():
            model.weight += 1.0
        plain.update(n, 200)
        corrected.update(n, 200)
    lag_plain = 200 - plain.weights()["weight"].item()
    lag_corrected = 200 - corrected.weights()["weight"].item()
    assert lag_plain > 5
    assert lag_corrected < lag_plain
