"""Contract of every registered activation, and an independent reference for each.

A new activation is tested because it is registered; it fails until `REFERENCES` holds a second
way to compute it (and `SURROGATES` its gradient, where that is deliberately another one).
"""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

import suite
from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.train.loop import Trainer

INF = math.inf
CHANNELS = 8
METHODS = suite.methods(slot="activation")
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 0.03}
Array = np.ndarray


def named(methods: list[suite.Method]) -> Any:
    return pytest.mark.parametrize("method", methods, ids=[m.name for m in methods])


every_activation = named(METHODS)


def build(method: suite.Method, channels: int = CHANNELS, **hp: Any) -> nn.Module:
    """The activation for `channels` channels, as the suite makes it."""
    if takes_features(method):
        hp["features"] = channels
    return method.make(**hp)


def build_exactly(method: suite.Method, dtype: torch.dtype, **hp: Any) -> nn.Module:
    """`build` with parameters of `dtype` whose initial values are rounded once, to `dtype`."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else torch.float32)
    try:
        return build(method, **hp).to(dtype)
    finally:
        torch.set_default_dtype(default)


def takes_features(method: suite.Method) -> bool:
    return "features" in inspect.signature(method.factory).parameters


def width(module: nn.Module, channels: int = CHANNELS) -> int:
    return int(channels * getattr(module, "width_factor", 1))


def grid() -> Array:
    """(92, 8) values from -50 to 50, denser from -4 to 4, 0 among them, in a fixed mixed order."""
    values = np.concatenate([np.linspace(-50, 50, 401), np.linspace(-4, 4, 335)])
    return np.random.default_rng(0).permutation(values).reshape(-1, CHANNELS)


def standard_normal(count: int = 200000) -> Tensor:
    """Midpoint quantiles of the standard normal, whose means stand for expectations."""
    return torch.tensor(stats.norm.ppf((np.arange(count) + 0.5) / count))


def generic_points() -> Tensor:
    """(3, 8) float64 values that lie on no kink and tie with no other."""
    values = [-6.53, -4.37, -2.71, -1.63, -0.87, -0.31, -0.113, 0.23, 0.41, 0.77, 1.37, 1.91, 2.43, 3.19, 4.57, 7.3]
    mixed = np.random.default_rng(1).permutation([*values, -5.21, -3.49, -2.13, -0.59, 0.137, 1.13, 2.83, 5.39])
    return torch.tensor(mixed.reshape(3, CHANNELS))


# ---------------------------------------------------------------- references


@dataclass(frozen=True)
class Reference:
    """An activation's values by another road, for (rows, channels) float64 inputs.

    Attributes
    ----------
    value : what an eval-mode forward pass returns.
    limits : at -inf and +inf, None where there is no limit; None for channel-mixing activations.
    """

    value: Callable[[Array], Array]
    limits: tuple[float | None, float | None] | None


def exact(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
    """`function` of one number, in 60 digits, over an array."""

    def one(value: float) -> float:
        with mpmath.workdps(60):
            return float(function(mpmath.mpf(float(value))))

    return np.vectorize(one, otypes=[np.float64])


def leaky(slope: float) -> Callable[[Array], Array]:
    return lambda x: np.maximum(x, slope * x)


def rectified(x: Array) -> Array:
    return (x + np.abs(x)) / 2


def silu(x: Array) -> Array:
    return x * special.expit(x)


def selu(x: Array) -> Array:
    """SELU with its constants from the fixed-point equations of the paper's appendix."""
    tail, far, e, pi = special.erfc(math.sqrt(0.5)), special.erfc(math.sqrt(2)), math.e, math.pi
    alpha = -math.sqrt(2 / pi) / (tail * math.sqrt(e) - 1)
    inner = 2 * far * e**2 + pi * tail**2 * e - 2 * (2 + pi) * tail * math.sqrt(e) + pi + 2
    scale = (1 - tail * math.sqrt(e)) * math.sqrt(2 * pi) / math.sqrt(inner)
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def mish(x: Any) -> Any:
    n = mpmath.exp(x)
    return x * (n * n + 2 * n) / (n * n + 2 * n + 2)


def sau(n: float, alpha: float = 0.15) -> Callable[[Any], Any]:
    """Leaky ReLU convolved with a Gaussian of std 1/n, as the paper prints it with its (1 - α)."""

    def value(x: Any) -> Any:
        a = mpmath.mpf(alpha)
        bump = (1 - a) / (n * mpmath.sqrt(2 * mpmath.pi)) * mpmath.exp(-((n * x) ** 2) / 2)
        return bump + (1 + a) / 2 * x + (1 - a) / 2 * x * mpmath.erf(n * x / mpmath.sqrt(2))

    return value


def gsmelu(x: Array, low: float = 0.01, high: float = 1.0, a: float = 1.0, b: float = 1.0, t: float = 0.0) -> Array:
    """Equation 11 of the paper, branch by branch."""
    quadratic = (high - low) / (2 * (a + b)) * x**2 + (a * high + b * low) / (a + b) * x
    constant = t + (a**2 * (high + low) + 2 * a * b * low) / (2 * (a + b))
    above = high * x + t + ((a + b) * low + (a - b) * high) / 2
    return np.select([x <= -a, x >= b], [low * x + low * a + t, above], quadratic + constant)


def smelu(x: Array, beta: float = 1.0) -> Array:
    return np.piecewise(x, [np.abs(x) < beta, x >= beta], [lambda v: (v + beta) ** 2 / (4 * beta), lambda v: v, 0.0])


def cauchy(lambda1: float, lambda2: float) -> Callable[[Array], Array]:
    def value(x: Array) -> Array:
        pole = 1 / (x - 1j)
        return lambda1 * pole.real + lambda2 * pole.imag

    return value


