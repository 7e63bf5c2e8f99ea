"""Registered losses against float64 formulas written another way, and at the edges of their domain."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax

import suite

Reference = Callable[..., float]
METHODS = [m for m in suite.methods(slot="loss") if not hasattr(m.factory, "head")]  # test_heads.py has the others
NAMES = [m.name for m in METHODS]


def target_probability(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return softmax(z, axis=1)[np.arange(len(y)), y]


def cross_entropy(z: np.ndarray, y: np.ndarray, label_smoothing: float = 0.0) -> float:
    classes = z.shape[1]
    soft = np.full(z.shape, label_smoothing / classes)
    soft[np.arange(len(y)), y] += 1 - label_smoothing
    return float(-(soft * log_softmax(z, axis=1)).sum(1).mean())


def stablemax(z: np.ndarray, y: np.ndarray) -> float:
    s = np.array([[v + 1 if v >= 0 else 1 / (1 - v) for v in row] for row in z])
    return float(np.mean([-math.log(s[i, c] / s[i].sum()) for i, c in enumerate(y)]))


def comp_sum(z: np.ndarray, y: np.ndarray, tau: float) -> float:
    losses = []
    for row, c in zip(z, y, strict=True):
        u = sum(math.exp(v - row[c]) for j, v in enumerate(row) if j != c)
        losses.append(math.log1p(u) if tau == 1 else ((1 + u) ** (1 - tau) - 1) / (1 - tau))
    return float(np.mean(losses))


def thresholded(loss: Callable[[float], float], keep: Callable[[float, float], bool]) -> Reference:
    def reference(z: np.ndarray, y: np.ndarray, q: float) -> float:
        kept = [loss(p) for p in target_probability(z, y) if keep(p, q)]
        return sum(kept) / len(kept) if kept else 0.0

    return reference


def bpr(z: np.ndarray, y: np.ndarray) -> float:
    return float(
        np.mean(
            [[-math.log(expit(row[c] - v)) for j, v in enumerate(row) if j != c] for row, c in zip(z, y, strict=True)]
        )
    )


def miss(p: float) -> float:
    return 1 - p


def surprise(p: float) -> float:
    return -math.log(p)


REFERENCES: dict[str, Reference] = {
    "cross-entropy": cross_entropy,
    "label-smoothing": lambda z, y, theta: cross_entropy(z, y, theta),
    "tsla": lambda z, y, theta, switch: cross_entropy(z, y, theta),  # its first stage
    "stablemax": stablemax,
    "sum-exp": lambda z, y: comp_sum(z, y, 0.0),
    "gce": comp_sum,
    "mae-comp": lambda z, y: float(np.abs(softmax(z, axis=1) - np.eye(z.shape[1])[y]).sum(1).mean() / 2),
    "prob-p1": lambda z, y: comp_sum(z, y, 2.0),
    "prob-p10": lambda z, y, alpha: float(np.mean((1 - target_probability(z, y) ** alpha) / alpha)),
    "prob-p-high": thresholded(miss, lambda p, q: p >= q),
    "prob-p-high-0.5": thresholded(miss, lambda p, q: p >= q),
    "prob-p-low": thresholded(miss, lambda p, q: p <= q),
    "prob-p-low-0.5": thresholded(miss, lambda p, q: p <= q),
    "nll-high": thresholded(surprise, lambda p, q: p >= q),
    "nll-high-0.5": thresholded(surprise, lambda p, q: p >= q),
    "nll-low": thresholded(surprise, lambda p, q: p <= q),
    "nll-low-0.5": thresholded(surprise, lambda p, q: p <= q),
    "focal": lambda z, y, gamma: float(np.mean([-((1 - p) ** gamma) * math.log(p) for p in target_probability(z, y)])),
    "poly-1": lambda z, y, epsilon: float(
        np.mean([-math.log(p) + epsilon * (1 - p) for p in target_probability(z, y)])
    ),
    "z-loss": lambda z, y, weight: (
        cross_entropy(z, y) + weight * float(np.mean([math.log(sum(map(math.exp, row))) ** 2 for row in z]))
    ),
    "spectral-decoupling": lambda z, y, strength: (
        cross_entropy(z, y) + strength / 2 * float(np.mean([sum(v * v for v in row) for row in z]))
    ),
    "squared-error": lambda z, y: float(np.mean((z - np.eye(z.shape[1])[y]) ** 2)),
    "bpr": bpr,
}


@pytest.fixture(params=[0, 1])
def batch(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Seven examples of four classes, logits of a few nats."""
    rng = np.random.default_rng(request.param)
    return rng.normal(scale=2.0, size=(7, 4)), rng.integers(4, size=7)


