"""Contract of every registered feed-forward block, and an independent reference for the plain and gated ones."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call, grad, stack_module_state, vmap

import suite
from baselines.block.glu import matched_hidden
from suite.train.roles import named_parameters

FEATURES, HIDDEN = 16, 64
METHODS = suite.methods(slot="block")
GATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "glu": special.expit,
    "bilinear": lambda z: z,
    "reglu": lambda z: (z + np.abs(z)) / 2,
    "geglu": lambda z: z * special.ndtr(z),
    "swiglu": lambda z: z / (1 + np.exp(-z)),
}
DTYPES = (torch.float32, torch.float64, torch.bfloat16)

every_block = pytest.mark.parametrize("method", METHODS, ids=[m.name for m in METHODS])
every_gate = pytest.mark.parametrize("name", GATES)


def activation(name: str) -> Callable[[int], nn.Module]:
    """Makes the named activation for a number of channels, as the suite does."""
    method = suite.method(name)
    return lambda n: method.make(**({"features": n} if name == "prelu" else {}))


def build(method: suite.Method, act: str = "relu", **hp: Any) -> nn.Module:
    torch.manual_seed(0)
    return method.make(FEATURES, HIDDEN, activation(act), **hp)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def plain(features: int, hidden: int) -> int:
    return parameters(suite.method("ffn").make(features, hidden, activation("relu")))


# ---------------------------------------------------------------- every block


@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 3, 4)], ids=str)
@every_block
def test_features_are_kept_over_any_leading_shape(method, shape):
    x = torch.randn(*shape, FEATURES)
    assert build(method)(x).shape == x.shape


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_block
def test_dtype_is_kept_and_gradients_are_finite(method, dtype):
    module = build(method).to(dtype)
    x = torch.randn(4, FEATURES, dtype=dtype, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.dtype == dtype
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@every_block
def test_gradient_is_the_derivative(method):
    torch.manual_seed(0)
    module = method.make(3, 6, activation("tanh")).double()
    names, values = zip(*((n, p.detach().clone()) for n, p in module.named_parameters()), strict=True)

    def function(x, *parameters):
        return functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    x = torch.randn(4, 3, dtype=torch.float64)
    assert gradcheck(function, tuple(v.requires_grad_() for v in (x, *values)))


@every_block
def test_positions_do_not_mix(method):
    module = build(method).eval()
    x = torch.randn(2, 5, FEATURES)
    moved = x.clone()
    moved[:, 3] += 1.0
    changed = (module(moved) - module(x)).abs().sum(-1) > 1e-6
    assert changed.tolist() == [[False, False, False, True, False]] * 2


@every_block
def test_evaluation_is_deterministic_and_survives_copies(method):
    module = build(method).eval()
    other = method.make(FEATURES, HIDDEN, activation("relu")).eval()
    x = torch.randn(4, FEATURES)
    assert not torch.equal(other(x), module(x))
    other.load_state_dict(module.state_dict())
    for same in (module, other, copy.deepcopy(module)):
        assert torch.equal(same(x), module(x))


@every_block
def test_nan_in_is_nan_out(method):
    x = torch.ones(3, FEATURES)
    x[1, 2] = math.nan
    assert build(method)(x).isnan().any(1).tolist() == [False, True, False]


@every_block
def test_an_adam_step_moves_every_parameter(method):
    module = build(method, "silu")
    before = [p.detach().clone() for p in module.parameters()]
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    module(torch.randn(32, FEATURES)).square().sum().backward()
    optimizer.step()
    assert all((p != old).any() for p, old in zip(module.parameters(), before, strict=True))


@every_block
def test_vmap_over_stacked_models_equals_a_loop(method):
    modules = [method.make(FEATURES, HIDDEN, activation("relu")) for _ in range(2)]
    weights, buffers = stack_module_state(modules)
    x = torch.randn(2, 4, FEATURES)

    def loss(p, b, x):
        return functional_call(modules[0], (p, b), (x,)).square().sum()

    stacked = vmap(grad(loss))(weights, buffers, x)
    for i, module in enumerate(modules):
        expected = grad(loss)(dict(module.named_parameters()), dict(module.named_buffers()), x[i])
        for name, value in expected.items():
            torch.testing.assert_close(stacked[name][i], value)


@pytest.mark.parametrize("name", ["ffn", *GATES])
def test_the_layer_that_writes_the_residual_branch_is_marked(name):
    marked = [info.name for _, info in named_parameters(build(suite.method(name))) if info.residual_out]
    assert marked == ["down.weight"]


@pytest.mark.slow
@every_block
def test_compiled_equals_eager(method):
    torch._dynamo.reset()
    module = build(method)
    x = torch.randn(4, FEATURES)
    torch.testing.assert_close(torch.compile(module, backend="aot_eager")(x), module(x))


# ---------------------------------------------------------------- the plain block


def test_ffn_is_two_affine_maps_around_the_recipes_activation():
    module = build(suite.method("ffn"), "gelu").double()
    x = torch.randn(7, FEATURES, dtype=torch.float64)
    up, upper, down, lower = (p.detach().numpy() for p in module.parameters())
    inner = x.numpy() @ up.T + upper
    np.testing.assert_allclose(
        module(x).detach().numpy(), (inner * special.ndtr(inner)) @ down.T + lower, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("act", "factor"), [("relu", 1), ("crelu", 2), ("maxout", 0.5), ("fourier-feature-act", 2)])
def test_ffn_follows_the_activations_width(act, factor):
    module = build(suite.method("ffn"), act)
    assert module.up.out_features == HIDDEN
    assert module.down.in_features == HIDDEN * factor
    assert module(torch.randn(3, FEATURES)).shape == (3, FEATURES)


def test_ffn_makes_its_activation_for_the_hidden_channels():
    assert build(suite.method("ffn"), "prelu").activation.slope.shape == (HIDDEN,)


def test_ffn_can_leave_its_biases_out():
    assert plain(FEATURES, HIDDEN) == 2 * FEATURES * HIDDEN + FEATURES + HIDDEN
    assert parameters(build(suite.method("ffn"), bias=False)) == 2 * FEATURES * HIDDEN


# ---------------------------------------------------------------- gated blocks


@every_gate
def test_gated_blocks_agree_with_the_formula(name):
    module = build(suite.method(name)).double()
    weights = {n: p.detach().numpy() for n, p in module.named_parameters()}
    x = 3 * torch.randn(7, FEATURES, dtype=torch.float64)
    gate, value = (x.numpy() @ weights[f"{n}.weight"].T for n in ("gate", "value"))
    expected = (GATES[name](gate) * value) @ weights["down.weight"].T
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@every_gate
def test_gated_blocks_ignore_the_recipes_activation(name):
    x = torch.randn(3, FEATURES)
    method = suite.method(name)
    assert torch.equal(build(method, "relu")(x), build(method, "crelu")(x))


@pytest.mark.parametrize("hidden_factor", [1, 2, 4])
@pytest.mark.parametrize("features", [32, 48, 64, 96, 128, 768])
@every_gate
def test_gated_blocks_have_the_plain_blocks_parameters(name, features, hidden_factor):
    module = suite.method(name).make(features, hidden_factor * features, activation("relu"))
    target = plain(features, hidden_factor * features)
    assert abs(parameters(module) - target) <= 0.02 * target


@every_gate
def test_unmatched_gated_blocks_keep_the_hidden_width(name):
    assert parameters(build(suite.method(name), matched=False)) == 3 * FEATURES * HIDDEN


def test_matched_width_is_the_papers_two_thirds_where_that_is_within_two_percent():
    assert matched_hidden(768, 3072) == 2048
    assert matched_hidden(64, 256) == 171


@pytest.mark.parametrize("features", range(1, 40))
@pytest.mark.parametrize("hidden", [1, 7, 32, 100])
def test_matched_width_is_the_best_whole_number(features, hidden):
    target = plain(features, hidden)

    def off(width: int) -> float:
        return abs(3 * features * width - target)

    width = matched_hidden(features, hidden)
    candidates = range(1, 4 * hidden + 4)
    within = [w for w in candidates if off(w) <= 0.02 * target]
    if within:
        assert abs(width - round(2 * hidden / 3)) == min(abs(w - round(2 * hidden / 3)) for w in within)
        assert width in within
    else:
        assert off(width) == min(map(off, candidates))