def cardano(x: Any) -> Any:
    """Real root of y³ + y = x by the printed cube-root form."""
    cube = mpmath.cbrt((-27 * -x + mpmath.sqrt(729 * x**2 + 108)) / 2)
    return cube / 3 - 1 / cube


def householder(x: Array) -> Array:
    """Pairs (i, i + 4) reflected across the line of angle π/4 where vᵀz > 0, by 2x2 matrices."""
    v = np.array([math.sin(math.pi / 4), -math.cos(math.pi / 4)])
    reflection = np.eye(2) - 2 * np.outer(v, v)
    pairs = np.stack(np.split(x, 2, axis=1), -1)
    reflected = np.where((pairs @ v > 0)[..., None], pairs @ reflection, pairs)
    return np.concatenate([reflected[..., 0], reflected[..., 1]], axis=1)


def maxmin(x: Array) -> Array:
    pairs = np.sort(np.stack(np.split(x, 2, axis=1)), axis=0)
    return np.concatenate([pairs[1], pairs[0]], axis=1)


def soft_threshold(x: Array, tau: float = 1.0364, m: float = INF) -> Array:
    return np.sign(x) * np.clip(np.abs(x) - tau, 0, m)


def softmax(x: Array) -> Array:
    return special.softmax(x, axis=-1)


def fit_of_relu(x: Array) -> Array:
    return stats.norm.pdf(0) / 2 * (x**2 + 1) + x / 2


REFERENCES: dict[str, Reference] = {
    "abs": Reference(lambda x: np.sqrt(x * x), (INF, INF)),
    "abs-ms": Reference(lambda x: np.abs(x) - np.abs(x).sum(1, keepdims=True) / x.shape[1], None),
    "cauchy-layer": Reference(cauchy(0.01, 0.01), (0.0, 0.0)),
    "cauchy-layer-unit": Reference(cauchy(1.0, 1.0), (0.0, 0.0)),
    "cauchy-neuron": Reference(cauchy(0.01, 0.01), (0.0, 0.0)),
    "cauchy-neuron-unit": Reference(cauchy(1.0, 1.0), (0.0, 0.0)),
    "celu": Reference(lambda x: np.maximum(x, 0) + np.minimum(np.expm1(np.minimum(x, 0)), 0), (-1.0, INF)),
    "cf-line": Reference(exact(cardano), (-INF, INF)),
    "crelu": Reference(lambda x: np.concatenate([np.maximum(x, 0), -np.minimum(x, 0)], 1), None),
    "crelu-clip": Reference(lambda x: np.clip(x - 0.5244, 0, 1.4469), (0.0, 1.4469)),
    "crrelu": Reference(
        exact(lambda x: max(x, 0) + mpmath.mpf("0.01") * x / mpmath.sqrt(mpmath.exp(x * x))), (0.0, INF)
    ),
    "cst-clip": Reference(lambda x: soft_threshold(x, 1.0364, 1.1704), (-1.1704, 1.1704)),
    "elu": Reference(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), (-1.0, INF)),
    "fourier-feature-act": Reference(lambda x: np.concatenate([np.exp(1j * x).imag, np.exp(1j * x).real], 1), None),
    "gelu": Reference(lambda x: x * special.ndtr(x), (0.0, INF)),
    "gelu-tanh": Reference(lambda x: x * special.expit(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)), (0.0, INF)),
    "golu": Reference(lambda x: x * stats.gumbel_r.cdf(x), (0.0, INF)),
    "groupsort": Reference(lambda x: np.sort(x.reshape(len(x), -1, 2), axis=-1).reshape(x.shape), None),
    "gsmelu": Reference(gsmelu, (-INF, INF)),
    "hardswish": Reference(lambda x: np.select([x <= -3, x >= 3], [0 * x, x], x * (x + 3) / 6), (0.0, INF)),
    "helu": Reference(rectified, (0.0, INF)),
    "householder": Reference(householder, None),
    "identity": Reference(np.copy, (-INF, INF)),
    "leaky-relu": Reference(leaky(0.01), (-INF, INF)),
    "learnable-leaky": Reference(leaky(0.01), (-INF, INF)),
    "maxmin": Reference(maxmin, None),
    "maxout": Reference(lambda x: x.reshape(len(x), 2, -1).max(1), None),
    "mish": Reference(exact(mish), (0.0, INF)),
    "noisy-rectifier": Reference(exact(lambda x: x * mpmath.ncdf(x) + mpmath.npdf(x)), (0.0, INF)),
    "prelu": Reference(leaky(0.25), (-INF, INF)),
    "prelu-015": Reference(leaky(0.15), (-INF, INF)),
    "q-rprelu": Reference(leaky(0.125), (-INF, INF)),
    "quadratic-act": Reference(fit_of_relu, (INF, INF)),
    "regelu2": Reference(lambda x: x * special.ndtr(x), (0.0, INF)),
    "reinforce-neuron": Reference(special.expit, (0.0, 1.0)),
    "reinmax": Reference(softmax, None),
    "relu": Reference(rectified, (0.0, INF)),
    "relu-squared": Reference(lambda x: x * rectified(x), (0.0, INF)),
    "relu6": Reference(lambda x: np.clip(x, 0, 6), (0.0, 6.0)),
    "rep-relu": Reference(rectified, (0.0, INF)),
    "resilu2": Reference(silu, (0.0, INF)),
    "sau": Reference(exact(sau(20000.0)), (-INF, INF)),
    "sau-soft": Reference(exact(sau(1.0)), (-INF, INF)),
    "selu": Reference(selu, (-1.7580993408473766, INF)),
    "shifted-relu": Reference(lambda x: rectified(x - 0.5244), (0.0, INF)),
    "sigmoid": Reference(lambda x: (1 + np.tanh(x / 2)) / 2, (0.0, 1.0)),
    "silu": Reference(silu, (0.0, INF)),
    "sine": Reference(lambda x: np.exp(1j * x).imag, (None, None)),
    "smelu": Reference(smelu, (0.0, INF)),
    "soft-threshold": Reference(soft_threshold, (-INF, INF)),
    "softplus": Reference(lambda x: np.where(x > 20, x, np.logaddexp(0, x)), (0.0, INF)),
    "softsign": Reference(lambda x: np.sign(x) * (1 - 1 / (1 + np.abs(x))), (-1.0, 1.0)),
    "square": Reference(np.square, (INF, INF)),
    "squareplus": Reference(exact(lambda x: (x + mpmath.sqrt(x * x + 4)) / 2), (0.0, INF)),
    "st": Reference(softmax, None),
    "st-gumbel": Reference(softmax, None),
    "st-smooth": Reference(special.expit, (0.0, 1.0)),
    "star-relu": Reference(lambda x: 0.8944 * x * rectified(x) - 0.4472, (-0.4472, INF)),
    "ste-binary": Reference(special.expit, (0.0, 1.0)),
    "ste-binary-deterministic": Reference(lambda x: np.heaviside(x, 0.0), (0.0, 1.0)),
    "stocha": Reference(lambda x: 0.7 * silu(x) + 0.3 * rectified(x), (0.0, INF)),
    "swi-ft": Reference(silu, (0.0, INF)),
    "swish-trainable": Reference(silu, (0.0, INF)),
    "tanh": Reference(lambda x: 2 * special.expit(2 * x) - 1, (-1.0, 1.0)),
    "telu": Reference(exact(lambda x: x * mpmath.tanh(mpmath.exp(x))), (0.0, INF)),
}

