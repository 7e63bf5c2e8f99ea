"""Registered penalties against numpy formulas, and which parameters they are on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import suite
from suite.train.roles import mark

NAMES = [m.name for m in suite.methods(slot="regularizer")]
Arrays = dict[str, np.ndarray]
WEIGHTS = ("embedding.weight", "conv.weight", "line.weight", "matrix.weight", "head.weight")
HIDDEN = ("conv.weight", "line.weight", "matrix.weight")


class Net(nn.Module):
    """Weights of every role and of two, three and four dimensions; a norm, biases and an activation parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.conv = nn.Conv2d(2, 3, 3)
        self.line = nn.Conv1d(3, 4, 2)
        self.matrix = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.act = mark(nn.PReLU(6), "other")
        self.head = nn.Linear(6, 3)
        mark(self.head, "head")


def net() -> Net:
    torch.manual_seed(0)
    return Net().double()


def norm_loss(weights: Arrays, strength: float) -> float:
    total = 0.0
    for name in WEIGHTS:
        w = weights[name]
        # the norm of a 3-d weight is over its dim 1 alone
        squares = (w**2).sum(1) if w.ndim == 3 else (w**2).reshape(len(w), -1).sum(1)
        total += ((1 - np.sqrt(squares)) ** 2).sum()
    return strength * total


def ortho_penalty(weights: Arrays, strength: float) -> float:
    total = 0.0
    for name in HIDDEN:
        filters = weights[name].reshape(len(weights[name]), -1).T
        total += np.linalg.norm(filters.T @ filters - np.eye(filters.shape[1]), "fro") ** 2
    return strength / 2 * total


REFERENCES: dict[str, Callable[..., float]] = {
    "l2": lambda weights, strength: strength / 2 * sum(np.vdot(weights[n], weights[n]) for n in WEIGHTS),
    "l1": lambda weights, strength: strength * sum(np.linalg.norm(weights[n].ravel(), 1) for n in WEIGHTS),
    "norm-loss": norm_loss,
    "ortho-penalty": ortho_penalty,
}


def arrays(model: nn.Module) -> Arrays:
    return {n: p.detach().numpy() for n, p in model.named_parameters()}


def test_every_registered_regularizer_has_a_reference() -> None:
    assert set(REFERENCES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [None, 0.3])
def test_value_agrees_with_the_formula(name: str, strength: float | None) -> None:
    entry, model = suite.method(name), net()
    hp = dict(entry.defaults) if strength is None else {"strength": strength}
    value = entry.make(model, **hp)()
    assert value.shape == ()
    assert value.item() == pytest.approx(REFERENCES[name](arrays(model), **hp), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_derivative(name: str) -> None:
    model = net()
    penalty = suite.method(name).make(model, strength=1.0)
    weights = dict(model.named_parameters())
    targets = WEIGHTS if name != "ortho-penalty" else HIDDEN
    gradients = dict(zip(targets, torch.autograd.grad(penalty(), [weights[n] for n in targets]), strict=True))
    h = 1e-6
    for target in targets:
        index = (0,) * weights[target].ndim
        values = []
        for step in (h, -h):
            moved = {k: v.copy() for k, v in arrays(model).items()}
            moved[target][index] += step
            values.append(REFERENCES[name](moved, strength=1.0))
        assert gradients[target][index].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_norms_biases_and_activation_parameters_are_left_alone(name: str) -> None:
    model = net()
    suite.method(name).make(model)().backward()
    touched = {n for n, p in model.named_parameters() if p.grad is not None}
    assert touched == set(WEIGHTS if name != "ortho-penalty" else HIDDEN)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_weights_are_left_out(name: str) -> None:
    model = net()
    for parameter in model.matrix.parameters():
        parameter.requires_grad_(False)
    full, part = (suite.method(name).make(m)().item() for m in (net(), model))
    assert part < full


@pytest.mark.parametrize("name", NAMES)
def test_the_penalty_follows_the_weights(name: str) -> None:
    model = net()
    penalty = suite.method(name).make(model)
    with torch.no_grad():
        model.matrix.weight.mul_(2.0)
    assert penalty().item() == pytest.approx(REFERENCES[name](arrays(model), **suite.method(name).defaults), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_zero_weights_give_a_finite_gradient(name: str) -> None:
    model = net()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    suite.method(name).make(model)().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_ortho_penalty_vanishes_on_orthonormal_filters() -> None:
    model = nn.Sequential(nn.Linear(6, 4, bias=False), mark(nn.Linear(4, 2), "head")).double()
    nn.init.orthogonal_(model[0].weight)
    assert suite.method("ortho-penalty").make(model, strength=1.0)().item() < 1e-20


def test_norm_loss_vanishes_on_the_unit_sphere_and_pulls_towards_it() -> None:
    model = nn.Sequential(nn.Linear(6, 4, bias=False)).double()
    weight = model[0].weight
    with torch.no_grad():
        weight.div_(weight.norm(dim=1, keepdim=True)).mul_(torch.tensor([[1.0], [2.0], [0.5], [1.0]]))
    penalty = suite.method("norm-loss").make(model, strength=1.0)
    penalty().backward()
    radial = (weight.grad * weight).sum(1).detach()
    np.testing.assert_allclose(radial.numpy(), [0.0, 4.0, -0.5, 0.0], atol=1e-12)
