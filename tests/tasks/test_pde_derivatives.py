"""Derivative engines: nested differentiation and Taylor mode agree with each other and with closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from suite.train.derivatives import autograd_fields, directional_by_products, gradient
from suite.train.jets import (
    AxisJets,
    Jet,
    agrees,
    concatenate,
    directional_laplacian,
    forward_laplacian,
    through,
)

POINTS = 11


class Net(nn.Module):
    """Two hidden layers around any activation, written so that jets pass."""

    def __init__(self, activation: nn.Module, inputs: int = 2, outputs: int = 1) -> None:
        super().__init__()
        self.activation = activation
        self.layers = nn.ModuleList([nn.Linear(inputs, 8), nn.Linear(8, 8)])
        self.head = nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = through(self.activation, layer(x))
        return self.head(x)


class Cubic(nn.Module):
    """A user's activation without a rule of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * x**3 * torch.sigmoid(x)


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


def network(activation: nn.Module, inputs: int = 2, outputs: int = 1) -> Net:
    torch.manual_seed(0)
    return Net(activation, inputs, outputs).double()


def points(dims: int = 2) -> Tensor:
    return torch.rand(POINTS, dims, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    "activation", [nn.Tanh(), Sine(), nn.SiLU(), nn.GELU(), Cubic()], ids=lambda a: type(a).__name__
)
@pytest.mark.parametrize("orders", [{0: 1, 1: 1}, {0: 2, 1: 1}, {0: 1, 1: 2}, {0: 3, 1: 1}, {0: 4, 1: 2}], ids=str)
def test_jets_agree_with_nested_differentiation(activation, orders):
    net, x = network(activation), points()
    (jet,), (nested,) = AxisJets(orders)(net, x), autograd_fields(net, x)
    torch.testing.assert_close(jet.value, nested.value)
    for axis, highest in orders.items():
        for order in range(1, highest + 1):
            torch.testing.assert_close(jet.d(*[axis] * order), nested.d(*[axis] * order), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.GELU()], ids=lambda a: type(a).__name__)