BOTH, BELOW = (-INF, INF), (-INF,)
TORCH_NAN = {
    **dict.fromkeys(("gelu", "gelu-tanh", "regelu2", "softsign"), BOTH),
    **dict.fromkeys(("silu", "mish", "hardswish", "resilu2", "stocha", "swi-ft"), BELOW),
}
"""Infinite inputs at which the torch kernel that the entry is made of returns NaN, not the limit."""


def softmax_vjp(x: Array, y: Array, g: Array) -> Array:
    p = softmax(x)
    return np.einsum("nij,nj->ni", np.einsum("ni,ij->nij", p, np.eye(p.shape[1])) - p[:, :, None] * p[:, None, :], g)


def reinmax_vjp(x: Array, y: Array, g: Array) -> Array:
    """The published backward pass, given the draw y."""
    p = softmax(x)
    q = (p + y) / 2
    first = q * g - q * (q * g).sum(1, keepdims=True)
    second = p * g - p * (p * g).sum(1, keepdims=True)
    total = 2 * first - second / 2
    return total - total.mean(1, keepdims=True)


def steps(heights: tuple[float, ...], thresholds: tuple[float, ...]) -> Callable[[Array, Array, Array], Array]:
    return lambda x, y, g: g * sum(a * (x > c) for a, c in zip(heights, thresholds, strict=True))


SURROGATES: dict[str, Callable[[Array, Array, Array], Array] | None] = {
    "helu": lambda x, y, g: np.where(x > -0.05, g, 0),
    "q-rprelu": lambda x, y, g: np.where(x > 0, g, g / 8),
    "regelu2": steps(
        (-0.04922261145617846, 1.0979632065417297, -0.048740595085551286),
        (-3.1858810036855245, -0.001178821281161997, 3.190832613414926),
    ),
    "reinmax": reinmax_vjp,
    "rep-relu": lambda x, y, g: g * (special.ndtr(x) + x * stats.norm.pdf(x)),
    "resilu2": steps(
        (-0.04060357190528599, 1.080925428529668, -0.040321856624382146),
        (-6.3050461001646445, -0.0008684942046214787, 6.325815242089708),
    ),
    "st": softmax_vjp,
    "st-gumbel": None,  # depends on the noise: test_st_gumbel_has_the_gradient_of_the_relaxed_sample
    "ste-binary": lambda x, y, g: g,
    "ste-binary-deterministic": lambda x, y, g: g,
}
"""Gradient of sum(g * y) that a training-mode backward pass returns, from input x and output y."""


# ---------------------------------------------------------------- values


@every_activation
def test_an_independent_reference_exists(method):
    assert method.name in REFERENCES, f"add a second way to compute {method.name!r} to REFERENCES"
    assert not method.surrogate or method.name in SURROGATES, f"add the gradient of {method.name!r} to SURROGATES"


def test_references_are_of_registered_activations():
    assert {*REFERENCES, *SURROGATES, *TORCH_NAN} <= {m.name for m in METHODS}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_activation
