"""What holds of every registered optimizer: state, odd gradients, shapes, dtypes, determinism."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import suite
from suite.train.step import hessian_vector

METHODS = {m.name: m for m in suite.methods(slot="optimizer")}
STEPPED = [n for n in METHODS if n not in ("lbfgs", "adam-lbfgs", "spider", "aprox-ftrl")]
OWN = [n for n in METHODS if not METHODS[n].factory.__module__.startswith("torch.optim")]
every = pytest.mark.parametrize("name", METHODS)
SHAPES = {
    "matrix": (6, 4),
    "conv": (4, 3, 3, 3),
    "embedding": (7, 4),
    "head": (3, 4),
    "norm": (5,),
    "bias": (6,),
    "other": (),
}
UNDECAYED = ("norm", "bias", "other")
TOTAL = 12


class Run:
    """A registered optimizer on Σ ¼w⁴ + ⟨c_t, w⟩ with one tensor of each role, driven as the engine drives it."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32, flat: bool = False, **hp: Any) -> None:
        random = torch.Generator().manual_seed(0)
        self.weights = {role: torch.randn(shape, generator=random).to(dtype) for role, shape in SHAPES.items()}
        self.slopes = [{r: torch.randn(s, generator=random).to(dtype) for r, s in SHAPES.items()} for _ in range(TOTAL)]
        for weight in self.weights.values():
            weight.requires_grad_()
        self.optimizer = METHODS[name].make(list(self.weights.values()) if flat else self.groups(), **hp)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        if hasattr(self.optimizer, "set_horizon"):
            self.optimizer.set_horizon(TOTAL)

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups as the engine makes them."""
        decays = {role: {"weight_decay": 0.0} if role in UNDECAYED else {} for role in SHAPES}
        return [{"params": [w], "role": role, **decays[role]} for role, w in self.weights.items()]

    def loss(self, t: int) -> Tensor:
        parts = [(w**4 / 4 + self.slopes[t][role] * w).sum() for role, w in self.weights.items()]
        return torch.stack(parts).sum()

    def step(self, t: int, loss: Callable[[int], Tensor] | None = None, rate: float | None = None) -> None:
        """Step `t`; `rate` is the schedule's multiplier."""

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            value = (loss or self.loss)(t)
            value.backward()
            return value.detach()

        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - 0.5 * t / TOTAL if rate is None else rate)
        if hasattr(self.optimizer, "set_progress"):
            self.optimizer.set_progress(t / TOTAL)
        if hasattr(self.optimizer, "set_hessian_vector"):
            self.optimizer.set_hessian_vector(functools.partial(hessian_vector, lambda: (loss or self.loss)(t)))
        if getattr(self.optimizer, "needs_closure", False):
            self.optimizer.step(closure)
        else:
            closure()
            self.optimizer.step()

    def copies(self) -> dict[str, Tensor]:
        return {role: w.detach().clone() for role, w in self.weights.items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(left[role], right[role]) for role in left)


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    """The state after a trip through a file that may hold only tensors and plain values."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def undecayed(name: str) -> dict[str, float]:
    if name == "powerlines-wd":
        return {"factor": 0.0}
    return {"weight_decay": 0.0} if "weight_decay" in METHODS[name].defaults else {}


@every
@pytest.mark.parametrize(
    ("dtype", "at"),
    [
        (torch.float32, 1), (torch.float32, 6), (torch.float64, 6), (torch.bfloat16, 6),
        pytest.param(torch.float64, 1, marks=pytest.mark.slow), pytest.param(torch.bfloat16, 1, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_state_dict_round_trip_changes_nothing(name, dtype, at):
    whole, first, second = Run(name, dtype), Run(name, dtype), Run(name, dtype)
    for t in range(TOTAL):
        whole.step(t)
    for t in range(at):
        first.step(t)
    with torch.no_grad():
        for role, w in second.weights.items():
            w.copy_(first.weights[role])
    second.optimizer.load_state_dict(saved_and_loaded(first.optimizer.state_dict()))
    for t in range(at, TOTAL):
        second.step(t)
    assert same(whole.copies(), second.copies())


@pytest.mark.parametrize("name", [n for n in OWN if n != "lbfgs"])
def test_loading_a_state_leaves_the_saved_one_alone(name):
    """torch's own classes, and `lbfgs` with them, share tensors with the state they load."""
    first, second = Run(name), Run(name)
    for t in range(3):
        first.step(t)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    kept = saved_and_loaded(first.optimizer.state_dict())
    second.step(3)
    now = first.optimizer.state_dict()
    for index, state in kept["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                assert torch.equal(value, now["state"][index][key]), key


@every
def test_two_runs_are_bit_identical(name):
    runs = [Run(name), Run(name)]
    for run in runs:
        for t in range(TOTAL):
            run.step(t)
    assert same(runs[0].copies(), runs[1].copies())
    assert not same(runs[0].copies(), Run(name).copies())


@every
def test_the_global_random_stream_is_left_alone(name):
    run, before = Run(name), torch.get_rng_state()
    run.step(0)
    run.step(1)
    assert torch.equal(before, torch.get_rng_state())


@every
def test_parameters_without_a_gradient_stay_and_the_others_train(name):
    run = Run(name)
    before = run.copies()
    for t in range(TOTAL):
        run.step(t, loss=lambda t: (run.weights["matrix"] ** 2).sum() + (run.weights["bias"] ** 2).sum())
    after = run.copies()
    moved = {role for role in before if not torch.equal(before[role], after[role])}
    assert moved == {"matrix", "bias"}


@pytest.mark.parametrize("name", [n for n in METHODS if n != "spider"])
def test_a_parameter_may_gain_its_gradient_late(name):
    """`spider` asks for gradients throughout a cycle."""
    run = Run(name)
    run.step(0, loss=lambda t: (run.weights["matrix"] ** 2).sum())
    for t in range(1, TOTAL):
        run.step(t)
    assert all(w.isfinite().all() for w in run.weights.values())


@every
def test_no_gradient_at_all_is_no_step(name):
    run = Run(name)
    before = run.copies()
    if getattr(run.optimizer, "needs_closure", False):
        run.optimizer.step(lambda: torch.zeros(()))
    else:
        run.optimizer.step()
    assert same(before, run.copies())


@every
def test_zero_gradients_move_nothing_without_decay(name):
    run = Run(name, **undecayed(name))
    before = run.copies()
    for t in range(TOTAL):
        run.step(t, loss=lambda t: torch.stack([(w * 0).sum() for w in run.weights.values()]).sum())
    assert same(before, run.copies())


@every
def test_zero_gradients_amid_others_stay_finite(name):
    run = Run(name)
    for t in range(TOTAL):
        run.step(t, loss=lambda t: run.loss(t) * (t % 3 > 0))
    assert all(w.isfinite().all() for w in run.weights.values())


@pytest.mark.parametrize("name", STEPPED)
def test_learning_rate_zero_moves_nothing(name):
    run = Run(name)
    before = run.copies()
    for t in range(3):
        run.step(t, rate=0.0)
    assert same(before, run.copies())


@pytest.mark.parametrize("name", STEPPED)
def test_a_step_leaves_the_gradients_alone(name):
    run = Run(name)
    run.step(0)
    run.loss(1).backward()
    before = {role: w.grad.clone() for role, w in run.weights.items()}
    run.optimizer.step()
    assert same(before, {role: w.grad for role, w in run.weights.items()})


@pytest.mark.parametrize("name", STEPPED)
def test_nan_gradients_show_in_the_weights(name):
    run = Run(name)
    run.step(0)
    for t in (1, 2):
        run.step(t, loss=lambda t: run.loss(t) * torch.nan)
    assert all(w.isnan().any() for w in run.weights.values())


@every
def test_bfloat16_weights_stay_finite_bfloat16(name):
    run = Run(name, torch.bfloat16)
    before = run.copies()
    for t in range(TOTAL):
        run.step(t)
    assert all(w.isfinite().all() and w.dtype == torch.bfloat16 for w in run.weights.values())
    if name not in ("prodigy", "prodigy-noema", "lion-k-topk"):  # their first steps are below bfloat16's resolution
        assert not same(before, run.copies())


@every
def test_a_plain_list_of_tensors_is_enough(name):
    run = Run(name, flat=True)
    before = run.copies()
    for t in range(TOTAL):
        run.step(t)
    after = run.copies()
    assert all(w.isfinite().all() for w in after.values())
    assert not any(torch.equal(before[role], after[role]) for role in before)


@every
def test_the_default_hyper_parameters_descend(name):
    random = torch.Generator().manual_seed(1)
    x, goal = torch.randn(64, 8, generator=random), torch.randn(8, 8, generator=random) * 0.5
    weight = torch.randn(8, 8, generator=random).mul_(0.3).requires_grad_()
    bias = torch.full((8,), 0.1, requires_grad=True)
    run = Run(name)
    run.optimizer = METHODS[name].make([{"params": [weight], "role": "matrix"}, {"params": [bias], "role": "bias"}])
    for group in run.optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])

    def loss(t: int) -> Tensor:
        return (x @ weight.T + bias - x @ goal.T).square().mean()

    first = loss(0).item()
    for _ in range(100):
        run.step(0, loss)
    assert loss(0).item() < (0.999 if name in ("prodigy", "lion-k-topk") else 0.99) * first


@every
def test_every_learning_rate_has_a_logarithmic_space_around_its_default(name):
    method = METHODS[name]
    rates = [key for key in method.defaults if key == "lr" or key.endswith("_lr")]
    assert "lr" in rates
    for key in rates:
        space = method.space[key]
        assert isinstance(space, suite.LogUniform)
        assert space.high / space.low >= 30


@every
def test_every_entry_states_its_rule_and_its_paper(name):
    method = METHODS[name]
    assert method.summary
    assert method.paper is not None
    assert method.paper.link