def tensors(batch: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(batch[0], requires_grad=True), torch.tensor(batch[1])


def test_tsla_takes_plain_labels_after_the_switch(batch: tuple[np.ndarray, np.ndarray]) -> None:
    loss = suite.method("tsla").make(theta=0.3, switch=0.5)
    z, y = tensors(batch)
    assert loss(z, y, progress=0.499).item() == pytest.approx(cross_entropy(*batch, 0.3), rel=1e-12)
    assert loss(z, y, progress=0.5).item() == pytest.approx(cross_entropy(*batch, 0.0), rel=1e-12)


def test_every_registered_loss_has_a_reference() -> None:
    assert set(REFERENCES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_value_agrees_with_the_formula(name: str, batch: tuple[np.ndarray, np.ndarray]) -> None:
    entry = suite.method(name)
    z, y = tensors(batch)
    assert entry.make()(z, y).item() == pytest.approx(REFERENCES[name](*batch, **entry.defaults), rel=1e-12)


@pytest.mark.parametrize("name", [m.name for m in METHODS if m.space])
@pytest.mark.parametrize("u", [0.0, 0.37, 1.0])
def test_value_agrees_over_the_search_space(name: str, u: float, batch: tuple[np.ndarray, np.ndarray]) -> None:
    entry = suite.method(name)
    hp = {**entry.defaults, **{k: domain.at(u) for k, domain in entry.space.items()}}
    z, y = tensors(batch)
    assert entry.make(**hp)(z, y).item() == pytest.approx(REFERENCES[name](*batch, **hp), rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_derivative(name: str, batch: tuple[np.ndarray, np.ndarray]) -> None:
    loss = suite.method(name).make()
    z, y = tensors(batch)
    assert torch.autograd.gradcheck(lambda logits: loss(logits, y), (z,), fast_mode=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_logits_give_finite_loss_and_gradient(name: str, dtype: torch.dtype, size: float) -> None:
    """Right and wrong answers with certainty, ties, and zeros, alone and in one batch."""
    z = torch.tensor([[size, 0, -size], [size, 0, -size], [size, size, size], [0, 0, 0], [-size, -size, -size]])
    y = torch.tensor([0, 2, 1, 0, 1])
    for rows in [*([i] for i in range(len(z))), list(range(len(z)))]:
        logits = z[rows].to(dtype).requires_grad_()
        value = suite.method(name).make()(logits, y[rows])
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.shape == ()
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_float32_gradient_is_close_to_float64(name: str, batch: tuple[np.ndarray, np.ndarray]) -> None:
    loss = suite.method(name).make()
    z, y = tensors(batch)
    (exact,) = torch.autograd.grad(loss(z, y), z)
    single = z.detach().float().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(single, y), single)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_are_summed_in_float32(name: str, batch: tuple[np.ndarray, np.ndarray]) -> None:
    z, y = tensors(batch)
    rounded = z.detach().bfloat16()
    value = suite.method(name).make()(rounded, y)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, suite.method(name).make()(rounded.float(), y))


@pytest.mark.parametrize("point", [0.0, 1.0, -1.0])
def test_stablemax_has_its_gradient_where_the_branches_meet_and_at_their_poles(point: float) -> None:
    """A `where` over both branches would give NaN at 1, where 1/(1 - z) has a pole."""
    for dtype in (torch.float32, torch.float64):
        z = torch.tensor([[point, 0.3, -0.7]], dtype=dtype, requires_grad=True)
        (gradient,) = torch.autograd.grad(suite.method("stablemax").make()(z, torch.tensor([0])), z)
        h = 1e-5
        values = [stablemax(np.array([[point + d, 0.3, -0.7]]), np.array([0])) for d in (h, -h)]
        assert gradient[0, 0].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-4)


def test_stablemax_works_in_float64_on_float32_logits() -> None:
    """Close to certainty, float32 would round -log p to 0 and stop learning."""
    z = torch.tensor([[1e9, 0.0]], requires_grad=True)
    value = suite.method("stablemax").make()(z, torch.tensor([0]))
    assert value.item() == pytest.approx(1e-9, rel=1e-5)
    assert torch.autograd.grad(value, z)[0].abs().min() > 0


def test_sum_exp_is_exact_below_its_tangent_and_continues_it() -> None:
    loss = suite.method("sum-exp").make()
    z = torch.tensor([[0.0, 29.0]], dtype=torch.float64)
    assert loss(z, torch.tensor([0])).item() == pytest.approx(math.exp(29.0), rel=1e-12)
    nll = 40.0
    tangent = math.expm1(30.0) + math.exp(30.0) * (nll - 30.0)
    far = torch.tensor([[0.0, nll]], dtype=torch.float64)
    assert loss(far, torch.tensor([0])).item() == pytest.approx(tangent, rel=1e-12)


def test_gce_runs_from_cross_entropy_to_the_mean_absolute_error(batch: tuple[np.ndarray, np.ndarray]) -> None:
    z, y = tensors(batch)
    gce = suite.method("gce")
    near_one = gce.make(tau=1 + 1e-7)(z, y)
    assert near_one.item() == pytest.approx(cross_entropy(*batch), rel=1e-5)
    torch.testing.assert_close(gce.make(tau=2.0)(z, y), suite.method("mae-comp").make()(z, y))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_focal_is_finite_at_certainty_for_small_exponents(gamma: float) -> None:
    """(1 - p)^γ has an infinite slope at p = 1 for γ < 1."""
    z = torch.tensor([[200.0, 0.0]], requires_grad=True)
    value = suite.method("focal").make(gamma=gamma)(z, torch.tensor([0]))
    assert value.item() == 0.0
    assert torch.autograd.grad(value, z)[0].abs().max() == 0.0


@pytest.mark.parametrize(
    ("name", "logits"),
    [("prob-p-high", [-9.0, 0.0]), ("nll-high", [-9.0, 0.0]), ("prob-p-low", [9.0, 0.0]), ("nll-low", [9.0, 0.0])],
)
def test_a_threshold_that_keeps_no_token_gives_zero_loss_and_gradient(name: str, logits: list[float]) -> None:
    z = torch.tensor([logits] * 3, requires_grad=True)
    value = suite.method(name).make()(z, torch.zeros(3, dtype=torch.long))
    assert value.item() == 0.0
    assert torch.autograd.grad(value, z)[0].abs().max() == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_a_mean_over_examples(name: str, batch: tuple[np.ndarray, np.ndarray]) -> None:
    """Twice the same batch is the same loss."""
    loss = suite.method(name).make()
    z, y = tensors(batch)
    torch.testing.assert_close(loss(torch.cat([z, z]), torch.cat([y, y])), loss(z, y))