def test_values_agree_with_the_reference(method, dtype):
    x = torch.tensor(grid()).to(dtype)
    module = build_exactly(method, dtype).eval()
    reference = REFERENCES[method.name]
    expected = reference.value(x.double().numpy())
    actual = module(x).detach().double().numpy()
    size = np.abs(x.double().numpy())
    if reference.limits is None:
        size = size.max(1, keepdims=True)
    assert actual.shape == expected.shape
    with np.errstate(invalid="raise"):
        assert (np.abs(actual - expected) <= TOLERANCE[dtype] * np.maximum(np.maximum(size, np.abs(expected)), 1)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@named([m for m in METHODS if m.name in REFERENCES and REFERENCES[m.name].limits])
def test_infinite_inputs_give_the_limit(method, dtype):
    module = build(method).to(dtype).eval()
    for at, limit in zip((-INF, INF), REFERENCES[method.name].limits, strict=True):
        if limit is None or at in TORCH_NAN.get(method.name, ()):
            continue
        y = module(torch.full((16, CHANNELS), at, dtype=dtype))
        torch.testing.assert_close(
            y, torch.full_like(y, limit), atol=1e-7, rtol=0.01 if dtype == torch.bfloat16 else 1e-6
        )


@named([m for m in METHODS if m.stochastic])
def test_evaluation_is_the_expectation_of_training(method):
    x = torch.linspace(-3.1, 2.9, CHANNELS, dtype=torch.float64).expand(20000, CHANNELS)
    module = build(method)
    torch.manual_seed(0)
    draws = module.train()(x)
    error = (draws.mean(0) - module.eval()(x)[0]).abs()
    assert (error <= 4 * draws.std(0) / math.sqrt(len(x)) + 1e-7).all()


# ---------------------------------------------------------------- gradients


@named([m for m in METHODS if not m.surrogate])
def test_gradient_is_the_derivative(method):
    module = build(method).double().eval()
    names, parameters = zip(*module.named_parameters(), strict=True) if list(module.parameters()) else ((), ())

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, values, strict=True)), (x,))

    inputs = (generic_points().requires_grad_(), *(p.detach().clone().requires_grad_() for p in parameters))
    assert gradcheck(function, inputs)
    if "pde" in method.families:
        assert gradgradcheck(function, inputs)


@named([m for m in METHODS if m.surrogate and SURROGATES.get(m.name)])
def test_surrogate_gradient_is_the_published_one(method):
    x = torch.tensor(grid()).clamp(-12, 12).requires_grad_()
    g = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    y = build_exactly(method, torch.float64).train()(x)
    (y * g).sum().backward()
    expected = SURROGATES[method.name](x.detach().numpy(), y.detach().numpy(), g.numpy())
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12, atol=1e-12)


@named([m for m in METHODS if m.surrogate])
def test_surrogates_are_kept_out_of_pde_tasks(method):
    assert "pde" not in method.families


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_activation
def test_values_and_gradients_are_finite_for_large_inputs(method, dtype):
    far = torch.tensor([-1e4, -3000.0, -300.0, -95.0, 95.0, 300.0, 3000.0, 1e4]).expand(2, CHANNELS)
    for x in (torch.tensor(grid()), far):
        x = x.to(dtype, copy=True).requires_grad_()
        module = build(method).to(dtype).train()
        torch.manual_seed(0)
        y = module(x)
        (module.score_loss(x.detach().float()[:, 0]) if hasattr(module, "score_loss") else y.sum()).backward()
        assert y.isfinite().all()
        assert x.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in module.parameters())


@named([m for m in METHODS if any(True for _ in m.make().parameters())])
def test_an_adam_step_moves_every_learnable_parameter(method):
    torch.manual_seed(0)
    module = build(method).train()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    y = module(2 * torch.randn(64, CHANNELS))
    (y * torch.randn_like(y)).sum().backward()
    optimizer.step()
    for name, p in module.named_parameters():
        assert (p != before[name]).all(), name
        assert p.isfinite().all(), name


# ---------------------------------------------------------------- shapes, dtypes, modes


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8), (2, 8, 4, 6), (8,)], ids=str)
@every_activation
def test_shape_is_kept_times_the_width_factor(method, shape, mode):
    module = build(method).train(mode == "train")
    expected = list(shape)
    expected[1 if len(shape) == 4 else -1] = width(module)
    assert list(module(torch.randn(shape)).shape) == expected


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_activation
def test_dtype_of_the_input_is_kept(method, dtype, mode):
    x = torch.randn(4, CHANNELS, dtype=dtype)
    assert build(method).train(mode == "train")(x).dtype == dtype, "parameters in float32"
    assert build(method).to(dtype).train(mode == "train")(x).dtype == dtype, "parameters in the input's dtype"


@every_activation
def test_images_have_their_channels_at_dim_1_and_others_last(method):
    torch.manual_seed(0)
    module = build(method).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.rand_like(p))
    x = torch.randn(2, CHANNELS, 3, 5)
    expected = module(x.movedim(1, -1).flatten(0, 2))
    torch.testing.assert_close(module(x).movedim(1, -1).flatten(0, 2), expected)
    torch.testing.assert_close(module(x.movedim(1, -1).flatten(1, 2)).flatten(0, 1), expected)


@named([m for m in METHODS if takes_features(m) and any(True for _ in m.make().parameters())])
def test_each_channel_follows_its_own_parameter(method):
    torch.manual_seed(0)
    module = build(method).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.5 * torch.rand_like(p))
    x = 3 * torch.randn(64, CHANNELS)
    y = module(x)
    count = next(module.parameters()).numel()
    assert CHANNELS % count == 0
    for i in range(count):
        shared = method.make().eval()
        shared.load_state_dict({name: p[i] for name, p in module.state_dict().items()})
        torch.testing.assert_close(y[:, i::count], shared(x)[:, i::count])


@every_activation
def test_parameters_are_shared_without_features(method):
    assert all(p.ndim == 0 for p in method.make().parameters())


@every_activation
def test_stochastic_is_stated_and_evaluation_is_deterministic(method):
    x = torch.randn(256, CHANNELS, generator=torch.Generator().manual_seed(0))
    module = build(method)
    assert torch.equal(module.eval()(x), module(x))
    torch.manual_seed(1)
    first = module.train()(x)
    assert torch.equal(first, module(x)) != method.stochastic
    torch.manual_seed(1)
    assert torch.equal(first, module(x))
    if not method.stochastic:
        assert torch.equal(first, module.eval()(x))


@pytest.mark.parametrize("mode", ["train", "eval"])
@every_activation
def test_nan_in_is_nan_out(method, mode):
    module = build(method).train(mode == "train")
    assert module(torch.full((32, CHANNELS), math.nan)).isnan().all()
    x = torch.ones(32, CHANNELS)
    x[5, 3] = math.nan
    bad = module(x).isnan().any(1)
    assert bad[5]
    assert bad.sum() == 1