def test_parameter_gradients_through_jets_agree_with_nested_differentiation(activation):
    net, x = network(activation, outputs=2), points()

    def gradients(engine) -> list[Tensor]:
        u, v = engine(net, x)
        loss = (u.d(1) + v.value * u.d(0) - u.d(0, 0)).square().mean() + v.d(0, 0).square().mean()
        return torch.autograd.grad(loss, [p for p in net.parameters() if p is not net.head.bias] + [net.head.bias])

    for ours, theirs in zip(gradients(AxisJets({0: 2, 1: 1})), gradients(autograd_fields), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_single_precision_engines_agree_within_1e_minus_5():
    net, x = network(nn.Tanh()).float(), points().float()
    (jet,), (nested,) = AxisJets({0: 2, 1: 1})(net, x), autograd_fields(net, x)
    for axes in ((0,), (1,), (0, 0)):
        torch.testing.assert_close(jet.d(*axes), nested.d(*axes), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dims", [1, 3, 7])
def test_laplacians_are_the_trace_of_the_hessian(dims):
    net, x = network(nn.Tanh(), inputs=dims), points(dims)
    hessian = torch.func.vmap(torch.func.hessian(lambda p: net(p[None])[0, 0]))(x)
    truth = hessian.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(forward_laplacian(net, x)[0].laplacian(), truth)
    torch.testing.assert_close(autograd_fields(net, x)[0].laplacian(), truth)
    torch.testing.assert_close(AxisJets(dict.fromkeys(range(dims), 2))(net, x)[0].laplacian(), truth)


def test_directional_second_derivatives_are_quadratic_forms_of_the_hessian():
    net, x = network(nn.Tanh(), inputs=3), points(3)
    v = torch.randn(2, POINTS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    hessian = torch.func.vmap(torch.func.hessian(lambda p: net(p[None])[0, 0]))(x)
    truth = 0.5 * torch.einsum("mni,nij,mnj->n", v, hessian, v)
    torch.testing.assert_close(directional_laplacian(net, x, v, 0.5)[0].laplacian(), truth)
    torch.testing.assert_close(directional_by_products(net, x, v, 0.5)[0].laplacian(), truth)


def test_nested_fields_give_mixed_derivatives():
    x = points().requires_grad_()
    (u,) = autograd_fields(lambda p: p[:, :1] ** 3 * p[:, 1:] ** 2, x)
    torch.testing.assert_close(u.d(0, 1), 6 * x[:, 0] ** 2 * x[:, 1])
    torch.testing.assert_close(u.d(1, 0, 0), 12 * x[:, 0] * x[:, 1])
    torch.testing.assert_close(u.d(0, 0, 0), 6 * x[:, 1] ** 2)


def test_rows_of_a_field_are_slices_of_its_derivatives():
    (u,) = autograd_fields(network(nn.Tanh()), points())
    part = u.rows(slice(2, 5))
    torch.testing.assert_close(part.value, u.value[2:5])
    torch.testing.assert_close(part.d(0, 0), u.d(0, 0)[2:5])
    torch.testing.assert_close(part.laplacian(), u.laplacian()[2:5])


def test_gradient_of_a_constant_is_zero():
    x = points().requires_grad_()
    assert torch.equal(gradient(torch.ones(POINTS, dtype=torch.float64), x), torch.zeros_like(x))
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    assert torch.equal(gradient(weight.expand(POINTS), x), torch.zeros_like(x))


@pytest.mark.parametrize("engine", [autograd_fields, AxisJets({0: 2, 1: 2})], ids=["nested", "jets"])
def test_second_derivatives_of_a_piecewise_linear_network_are_zero(engine):
    (u,) = engine(network(nn.ReLU()), points())
    assert float(u.d(0).detach().abs().max()) > 0
    assert torch.equal(u.d(0, 0), torch.zeros(POINTS, dtype=torch.float64))


def test_jets_refuse_mixed_derivatives():
    (u,) = AxisJets({0: 2, 1: 2})(network(nn.Tanh()), points())
    with pytest.raises(ValueError, match="pure derivatives"):
        u.d(0, 1)


def test_jets_pass_through_arithmetic_of_points_and_outputs():
    class Ansatz(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(nn.Tanh(), inputs=4)

        def forward(self, x):
            waves = concatenate([through(torch.sin, 2 * x), through(torch.cos, x)])
            start = through(torch.exp, -x[:, :1].square())
            return 1 - start * (2 - x.square().sum(1, keepdim=True)) * self.net(waves) - x[:, 1:]

    net, x = Ansatz().double(), points()
    (jet,), (nested,) = AxisJets({0: 4, 1: 2})(net, x), autograd_fields(net, x)
    for axes in ((0,), (0, 0), (0, 0, 0), (0, 0, 0, 0), (1,), (1, 1)):
        torch.testing.assert_close(jet.d(*axes), nested.d(*axes), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(forward_laplacian(net, x)[0].laplacian(), nested.laplacian())


def test_jets_meet_linear_layers_only_among_torch_functions():
    jet = Jet.along(points(), torch.eye(2, dtype=torch.float64)[:, None], (2,))
    with pytest.raises(TypeError, match="no rule for jets"):
        torch.tanh(jet)  # type: ignore[arg-type]


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(dim=-1).values * torch.arange(x.shape[-1], device=x.device)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x * (1 + 0.5 * torch.rand_like(x)))


@pytest.mark.parametrize(
    ("activation", "fits"), [(nn.Tanh(), True), (Cubic(), True), (nn.ReLU(), True), (Sorted(), False), (Noisy(), False)]
)
def test_only_elementwise_deterministic_activations_run_on_jets(activation, fits):
    net = network(activation).float()
    engine = AxisJets({0: 2, 1: 1})
    assert agrees(engine, net, points().float(), lambda x, u: u.d(1) + u.d(0, 0)) is fits


def test_a_network_with_an_unknown_layer_does_not_run_on_jets():
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))  # a bare tanh has no rule
    assert not agrees(AxisJets({0: 2}), net, points().float(), lambda x, u: u.d(0, 0))


@pytest.mark.parametrize("function", [torch.tanh, torch.sin, torch.cos, torch.exp], ids=lambda f: f.__name__)
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("constant", [False, True], ids=["directions of each point", "one direction for all"])
def test_the_backward_pass_of_a_jet_is_right_and_can_be_differentiated_again(function, summed, constant):
    stream = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=stream).requires_grad_()

    rows = 1 if summed else 2
    z0, z1, z2 = draw(4, 3), draw(3, 1 if constant else 4, 3), draw(rows, 4, 3)
    counts = (3, 3) if summed else (3, 2)

    def values(*parts: Tensor | None) -> tuple[Tensor, ...]:
        out = through(function, Jet(parts, counts, summed)).parts
        return tuple(p for p in out if p is not None)

    def by_hand(*parts: Tensor | None) -> tuple[Tensor, ...]:
        jet = Jet(parts, counts, summed)
        wrapped = lambda z: function(z)  # noqa: E731  no rule is known for it: automatic differentiation
        return tuple(p for p in through(wrapped, jet).parts if p is not None)

    for parts in ((z0, z1, z2), (z0, z1, None)):
        for ours, theirs in zip(values(*parts), by_hand(*parts), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(values, (z0, z1, z2))
    assert torch.autograd.gradgradcheck(values, (z0, z1, z2))
    assert torch.autograd.gradcheck(lambda a, b: values(a, b, None), (z0, z1))
