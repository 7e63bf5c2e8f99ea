"""Registered normalisations against float64 formulas in numpy, in training and in evaluation."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suite
from suite.train.roles import named_parameters

METHODS = suite.methods(slot="norm")
NAMES = [m.name for m in METHODS]
C = 6
IMAGES, TOKENS, ROWS = (5, C, 4, 3), (5, 7, C), (9, C)
SHAPES = {"images": IMAGES, "tokens": TOKENS, "rows": ROWS}
Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# A reference maps x as (examples, channels, places), parameters and hyper-parameters to the
# training-mode output before gain and bias.


def standardised(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + eps)


def in_groups(x: Array, groups: int) -> Array:
    """(n, C, p) to (n, groups, values)."""
    return x.reshape(len(x), np.gcd(groups, x.shape[1]), -1)


def group_norm(x: Array, p: dict[str, Array], groups: int, eps: float) -> Array:
    return standardised(in_groups(x, groups), (2,), eps).reshape(x.shape)


def chunked(x: Array, p: dict[str, Array], ghost: int, eps: float, momentum: float) -> Array:
    return np.concatenate([standardised(x[i : i + ghost], (0, 2), eps) for i in range(0, len(x), ghost)])


def batch_evo(inner: Callable[[Array, dict[str, Array], float], Array]) -> Callable[..., Array]:
    def reference(x: Array, p: dict[str, Array], eps: float, momentum: float) -> Array:
        batch = np.sqrt(x.var((0, 2), keepdims=True) + eps)
        return x / np.maximum(batch, inner(x, p, eps))

    return reference


def group_evo(statistic: Callable[[Array], Array], slope: bool) -> Callable[..., Array]:
    def reference(x: Array, p: dict[str, Array], groups: int, eps: float) -> Array:
        scale = np.sqrt(statistic(in_groups(x, groups)) + eps)
        per_group = x.shape[1] // scale.shape[1]
        gate = sigmoid(p["v"][:, None] * x if slope else x)
        return x * gate / np.repeat(scale, per_group, axis=1)

    return reference


def power_first_step(x: Array, p: dict[str, Array], warmup: float, groups: int, momentum: float, eps: float) -> Array:
    tokens = x / np.sqrt((x**2).mean(1, keepdims=True) + eps)
    return tokens / np.sqrt((tokens**2).mean((0, 2), keepdims=True) + eps)


def rms(x: Array, axis: int, eps: float) -> Array:
    return np.sqrt((x**2).mean(axis, keepdims=True) + eps)


REFERENCES: dict[str, Callable[..., Array]] = {
    "batchnorm": lambda x, p, eps, momentum: standardised(x, (0, 2), eps),
    "ghost-bn": chunked,
    "mean-only-bn": lambda x, p, momentum: x - x.mean((0, 2), keepdims=True),
    "layernorm": lambda x, p, eps: standardised(x, (1,), eps),
    "ms-ln": lambda x, p, eps: standardised(x, (1,), eps),
    "rmsnorm": lambda x, p, eps: x / rms(x, 1, eps),
    "ms-rmsnorm": lambda x, p, eps: x / rms(x, 1, eps),
    "groupnorm": group_norm,
    "instancenorm": lambda x, p, eps: standardised(x, (2,), eps),
    "no-norm": lambda x, p: x,
    "dyt": lambda x, p, alpha: np.tanh(p["alpha"] * x),
    "evonorm-b0": batch_evo(lambda x, p, eps: p["v"][:, None] * x + np.sqrt(x.var(2, keepdims=True) + eps)),
    "evonorm-b1": batch_evo(lambda x, p, eps: (x + 1) * rms(x, 2, eps)),
    "evonorm-b2": batch_evo(lambda x, p, eps: rms(x, 2, eps) - x),
    "evonorm-s0": group_evo(lambda g: g.var(2, keepdims=True), slope=True),
    "evonorm-s1": group_evo(lambda g: g.var(2, keepdims=True), slope=False),
    "evonorm-s2": group_evo(lambda g: (g**2).mean(2, keepdims=True), slope=False),
    "powernorm": power_first_step,
    "bn-orth-shaped": lambda x, p, gamma, centre, eps, momentum: x / np.sqrt((x**2).mean((0, 2), keepdims=True) + eps),
}
WITHOUT_BATCH = {
    "layernorm", "ms-ln", "rmsnorm", "ms-rmsnorm", "groupnorm", "instancenorm", "no-norm", "dyt",
    "evonorm-s0", "evonorm-s1", "evonorm-s2",
}  # fmt: skip
RUNNING = {
    "batchnorm",
    "ghost-bn",
    "mean-only-bn",
    "evonorm-b0",
    "evonorm-b1",
    "evonorm-b2",
    "powernorm",
    "bn-orth-shaped",
}
BY_PLACES = {"instancenorm", "ghost-bn"}  # tokens are the places of one example


def fits(name: str, layout: str) -> bool:
    return not (name == "instancenorm" and layout == "rows")


CASES = [(name, layout) for name in NAMES for layout in SHAPES if fits(name, layout)]


def made(name: str, **hp: Any) -> nn.Module:
    """The norm in float64 with parameters that differ from channel to channel."""
    module = suite.method(name).make(C, **hp).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.rand(parameter.shape, generator=generator)
    return module


def sample(layout: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 1.5 * torch.randn(SHAPES[layout], generator=generator, dtype=torch.float64)


def as_places(x: Array, name: str) -> Array:
    """(examples, channels, places) view of an input; rows of (..., C) are examples unless the norm has places."""
    if x.ndim == 4:
        return x.reshape(*x.shape[:2], -1)
    if x.ndim == 3 and name in BY_PLACES:
        return np.moveaxis(x, -1, 1)
    return x.reshape(-1, C, 1)


def from_places(y: Array, shape: tuple[int, ...], name: str) -> Array:
    if len(shape) == 3 and name in BY_PLACES:
        return np.moveaxis(y, 1, -1)
    return y.reshape(shape)


def affine(y: Array, parameters: dict[str, Array]) -> Array:
    return y * parameters.get("weight", np.ones(C))[:, None] + parameters.get("bias", np.zeros(C))[:, None]


def expected(name: str, module: nn.Module, x: Tensor, hp: dict[str, Any]) -> Array:
    parameters = {k: v.detach().numpy() for k, v in module.named_parameters()}
    y = REFERENCES[name](as_places(x.numpy(), name), parameters, **hp)
    return from_places(affine(y, parameters), tuple(x.shape), name)


def test_every_registered_norm_has_a_reference() -> None:
    assert set(REFERENCES) == set(NAMES)
    assert set(NAMES) == WITHOUT_BATCH | RUNNING


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_training_output_agrees_with_the_formula(name: str, layout: str) -> None:
    module, x = made(name), sample(layout)
    wanted = expected(name, module, x, dict(suite.method(name).defaults))
    np.testing.assert_allclose(module(x).detach().numpy(), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("name", "layout"), [c for c in CASES if not suite.method(c[0]).surrogate])
def test_gradient_is_the_derivative(name: str, layout: str) -> None:
    module, x = made(name), sample(layout)[:3].requires_grad_()
    parameters = list(module.parameters())

    def output(x: Tensor, *values: Tensor) -> Tensor:
        names = [n for n, _ in module.named_parameters()]
        fresh = copy.deepcopy(module)
        return torch.func.functional_call(fresh, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_channels_last_image_is_normalised_alike(name: str) -> None:
    x = sample("images")
    first, second = made(name), made(name)
    torch.testing.assert_close(second(x.contiguous(memory_format=torch.channels_last)), first(x))


@pytest.mark.parametrize("name", NAMES)
def test_starts_with_gain_one_and_bias_zero(name: str) -> None:
    parameters = dict(suite.method(name).make(C).named_parameters())
    assert torch.equal(parameters.get("weight", torch.ones(C)), torch.ones(C))
    assert torch.equal(parameters.get("bias", torch.zeros(C)), torch.zeros(C))


@pytest.mark.parametrize("name", sorted(WITHOUT_BATCH))
def test_an_example_is_normalised_alone_and_alike_in_evaluation(name: str) -> None:
    module, x = made(name), sample("images")
    together = module(x)
    torch.testing.assert_close(module(x[2:3]), together[2:3])
    torch.testing.assert_close(module.eval()(x), together)


@pytest.mark.parametrize("name", sorted(RUNNING))
def test_evaluation_treats_every_example_by_running_statistics(name: str) -> None:
    module = made(name)
    for seed in range(3):
        module(sample("images", seed))
    state = copy.deepcopy(module.state_dict())
    x = sample("images", 7)
    module.eval()
    torch.testing.assert_close(module(x[2:3]), module(x)[2:3])
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_state_goes_through_a_state_dict(name: str) -> None:
    module = made(name)
    module(sample("tokens"))
    other = suite.method(name).make(C).double()
    other.load_state_dict(module.state_dict())
    x = sample("tokens", 3)
    assert torch.equal(other.eval()(x), module.eval()(x))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_stays_bfloat16_and_finite(name: str) -> None:
    module = suite.method(name).make(C).bfloat16()
    x = sample("images").bfloat16().requires_grad_()
    y = module(x)
    assert y.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(y.float().square().sum(), x)
    assert torch.isfinite(y).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_input_gives_finite_output_and_gradient(name: str) -> None:
    x = torch.full(IMAGES, 3.0, requires_grad=True)
    y = suite.method(name).make(C)(x)
    assert torch.isfinite(y).all()
    assert torch.isfinite(torch.autograd.grad(y.sum(), x)[0]).all()


def running(values: list[Array], start: float, momentum: float) -> Array:
    mean = np.full(C, start)
    for value in values:
        mean = (1 - momentum) * mean + momentum * value
    return mean


def unbiased(x: Array) -> Array:
    return as_places(x, "").var((0, 2)) * (n := x.size / C) / (n - 1)


@pytest.mark.parametrize("name", ["evonorm-b0", "evonorm-b1", "evonorm-b2"])
def test_evonorm_b_keeps_the_unbiased_variance_as_a_running_mean(name: str) -> None:
    module, batches = made(name), [sample("images", s).numpy() for s in range(3)]
    for batch in batches:
        module(torch.tensor(batch))
    variance = running([unbiased(b) for b in batches], 1.0, 0.1)
    np.testing.assert_allclose(module.running_var.numpy(), variance, rtol=1e-12)


def test_evonorm_b0_divides_by_the_running_variance_in_evaluation_but_by_the_examples_own_deviation() -> None:
    module, x = made("evonorm-b0"), sample("images", 5)
    module(sample("images"))
    parameters = {k: v.detach().numpy() for k, v in module.named_parameters()}
    places = as_places(x.numpy(), "")
    own = parameters["v"][:, None] * places + np.sqrt(places.var(2, keepdims=True) + 1e-3)
    batch = np.sqrt(module.running_var.numpy()[:, None] + 1e-3)
    wanted = affine(places / np.maximum(batch, own), parameters).reshape(x.shape)
    np.testing.assert_allclose(module.eval()(x).detach().numpy(), wanted, rtol=1e-10)


def test_batchnorm_keeps_one_set_of_statistics_for_images_and_rows() -> None:
    module, images, rows = made("batchnorm"), sample("images"), sample("tokens", 1)
    module(images), module(rows)
    means = [as_places(x.numpy(), "").mean((0, 2)) for x in (images, rows)]
    np.testing.assert_allclose(module.running_mean.numpy(), running(means, 0.0, 0.1), rtol=1e-12)


def test_batchnorm_is_torchs_on_images() -> None:
    ours, torchs = suite.method("batchnorm").make(C), nn.BatchNorm2d(C)
    x = sample("images").float()
    assert torch.equal(ours(x), torchs(x))
    assert torch.equal(ours.eval()(x), torchs.eval()(x))


def test_ghost_bn_takes_in_every_chunk_in_turn_with_a_short_last_one() -> None:
    module, x = made("ghost-bn", ghost=2), sample("images")
    chunks = [x[:2], x[2:4], x[4:]]
    wanted = expected("ghost-bn", module, x, {"ghost": 2, "eps": 1e-5, "momentum": 0.1})
    np.testing.assert_allclose(module(x).detach().numpy(), wanted, rtol=1e-9)
    means = [as_places(c.numpy(), "").mean((0, 2)) for c in chunks]
    np.testing.assert_allclose(module.running_mean.numpy(), running(means, 0.0, 0.1), rtol=1e-12)
    variances = [unbiased(c.numpy()) for c in chunks]
    np.testing.assert_allclose(module.running_var.numpy(), running(variances, 1.0, 0.1), rtol=1e-12)


def test_mean_only_bn_keeps_a_running_mean_and_does_not_divide() -> None:
    module, x = made("mean-only-bn"), sample("images")
    spread = module(x).std((0, 2, 3), unbiased=False)
    torch.testing.assert_close(spread, x.std((0, 2, 3), unbiased=False))
    np.testing.assert_allclose(module.running_mean.numpy(), 0.1 * x.mean((0, 2, 3)).numpy(), rtol=1e-12)


@pytest.mark.parametrize(("ours", "plain"), [("ms-ln", "layernorm"), ("ms-rmsnorm", "rmsnorm")])
@pytest.mark.parametrize("layout", list(SHAPES))
def test_memory_sharing_norms_equal_the_plain_ones_forward_and_backward(ours: str, plain: str, layout: str) -> None:
    x, cotangent = sample(layout).requires_grad_(), sample(layout, 1)
    modules = [suite.method(n).make(C).double() for n in (ours, plain)]
    outputs = [m(x) for m in modules]
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*(torch.autograd.grad((y * cotangent).sum(), x)[0] for y in outputs))


def test_memory_sharing_norms_save_their_output_and_not_their_input() -> None:
    x = sample("tokens").requires_grad_()
    y = suite.method("ms-ln").make(C).double()(x * 1.0)
    kept = {t.data_ptr() for t in y.grad_fn.saved_tensors}
    assert y.data_ptr() in kept
    assert sum(t.numel() for t in y.grad_fn.saved_tensors) == y.numel() + y.numel() // C


@pytest.mark.parametrize("name", ["groupnorm", "evonorm-s0", "evonorm-s1", "evonorm-s2"])
@pytest.mark.parametrize(("groups", "used"), [(2, 2), (4, 2), (32, 2), (3, 3), (6, 6), (5, 1)])
def test_groups_that_do_not_divide_the_width_fall_back_to_the_common_divisor(name: str, groups: int, used: int) -> None:
    x = sample("images")
    torch.testing.assert_close(made(name, groups=groups)(x), made(name, groups=used)(x))


def test_groupnorm_is_torchs_on_images() -> None:
    x = sample("images").float()
    assert torch.equal(suite.method("groupnorm").make(C, groups=3)(x), nn.GroupNorm(3, C)(x))


def test_instancenorm_refuses_inputs_without_places() -> None:
    with pytest.raises(ValueError, match="places"):
        suite.method("instancenorm").make(C)(sample("rows").float())


class PowerNormOnPaper:
    """The published algorithm, step by step on (rows, C) inputs, in numpy."""

    def __init__(self, warmup: int, keep: float = 0.9, eps: float = 1e-5) -> None:
        self.warmup, self.keep, self.eps = warmup, keep, eps
        self.psi, self.nu, self.step = np.ones(C), np.zeros(C), 0

    def __call__(self, x: Array, cotangent: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
        """Output and the gradient with respect to the group-scaled input."""
        self.step += 1
        batch = (x**2).mean(0)
        y = x / np.sqrt((batch if self.step <= self.warmup else self.psi) + self.eps)
        if self.step < self.warmup:
            self.psi = self.psi * (self.step - 1) / self.step + batch / self.step
        self.psi = self.keep * self.psi + (1 - self.keep) * batch
        g = cotangent * weight - (1 - self.keep) * self.nu * y
        self.nu = self.nu + (g * y).mean(0)
        return weight * y + bias, g / np.sqrt(batch + self.eps)


def through_token_scale(x: Array, gradient: Array, eps: float = 1e-5) -> Array:
    """Gradient with respect to x of x/√(mean(x²) + eps), the group scaling of every row."""
    scale = 1 / np.sqrt((x**2).mean(1, keepdims=True) + eps)
    return scale * gradient - scale**3 * x * (gradient * x).mean(1, keepdims=True)


@pytest.mark.parametrize(("warmup", "steps"), [(2, 8), (4, 10), (3, 10), (7, 100)])
@pytest.mark.parametrize("layout", ["tokens", "images"])
def test_powernorm_follows_the_published_forward_and_approximate_backward(layout: str, warmup: int, steps: int) -> None:
    """Batch statistics up to the last step of the warm-up, the plain average only before it, however steps round."""
    module = made("powernorm", warmup=warmup / steps)
    paper = PowerNormOnPaper(warmup=warmup)
    weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
    for step in range(warmup + 4):
        x, cotangent = sample(layout, step).requires_grad_(), sample(layout, 100 + step)
        module.set_progress(step / steps)
        y = module(x)
        (gradient,) = torch.autograd.grad((y * cotangent).sum(), x)
        rows, up, got, back = (
            np.moveaxis(as_places(t.detach().numpy(), ""), 1, 2).reshape(-1, C) for t in (x, cotangent, y, gradient)
        )
        scaled = rows / np.sqrt((rows**2).mean(1, keepdims=True) + 1e-5)
        wanted, inner = paper(scaled, up, weight, bias)
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(back, through_token_scale(rows, inner), rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(module.psi.numpy(), paper.psi, rtol=1e-12)
        np.testing.assert_allclose(module.nu.numpy(), paper.nu, rtol=1e-9, atol=1e-12)


def test_powernorm_refuses_groups_that_do_not_divide_the_width() -> None:
    with pytest.raises(ValueError, match="4 groups"):
        suite.method("powernorm").make(C, groups=4)


@pytest.mark.parametrize("centre", [False, True])
def test_shaped_batchnorm_shrinks_with_depth_and_keeps_running_statistics(centre: bool) -> None:
    module, x = made("bn-orth-shaped", gamma=0.7, centre=centre), sample("images")
    module.place(3, [module] * 5)
    rows = as_places(x.numpy(), "")
    mean = rows.mean((0, 2), keepdims=True) * centre
    square = ((rows - mean) ** 2).mean((0, 2), keepdims=True)
    wanted = 4**-0.7 * (rows - mean) / np.sqrt(square + 1e-5)
    np.testing.assert_allclose(module(x).numpy(), wanted.reshape(x.shape), rtol=1e-10)
    np.testing.assert_allclose(module.running_square.numpy(), 0.9 + 0.1 * square[0, :, 0], rtol=1e-12)
    kept = 0.1 * mean
    wanted = 4**-0.7 * (rows - kept) / np.sqrt(0.9 + 0.1 * square + 1e-5)
    np.testing.assert_allclose(module.eval()(x).numpy(), wanted.reshape(x.shape), rtol=1e-10)


def test_norms_are_told_their_place_in_the_model() -> None:
    from suite.runner.execute import make_workload
    from suite.runner.spec import RunSpec

    model = make_workload(RunSpec("digits-cnn", "bn-orth-shaped", "smoke")).model
    factors = [m.factor for m in model.modules() if hasattr(m, "factor")]
    assert factors == [pytest.approx((i + 1) ** -0.5) for i in range(len(factors))]
    assert len(factors) == 3


def gradient_growth(init: str, depth: int, centre: bool) -> float:
    """Logarithm of the first layer's gradient norm over the last's, linear layers of batch size = width."""
    width, generator = 32, torch.Generator().manual_seed(0)
    fill = suite.method(init).make()
    layers = [nn.Linear(width, width, bias=False).double() for _ in range(depth)]
    for layer in layers:
        ((parameter, info),) = named_parameters(nn.Sequential(layer))
        with torch.no_grad():
            fill(parameter, dataclasses.replace(info, role="matrix"), generator)
    h = torch.randn(width, width, dtype=torch.float64, generator=generator)
    for layer in layers:
        h = suite.method("bn-orth-shaped").make(width, centre=centre).double()(layer(h))
    (h * torch.randn(h.shape, dtype=torch.float64, generator=generator)).sum().backward()
    return float((layers[0].weight.grad.norm() / layers[-1].weight.grad.norm()).log())


@pytest.mark.parametrize("centre", [False, True])
def test_gradients_do_not_explode_with_depth_on_orthogonal_weights(centre: bool) -> None:
    """The paper's claim: bounded there, exponential in the depth with Gaussian weights."""
    assert abs(gradient_growth("orthogonal", 100, centre)) < 0.2
    shallow, deep = (gradient_growth("gaussian-critical", depth, centre) for depth in (40, 100))
    assert 0.2 < shallow < 0.6 * deep