# ---------------------------------------------------------------- modules as modules


@every_activation
def test_state_dict_round_trip(method):
    torch.manual_seed(0)
    module, other = build(method).eval(), build(method).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.rand_like(p))
    other.load_state_dict(module.state_dict())
    x = torch.randn(16, CHANNELS)
    assert torch.equal(other(x), module(x))
    assert all(torch.is_tensor(value) for value in module.state_dict().values())


@every_activation
def test_deepcopy_is_equal_and_independent(method):
    module = build(method).eval()
    twin = copy.deepcopy(module)
    x = torch.randn(16, CHANNELS)
    assert torch.equal(twin(x), module(x))
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1.0)
    assert all((a != b).all() for a, b in zip(module.parameters(), twin.parameters(), strict=True))


@every_activation
def test_input_is_left_as_it_was(method):
    x = torch.randn(16, CHANNELS)
    before = x.clone()
    build(method).train()(x)
    assert torch.equal(x, before)


@every_activation
def test_the_plain_entry_has_the_constructors_defaults(method):
    constructor = {
        name: p.default for name, p in inspect.signature(method.factory).parameters.items() if name in method.defaults
    }
    assert set(method.defaults) == set(constructor)
    siblings = [m for m in METHODS if m.factory is method.factory]
    plain = [m.name for m in siblings if all(constructor[k] == v for k, v in m.defaults.items())]
    assert len(plain) == 1, "one entry of a factory has its defaults, every other one is a variant"
    assert len({tuple(sorted(m.defaults.items())) for m in siblings}) == len(siblings)


@named([m for m in METHODS if m.vmap])
def test_vmap_over_stacked_models_equals_a_loop(method):
    torch.manual_seed(0)
    modules = [build(method).train(not method.stochastic) for _ in range(2)]
    with torch.no_grad():
        for p in modules[1].parameters():
            p.add_(0.3)
    parameters, buffers = stack_module_state(modules)
    x = torch.randn(2, 4, CHANNELS)

    def loss(p: dict, b: dict, x: Tensor) -> Tensor:
        return functional_call(modules[0], (p, b), (x,)).square().sum()

    stacked = vmap(grad(loss, argnums=(0, 2)), randomness="different")(parameters, buffers, x)
    for i, module in enumerate(modules):
        own = dict(module.named_parameters()), dict(module.named_buffers())
        expected = grad(loss, argnums=(0, 2))(*own, x[i])
        torch.testing.assert_close(stacked[1][i], expected[1])
        for name, value in expected[0].items():
            torch.testing.assert_close(stacked[0][name][i], value)


@named([m for m in METHODS if m.vmap and m.stochastic])
def test_vmap_draws_differently_for_each_model(method):
    module = build(method).train()
    x = -torch.ones(8, 16, CHANNELS)
    torch.manual_seed(0)
    y = vmap(module, randomness="different")(x)
    assert not torch.equal(y[0], y[1])


@pytest.mark.slow
@named([m for m in METHODS if m.compiles])
def test_compiled_equals_eager(method):
    torch._dynamo.reset()
    module = build(method).train(not method.stochastic)
    x = torch.randn(16, CHANNELS)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [f(v) for f, v in zip((module, torch.compile(module, backend="aot_eager")), inputs, strict=True)]
    for y in outputs:
        y.square().sum().backward()
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


# ---------------------------------------------------------------- single methods


def gradient(module: nn.Module, *values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.tensor(values, dtype=dtype, requires_grad=True)
    return torch.autograd.grad(module.to(dtype)(x).sum(), x)[0]


def test_golu_keeps_its_gradient_finite_in_half_precision():
    for dtype in (torch.float16, torch.bfloat16):
        slope = gradient(suite.method("golu").make(), -6e4, -100.0, -11.5, -0.5671432904097838, 20.0, dtype=dtype)
        torch.testing.assert_close(slope.double(), torch.tensor([0, 0, 0, 0, 1.0]).double(), atol=0.01, rtol=0)


@pytest.mark.parametrize(("name", "left"), [("sau", 0.15), ("telu", 0.0), ("squareplus", 0.0), ("crrelu", 0.0)])
def test_slopes_are_those_of_the_asymptotes_in_float16(name, left):
    slope = gradient(suite.method(name).make(), -6e4, -300.0, -40.0, 40.0, 300.0, 6e4, dtype=torch.float16)
    torch.testing.assert_close(slope, torch.tensor([left] * 3 + [1.0] * 3).half(), atol=1e-3, rtol=0)


def test_golu_has_its_published_minimum():
    x = torch.linspace(-1, 0, 100001, dtype=torch.float64)
    value, place = suite.method("golu").make()(x).min(0)
    assert x[place].item() == pytest.approx(-0.567143, abs=1e-5)
    assert value.item() == pytest.approx(-0.097, abs=5e-4)


def test_crrelu_at_zero_epsilon_is_relu():
    x = torch.tensor(grid())
    assert torch.equal(suite.method("crrelu").make(epsilon=0.0)(x), F.relu(x))


def test_sau_at_its_published_sharpness_is_a_prelu():
    x = torch.tensor(grid())
    difference = suite.method("sau").make()(x) - suite.method("prelu-015").make()(x)
    assert difference.abs().max() <= 2e-5


@pytest.mark.parametrize("n", [1.0, 5.0])
def test_sau_is_the_mean_of_a_leaky_relu_under_gaussian_noise(n):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    mean = F.leaky_relu(x[:, None] + standard_normal() / n, 0.15).mean(1)
    torch.testing.assert_close(suite.method("sau-soft").make(n=n)(x), mean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_smelu_is_a_case_of_gsmelu(beta):
    x = torch.tensor(grid())
    general = suite.method("gsmelu").make(negative_slope=0.0, positive_slope=1.0, alpha=beta, beta=beta, shift=0.0)
    torch.testing.assert_close(general(x), suite.method("smelu").make(beta=beta)(x), atol=1e-13, rtol=1e-13)
    assert general(torch.tensor(-INF)) == 0


def test_gsmelu_with_unequal_sides_is_the_printed_formula():
    hp = {"negative_slope": 0.1, "positive_slope": 1.3, "alpha": 0.7, "beta": 2.1, "shift": -0.4}
    actual = suite.method("gsmelu").make(**hp)(torch.tensor(grid()))
    np.testing.assert_allclose(actual.numpy(), gsmelu(grid(), *hp.values()), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["smelu", "gsmelu"])
def test_smelu_has_a_continuous_slope_at_its_joins(name):
    slope = gradient(suite.method(name).make(), -1.0, 1.0, -1.0 - 1e-9, 1.0 + 1e-9)
    torch.testing.assert_close(slope[:2], slope[2:], atol=1e-8, rtol=0)


def test_rep_relu_is_relu_at_infinite_inputs():
    assert suite.method("rep-relu").make()(torch.tensor([-INF, INF])).tolist() == [0.0, INF]


def test_rep_relu_is_exactly_relu_in_bfloat16():
    x = torch.tensor(grid()).bfloat16()
    assert torch.equal(suite.method("rep-relu").make()(x), F.relu(x))


@pytest.mark.parametrize("name", ["regelu2", "resilu2"])
def test_step_gradients_are_exactly_0_far_left_and_1_far_right(name):
    for dtype in DTYPES:
        assert gradient(suite.method(name).make(), -50.0, -7.0, 7.0, 50.0, dtype=dtype).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("name", "function"), [("regelu2", F.gelu), ("resilu2", F.silu)])
def test_step_gradients_keep_two_bits_an_element(name, function):
    x = torch.randn(1001, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = suite.method(name).make()(x)
    assert torch.equal(y, function(x))
    assert sum(t.numel() * t.element_size() for t in saved) <= 1001 / 4 + 32


@pytest.mark.parametrize("shape", [(), (0, 8), (1,), (3, 5), (2, 4, 8)], ids=str)
def test_step_gradients_take_any_number_of_elements(shape):
    x = torch.full(shape, 9.0, requires_grad=True)
    suite.method("regelu2").make()(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(shape))


def test_helu_passes_the_gradient_just_below_zero():
    assert gradient(suite.method("helu").make(), -0.051, -0.049, 0.0, 0.1).tolist() == [0, 1, 1, 1]


def test_ste_binary_draws_ones_with_sigmoid_probability():
    torch.manual_seed(0)
    x = torch.tensor([-2.0, 0.0, 1.5]).expand(40000, 3)
    y = suite.method("ste-binary").make()(x)
    assert set(y.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(y.mean(0), torch.sigmoid(x[0]), atol=0.01, rtol=0)


@pytest.mark.parametrize("name", ["ste-binary", "ste-binary-deterministic"])
def test_ste_binary_can_multiply_by_the_slope_of_the_sigmoid(name):
    slope = gradient(suite.method(name).make(slope="sigmoid"), -2.0, 0.0, 1.0)
    s = special.expit([-2.0, 0.0, 1.0])
    np.testing.assert_allclose(slope.numpy(), s * (1 - s), rtol=1e-14)


def test_st_smooth_draws_its_root_or_zero():
    torch.manual_seed(0)
    x = torch.tensor([-2.0, 0.0, 1.5], dtype=torch.float64, requires_grad=True)
    y = suite.method("st-smooth").make()(x.expand(4000, 3))
    root = torch.sigmoid(x).sqrt()
    assert ((y == 0) | (y - root).abs().lt(1e-14)).all()
    slope = torch.autograd.grad(y.sum(), x)[0]
    kept = (y > 0).sum(0)
    torch.testing.assert_close(slope, kept * torch.autograd.grad(root.sum(), x)[0])


def test_noisy_rectifier_adds_noise_of_its_standard_deviation():
    torch.manual_seed(0)
    y = suite.method("noisy-rectifier").make(sigma=0.5)(torch.full((40000,), 10.0))
    assert y.std().item() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("name", ["stocha", "swi-ft"])
def test_stocha_ends_training_as_a_plain_relu(name):
    module = suite.method(name).make()
    x = torch.tensor(grid())
    module.set_progress(0.94)
    assert (module.train()(x) < 0).any()
    module.set_progress(0.951)
    assert torch.equal(module(x), F.relu(x))
    assert torch.equal(module.eval()(x), F.relu(x))
    restored = suite.method(name).make()
    restored.load_state_dict(module.state_dict())
    assert torch.equal(restored.eval()(x), F.relu(x))


def test_stocha_without_an_end_phase_stays_stochastic():
    module = suite.method("stocha").make(relu_fraction=0.0)
    module.set_progress(1.0)
    x = torch.tensor(grid())
    assert not torch.equal(module.train()(x), module(x))


@pytest.mark.parametrize(("positive", "branch"), [("silu", F.silu), ("relu", F.relu)])
def test_stocha_can_fix_the_branch_of_positive_inputs(positive, branch):
    torch.manual_seed(0)
    x = torch.tensor(grid())
    module = suite.method("stocha").make(positive=positive)
    for y in (module.train()(x), module.eval()(x)):
        assert torch.equal(y[x >= 0], branch(x[x >= 0]))
    draws = module.train()(torch.full((20000,), -1.0))
    torch.testing.assert_close(draws.mean(), module.eval()(torch.tensor(-1.0)), atol=0.003, rtol=0)


def test_stocha_draws_silu_with_its_probability_on_both_sides():
    torch.manual_seed(0)
    x = torch.tensor([-1.0, 1.0]).expand(40000, 2)
    y = suite.method("stocha").make(p=0.3)(x)
    shares = (y == F.silu(x)).double().mean(0)
    torch.testing.assert_close(shares, torch.full((2,), 0.3).double(), atol=0.01, rtol=0)
    assert ((y == F.silu(x)) | (y == F.relu(x))).all()


def test_stocha_can_sample_in_evaluation():
    module = suite.method("stocha").make(sample_in_eval=True).eval()
    x = torch.tensor(grid())
    assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("name", ["crelu-clip", "cst-clip", "shifted-relu", "soft-threshold"])
def test_sparse_activations_leave_seventy_percent_zeros(name):
    x = standard_normal()
    assert (suite.method(name).make()(x) == 0).double().mean().item() == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize(("name", "variance"), [("crelu-clip", 3.6277), ("cst-clip", 3.6674)])
def test_sparse_activations_keep_the_variance_curve_of_the_edge_of_chaos(name, variance):
    """With weight variance 1/P(φ' ≠ 0), V(q) = σ_w² E[φ(√q Z)²] + σ_b² has slope 0.7 at q = 1."""
    z = standard_normal()
    module = suite.method(name).make()

    def second_moment(q: float) -> float:
        return module(math.sqrt(q) * z).square().mean().item()

    slope = variance * (second_moment(1.001) - second_moment(0.999)) / 0.002
    assert slope == pytest.approx(0.7, abs=2e-3)


def test_cf_line_keeps_its_digits_in_float32():
    x = torch.tensor([-1e4, -30.0, -1e-6, 1e-6, 30.0, 1e4])
    expected = exact(cardano)(x.double().numpy())
    np.testing.assert_allclose(suite.method("cf-line").make()(x).detach().numpy(), expected, rtol=2e-6)


@pytest.mark.parametrize("a", [0.05, 3.0])
def test_cf_line_solves_its_cubic(a):
    x = torch.tensor(grid())
    y = build_exactly(suite.method("cf-line"), torch.float64, a=a)(x).detach()
    torch.testing.assert_close(a * y**3 + y, x, atol=1e-12, rtol=1e-12)


def test_cf_line_differentiates_its_parameter_as_published():
    module = suite.method("cf-line").make(a=0.8).double()
    x = torch.tensor(grid()).abs()
    y = module(x)
    y.sum().backward()
    expected = (-(y**3) / (1 + 3 * module.a * y**2)).sum()
    torch.testing.assert_close(module.a.grad, expected.detach(), rtol=1e-10, atol=0)


def test_squareplus_keeps_its_digits_and_its_slope_at_zero():
    module = suite.method("squareplus").make()
    x = torch.tensor([-1e4, -1e3, -50.0])
    np.testing.assert_allclose(module(x).numpy(), 2 / (np.hypot(x.double().numpy(), 2) - x.double().numpy()), rtol=1e-6)
    point = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(module.double()(point), point, create_graph=True)
    (second,) = torch.autograd.grad(first, point)
    assert (first.item(), second.item()) == (0.5, 0.25)


def test_telu_keeps_its_gradient_at_large_inputs():
    assert gradient(suite.method("telu").make(), -800.0, 89.0, 1e4, dtype=torch.float32).tolist() == [0, 1, 1]


def test_star_relu_standardises_a_standard_normal():
    z = standard_normal()
    y = suite.method("star-relu").make()(z).detach()
    assert y.mean().item() == pytest.approx(0, abs=1e-3)
    assert y.var().item() == pytest.approx(1, abs=1e-3)


def test_quadratic_act_is_the_least_squares_fit_of_relu():
    z = standard_normal().numpy()
    fit = np.polyfit(z, np.maximum(z, 0), 2)
    module = suite.method("quadratic-act").make()
    np.testing.assert_allclose([module.a, module.b, module.c], fit, atol=1e-3)


def test_maxmin_pairs_the_halves_maximum_first():
    x = torch.tensor([[1.0, 5.0, 4.0, 2.0]])
    assert suite.method("maxmin").make()(x).tolist() == [[4.0, 5.0, 1.0, 2.0]]


def test_groupsort_sorts_neighbours_ascending():
    x = torch.tensor([[5.0, 1.0, 2.0, 4.0]])
    assert suite.method("groupsort").make()(x).tolist() == [[1.0, 5.0, 2.0, 4.0]]
    assert suite.method("groupsort").make(group=4)(x).tolist() == [[1.0, 2.0, 4.0, 5.0]]


def test_householder_keeps_pairs_below_and_reflects_pairs_above():
    keep, reflect = [1.0, 2.0], [2.0, 1.0]
    y = suite.method("householder").make()(torch.tensor([keep, reflect]))
    torch.testing.assert_close(y, torch.tensor([keep, keep]))


@pytest.mark.parametrize("name", ["maxmin", "groupsort", "householder", "abs"])
def test_lipschitz_activations_preserve_the_norm_of_the_gradient(name):
    x = generic_points().requires_grad_()
    g = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    back = torch.autograd.grad(build(suite.method(name)).double()(x), x, g)[0]
    torch.testing.assert_close(back.norm(dim=1), g.norm(dim=1))


@pytest.mark.parametrize("name", ["maxmin", "groupsort", "householder", "maxout", "st", "reinmax", "st-gumbel"])
def test_a_channel_count_that_cannot_be_grouped_is_refused(name):
    with pytest.raises(ValueError, match="7"):
        suite.method(name).make()(torch.randn(2, 7))


@pytest.mark.parametrize("name", ["st", "st-gumbel", "reinmax"])
def test_categorical_activations_draw_one_hot_vectors_by_softmax(name):
    torch.manual_seed(0)
    x = torch.tensor([0.0, 1.0, -1.0, 2.0]).repeat(2).expand(40000, 8)
    y = suite.method(name).make(categories=4)(x)
    assert set(y.unique().tolist()) == {0.0, 1.0}
    assert (y.view(-1, 4).sum(1) == 1).all()
    torch.testing.assert_close(y.mean(0), torch.softmax(x[0, :4], 0).repeat(2), atol=0.01, rtol=0)


def test_st_gumbel_has_the_gradient_of_the_relaxed_sample():
    x = 2 * torch.randn(32, CHANNELS, dtype=torch.float64)
    g = torch.randn_like(x)
    v = x.clone().requires_grad_()
    torch.manual_seed(3)
    y = suite.method("st-gumbel").make(tau=0.5)(v)
    y.backward(g)
    torch.manual_seed(3)
    noise = -np.log(-np.log(torch.rand(x.shape).numpy()))  # the draw in float32, as the module makes it
    scores = x.numpy() + noise
    assert (y.argmax(1).numpy() == scores.argmax(1)).all()
    np.testing.assert_allclose(v.grad.numpy(), softmax_vjp(scores / 0.5, None, g.numpy()) / 0.5, rtol=1e-4, atol=1e-6)


def test_reinmax_follows_its_temperature():
    torch.manual_seed(0)
    x = torch.randn(32, CHANNELS, dtype=torch.float64, requires_grad=True)
    y = suite.method("reinmax").make(tau=1.5)(x)
    g = torch.randn_like(x)
    y.backward(g)
    p, q = torch.softmax(x, 1), (torch.softmax(x / 1.5, 1) + y) / 2
    expected = 2 * (q * g - q * (q * g).sum(1, True)) - (p * g - p * (p * g).sum(1, True)) / 2
    torch.testing.assert_close(x.grad, expected.detach())


def test_q_rprelu_rounds_its_exponent_and_trains_it_straight_through():
    module = suite.method("q-rprelu").make(exponent=-2.6).double()
    x = torch.tensor([-4.0, -1.0, 2.0], dtype=torch.float64)
    y = module(x)
    assert y.tolist() == [-0.5, -0.125, 2.0]
    y.sum().backward()
    assert module.exponent.grad.item() == pytest.approx(math.log(2) / 8 * -5.0)


@pytest.mark.parametrize("name", ["smelu", "squareplus", "sau", "noisy-rectifier"])
def test_a_width_that_is_not_positive_is_refused(name):
    parameter = {"smelu": "beta", "squareplus": "b", "sau": "n", "noisy-rectifier": "sigma"}[name]
    with pytest.raises(ValueError, match="positive"):
        suite.method(name).make(**{parameter: 0.0})


class TestReinforceNeuron:
    """The estimate (h - p)(L - b), by enumeration of all draws."""

    def test_the_estimate_is_unbiased_and_less_noisy_with_its_baseline(self):
        draws, at = 20000, torch.tensor([0.3, -1.1], dtype=torch.float64)
        effect = torch.tensor([2.0, -0.7], dtype=torch.float64)

        def loss(h: Tensor) -> Tensor:
            return 3 + effect * h + h**2

        p = torch.sigmoid(at)
        exact = (loss(torch.ones(2)) - loss(torch.zeros(2))) * p * (1 - p)
        torch.manual_seed(0)
        module = suite.method("reinforce-neuron").make(features=1).double()
        spreads = []
        for _ in range(2):  # without a baseline, then with the one of the first batch
            leaf = at.repeat(draws)[:, None].requires_grad_()
            h = module(leaf).view(draws, 2)
            term = module.score_loss(loss(h).flatten())
            assert term.item() == 0.0
            found = torch.autograd.grad(term, leaf)[0].view(draws, 2) * 2 * draws
            assert ((found.mean(0) - exact).abs() <= 5 * found.std(0) / draws**0.5).all()
            spreads.append(found.std(0).norm())
        assert spreads[1] < 0.7 * spreads[0]

    @pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 2), (5, 4, 3)])
    def test_the_baseline_of_a_channel_is_the_weighted_mean_loss(self, shape):
        module = suite.method("reinforce-neuron").make(features=3, keep=0.0)
        torch.manual_seed(0)
        x = torch.randn(shape, requires_grad=True)
        drawn = module(x)
        losses = torch.arange(5.0)
        module.score_loss(losses)
        square = (drawn - torch.sigmoid(x.detach())).square().movedim(1 if len(shape) == 4 else -1, 0)
        square = square.reshape(3, 5, -1).sum(-1)
        torch.testing.assert_close(module.weighted / module.weight, (square * losses).sum(1) / square.sum(1))

    def test_losses_of_other_examples_are_refused(self):
        module = suite.method("reinforce-neuron").make()
        module(torch.randn(4, 3, requires_grad=True))
        with pytest.raises(ValueError, match="2 losses for an input of 4"):
            module.score_loss(torch.zeros(2))

    @pytest.mark.parametrize("task", ["digits-cnn", "hmm-gpt"])
    def test_layers_below_the_draws_learn_from_the_losses_of_single_examples(self, task):
        spec = RunSpec(task, "reinforce-neuron", "smoke", 0)
        work = make_workload(spec)
        trainer = Trainer(work, spec.recipe, spec.given)
        losses: list[Tensor] = []
        for part in work.estimators:
            score = part.score_loss
            part.score_loss = lambda each, score=score: (losses.append(each), score(each))[1]
        work.next()
        total = trainer.closure()
        assert len(losses) == len(work.estimators) > 0
        assert all(len(each) == len(work.x) for each in losses)
        torch.testing.assert_close(losses[0].mean(), total)
        grads = [p.grad for p in work.model.parameters()]
        assert all(g is not None and g.isfinite().all() for g in grads)
        assert all(bool(g.any()) for p, g in zip(work.model.parameters(), grads, strict=True) if p.ndim > 1)
