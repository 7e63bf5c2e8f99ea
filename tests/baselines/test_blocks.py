"""Contract of every registered feed-forward block, and an independent reference for each.

A new block is tested because it is registered; it fails until `REFERENCES` holds a second way to compute it.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, special
from scipy.interpolate import BSpline
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, stack_module_state, vmap

import suite
from baselines.block.glu import matched_hidden
from baselines.block.kan import cardinal_spline, spline_basis
from baselines.block.matrix_exp import matrix_exp
from suite.recipe import Choice, recipe_for
from suite.registry import registry
from suite.train.derivatives import autograd_fields
from suite.train.jets import AxisJets, scalar_derivatives
from suite.train.roles import named_parameters
from suite.train.workload import Context

FEATURES, HIDDEN = 16, 64
METHODS = suite.methods(slot="block")
MIXING = ("permequi1", "permequi2-max", "permequi2-mean", "soft-moe")  # the dim before the last is a set
Array = np.ndarray
Params = dict[str, Array]
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


def stirred(module: nn.Module) -> nn.Module:
    """`module` with every parameter moved off its initial value, in place."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return module


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
    module = stirred(build(method).to(dtype))
    x = torch.randn(4, FEATURES, dtype=dtype, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.dtype == dtype
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@every_block
def test_half_precision_is_near_single(method):
    module = stirred(build(method, "silu")).eval()
    x = torch.randn(6, FEATURES).bfloat16()
    single = module(x.float())
    half = module.bfloat16()(x).float()
    assert ((half - single).abs() <= 0.05 * single.abs().max()).all()


@every_block
def test_gradient_is_the_derivative(method):
    torch.manual_seed(0)
    module = stirred(method.make(3, 6, activation("tanh")).double())
    names, values = zip(*((n, p.detach().clone()) for n, p in module.named_parameters()), strict=True)

    def function(x, *parameters):
        return functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    x = torch.randn(2, 3, dtype=torch.float64)
    assert gradcheck(function, tuple(v.requires_grad_() for v in (x, *values)))
    if "pde" in method.families:
        assert gradgradcheck(function, (x, *values), fast_mode=True)


@pytest.mark.parametrize("method", [m for m in METHODS if m.name not in MIXING], ids=lambda m: m.name)
def test_positions_do_not_mix(method):
    module = stirred(build(method)).eval()
    x = torch.randn(2, 5, FEATURES)
    moved = x.clone()
    moved[:, 3] += 1.0
    changed = (module(moved) - module(x)).abs().sum(-1) > 1e-6
    assert changed.tolist() == [[False, False, False, True, False]] * 2


@pytest.mark.parametrize("name", MIXING)
def test_blocks_over_sets_are_equivariant_and_keep_examples_apart(name):
    method = suite.method(name)
    assert method.families == ("vision",), "tokens of a sequence and points of a domain are no sets"
    module = stirred(build(method)).eval().double()
    x = torch.randn(2, 5, FEATURES, dtype=torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order])
    torch.testing.assert_close(module(x)[:1], module(x[:1]))
    moved = x.clone()
    moved[0, 3] += 1.0
    assert ((module(moved) - module(x))[0].abs().sum(-1) > 1e-6).all()


@every_block
def test_evaluation_is_deterministic_and_survives_copies(method):
    module = stirred(build(method)).eval()
    other = method.make(FEATURES, HIDDEN, activation("relu")).eval()
    x = torch.randn(4, FEATURES)
    assert not torch.equal(other(x), module(x))
    other.load_state_dict(module.state_dict())
    for same in (module, other, copy.deepcopy(module)):
        assert torch.equal(same(x), module(x))


@every_block
def test_nan_in_is_nan_out(method):
    x = torch.ones(3, 1, FEATURES)
    x[1, 0, 2] = math.nan
    assert stirred(build(method))(x).isnan().any(-1).flatten().tolist() == [False, True, False]


@every_block
def test_two_adam_steps_move_every_parameter(method):
    module = build(method, "silu")
    before = [p.detach().clone() for p in module.parameters()]
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    x, goal = torch.randn(32, FEATURES), torch.randn(32, FEATURES)
    for _ in range(2):
        optimizer.zero_grad()
        (module(x) - goal).square().sum().backward()
        optimizer.step()
    assert all((p != old).any() for p, old in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize("method", [m for m in METHODS if m.vmap], ids=lambda m: m.name)
def test_vmap_over_stacked_models_equals_a_loop(method):
    torch.manual_seed(0)
    modules = [stirred(method.make(FEATURES, HIDDEN, activation("relu"))) for _ in range(2)]
    weights, buffers = stack_module_state(modules)
    x = torch.randn(2, 4, FEATURES)

    def loss(p, b, x):
        return functional_call(modules[0], (p, b), (x,)).square().sum()

    stacked = vmap(grad(loss))(weights, buffers, x)
    for i, module in enumerate(modules):
        expected = grad(loss)(dict(module.named_parameters()), dict(module.named_buffers()), x[i])
        for name, value in expected.items():
            torch.testing.assert_close(stacked[name][i], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()) + 1e-6)


@every_block
def test_one_layer_is_marked_as_the_end_of_the_residual_branch(method):
    module = build(method)
    marked = [part for part in module.modules() if getattr(part, "levelfield_residual", False)]
    assert len(marked) == 1
    assert any(info.residual_out for _, info in named_parameters(module))


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


# ---------------------------------------------------------------- references
#
# A reference takes the parameters by name and inputs (positions, features), all float64, and gives the
# outputs in evaluation mode with tanh as the recipe's activation.


def affine(p: Params, name: str, x: Array) -> Array:
    return np.array([p[f"{name}.weight"] @ row for row in x]) + p.get(f"{name}.bias", 0.0)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def logistic(x: Array) -> Array:
    return 0.5 + np.tanh(x / 2) / 2


def plain_block(p: Params, x: Array, prefix: str = "") -> Array:
    return affine(p, f"{prefix}down", np.tanh(affine(p, f"{prefix}up", x)))


def gated(name: str) -> Callable[[Params, Array], Array]:
    return lambda p, x: affine(p, "down", GATES[name](affine(p, "gate", x)) * affine(p, "value", x))


def quadratic(shrink: float, gate: bool = True, rezero: bool = False) -> Callable[[Params, Array], Array]:
    """The neuron with w_g = s·stored, b_g = 1 + s·stored, w_b and c = s·stored, as quadratic forms."""

    def layer(p: Params, name: str, x: Array) -> Array:
        out = []
        for j, (w_r, b_r) in enumerate(zip(p[f"{name}.linear.weight"], p[f"{name}.linear.bias"], strict=True)):
            w_b, c = shrink * p[f"{name}.square.weight"][j], shrink * p[f"{name}.square.bias"][j]
            w_g, b_g = np.zeros_like(w_r), 1.0
            if gate:
                w_g, b_g = shrink * p[f"{name}.gate.weight"][j], 1 + shrink * p[f"{name}.gate.bias"][j]
            form = np.outer(w_r, w_g) + np.diag(w_b)
            out.append([row @ form @ row + row @ (b_g * w_r + b_r * w_g) + b_r * b_g + c for row in x])
        return np.array(out).T

    return lambda p, x: (p["alpha"] if rezero else 1) * layer(p, "down", np.tanh(layer(p, "up", x)))


def kan(grid: int, order: int = 3) -> Callable[[Params, Array], Array]:
    """Every edge's function from scipy's B-splines."""
    step = 2 / grid
    knots = -1 + step * np.arange(-order, grid + order + 1)
    splines = [BSpline.basis_element(knots[m : m + order + 2], extrapolate=False) for m in range(grid + order)]

    def layer(p: Params, name: str, x: Array) -> Array:
        base, scale, c = (p[f"{name}.{part}"] for part in ("base", "scale", "coefficients"))
        basis = np.nan_to_num(np.stack([spline(x) for spline in splines], -1))
        return silu(x) @ base.T + np.einsum("ji,jim,nim->nj", scale, c, basis)

    return lambda p, x: layer(p, "down", layer(p, "up", x))


def relu_kan(p: Params, x: Array) -> Array:
    def layer(name: str, x: Array) -> Array:
        low, high = p[f"{name}.phases.low"], p[f"{name}.phases.high"]
        x = 1 / (1 + np.exp(-x))[..., None]
        inside = (x > low) & (x < high)
        bumps = np.where(inside, ((high - x) * (x - low) * 4 * 25 / 16) ** 2, 0)
        return affine(p, f"{name}.linear", bumps.reshape(len(x), -1))

    return layer("down", layer("up", x))


def af_kan(p: Params, x: Array) -> Array:
    def position(name: str, row: Array) -> Array:
        z = np.array(
            [
                [
                    (silu(v - s) * silu(e - v)) ** 2
                    for s, e in zip(p[f"{name}.phases.low"], p[f"{name}.phases.high"], strict=True)
                ]
                for v in row
            ]
        )
        z = z / np.linalg.norm(z)
        z = (z - z.min()) / (z.max() - z.min())
        scores = z @ p[f"{name}.attention.weight"][0] / max(p[f"{name}.temperature"], 1.0)
        y = (special.softmax(scores)[:, None] * z).sum(1)
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-5) * p[f"{name}.norm.weight"] + p[f"{name}.norm.bias"]
        return p[f"{name}.linear.weight"] @ silu(y)

    return np.array([position("down", position("up", row)) for row in x])


def circuit(x: float, theta: Array, w: Array, b: Array, fast: bool = False) -> float:
    """The measurement of a re-uploading qubit, from its complex state."""

    def rz(angle: float) -> Array:
        return np.diag(np.exp(np.array([-0.5j, 0.5j]) * angle))

    def ry(angle: float) -> Array:
        c, s = math.cos(angle / 2), math.sin(angle / 2)
        return np.array([[c, -s], [s, c]])

    state = np.array([1, 1]) / math.sqrt(2)
    for repetition in range(len(w)):
        state = ry(theta[repetition, 1]) @ rz(theta[repetition, 0]) @ state
        state = rz(w[repetition] * x + b[repetition]) @ state
    size = np.abs(ry(theta[-1, 1]) @ rz(theta[-1, 0]) @ state)
    return size[0] - size[1] if fast else size[0] ** 2 - size[1] ** 2


def qkan_layer(p: Params, name: str, x: Array, fast: bool = False) -> Array:
    c = {part: p[f"{name}.circuits.{part}"] for part in ("theta", "weight", "bias", "gain", "shift")}
    base = p[f"{name}.base"]

    def edge(j: int, i: int, v: float) -> float:
        read = circuit(v, c["theta"][j, i], c["weight"][j, i], c["bias"][j, i], fast)
        return c["gain"][j, i] * (read + c["shift"][j, i]) + base[j, i] * v / (1 + math.exp(-v))

    return np.array([[sum(edge(j, i, v) for i, v in enumerate(row)) for j in range(len(base))] for row in x])


def qkan(p: Params, x: Array) -> Array:
    return qkan_layer(p, "down", qkan_layer(p, "up", x))


def hqkan(p: Params, x: Array, fast: bool = False) -> Array:
    return affine(p, "up", qkan_layer(p, "middle", affine(p, "down", x), fast))


def daruan(p: Params, x: Array) -> Array:
    c = {part: p[f"circuits.{part}"] for part in ("theta", "weight", "bias", "gain", "shift")}
    y = affine(p, "up", x)
    for i in range(y.shape[1]):
        reads = [circuit(v, c["theta"][i], c["weight"][i], c["bias"][i]) for v in y[:, i]]
        y[:, i] = c["gain"][i] * np.array(reads) + c["shift"][i]
    return affine(p, "down", y)


def multiplet(p: Params, x: Array) -> Array:
    weight, x = np.logaddexp(0, p["multiplets.weight"]), np.logaddexp(0, x) + 1e-3
    means = np.array(
        [
            [(w * row**power).sum() / (w * row ** (power - 1)).sum() for power in (-3.0, 1.0, 5.0) for w in weight]
            for row in x
        ]
    )
    return affine(p, "down", p["multiplets.gain"] * means + p["multiplets.bias"])


def gate(p: Params, x: Array) -> Array:
    return plain_block(p, x, "block.") * logistic(affine(p, "gate", x))


def m_layer(p: Params, x: Array) -> Array:
    side = math.isqrt(len(p["exponential.origin"]))
    t, b = p["exponential.generators"].reshape(side, side, -1), p["exponential.origin"].reshape(side, side)
    exps = [linalg.expm(b + sum(v * t[:, :, a] for a, v in enumerate(row))).ravel() for row in x]
    return affine(p, "down", np.array(exps))


def matexp3(p: Params, x: Array) -> Array:
    w1, w2, w3 = (p[f"{name}.weight"] for name in ("first", "second", "third"))
    n = len(w1)
    matrices = affine(p, "up", x).reshape(-1, n, n)
    return affine(p, "down", np.array([(w3 @ linalg.expm(w2 @ linalg.expm(w1 @ m / n) / n)).ravel() for m in matrices]))


def soft_moe(p: Params, x: Array) -> Array:
    """Slot by slot: 4 experts of 4 slots."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    phi = p["router.weight"] / np.linalg.norm(p["router.weight"], axis=1, keepdims=True)
    logits = p["scale"] * unit @ phi.T
    combine, y = special.softmax(logits, axis=1), 0.0
    h = len(p["up.bias"]) // 4
    for slot in range(16):
        part = slice(slot // 4 * h, (slot // 4 + 1) * h)
        mean = special.softmax(logits[:, slot]) @ x
        result = p["down.weight"][:, part] @ np.tanh(p["up.weight"][part] @ mean + p["up.bias"][part])
        y = y + np.outer(combine[:, slot], result + p["down.bias"])
    return y


def deep_sets(pool: Callable[[Array], Array], matrices: int) -> Callable[[Params, Array], Array]:
    def layer(p: Params, name: str, x: Array) -> Array:
        shared = pool(x)
        if matrices == 1:
            return np.array([p[f"{name}.gamma.weight"] @ (row - shared) for row in x]) + p[f"{name}.gamma.bias"]
        return affine(p, f"{name}.gamma", x) - p[f"{name}.lam.weight"] @ shared

    return lambda p, x: layer(p, "down", np.tanh(layer(p, "up", x)))


REFERENCES: dict[str, Callable[[Params, Array], Array]] = {
    "ffn": plain_block,
    **{name: gated(name) for name in GATES},
    "af-kan": af_kan,
    "daruan": daruan,
    "gateres": gate,
    "gateskip": gate,
    "hqkan": hqkan,
    "kan-efficient": kan(5),
    "kan-paper": kan(5),
    "kan-pykan": kan(3),
    "m-layer": m_layer,
    "matexp3": matexp3,
    "multiplet": multiplet,
    "permequi1": deep_sets(lambda x: np.sort(x, axis=0)[-1], 1),
    "permequi2-max": deep_sets(lambda x: np.sort(x, axis=0)[-1], 2),
    "permequi2-mean": deep_sets(lambda x: x.sum(0) / len(x), 2),
    "qkan": qkan,
    "quadratic-compact": quadratic(0.01, gate=False),
    "quadratic-neuron": quadratic(0.01),
    "quadratic-rezero": quadratic(0.1, rezero=True),
    "relu-kan": relu_kan,
    "soft-moe": soft_moe,
}


@every_block
def test_an_independent_reference_exists(method):
    assert method.name in REFERENCES, f"add a second way to compute {method.name!r} to REFERENCES"


@pytest.mark.parametrize("name", REFERENCES)
def test_blocks_agree_with_the_reference(name):
    module = wide(stirred(build(suite.method(name), "tanh").double())).eval()
    x = torch.randn(7, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = REFERENCES[name](numbers(module), x.numpy())
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-11)


def numbers(module: nn.Module) -> Params:
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def wide(module: nn.Module) -> nn.Module:
    """`module` with its quadratic weights as large as its linear ones, so that they count."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if ".gate." in name or ".square." in name:
                p.mul_(50)
    return module


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


# ---------------------------------------------------------------- equal parameters

# How far a block's parameters may be from the plain block's: a unit of width of some is worth that much.
NEAR = {
    "af-kan": 0.02, "daruan": 0.02, "gateres": 0.02, "gateskip": 0.02, "m-layer": 0.07, "matexp3": 0.07,
    "multiplet": 0.02, "permequi1": 0.02, "permequi2-max": 0.02, "permequi2-mean": 0.02, "quadratic-compact": 0.02,
    "quadratic-neuron": 0.02, "quadratic-rezero": 0.02, "relu-kan": 0.05, "kan-efficient": 0.1, "kan-paper": 0.1,
    "kan-pykan": 0.1, "qkan": 0.1,
}  # fmt: skip
UNMATCHED = ("hqkan", "soft-moe")  # by their own definition; they say so


@pytest.mark.parametrize(("features", "hidden"), [(32, 64), (32, 128), (50, 50), (64, 64), (192, 384), (256, 256)])
@pytest.mark.parametrize("name", NEAR)
def test_blocks_have_about_the_plain_blocks_parameters(name, features, hidden):
    target = plain(features, hidden)
    assert (
        abs(parameters(suite.method(name).make(features, hidden, activation("tanh"))) - target) <= NEAR[name] * target
    )


def test_every_block_is_matched_or_says_why_not():
    assert {m.name for m in METHODS} == {"ffn", *GATES, *NEAR, *UNMATCHED}


@pytest.mark.parametrize("name", [name for name in NEAR if "matched" in suite.method(name).defaults])
@pytest.mark.parametrize("hidden", [20, 61, 97])
def test_no_other_inner_width_is_nearer(name, hidden):
    method, target = suite.method(name), plain(10, hidden)
    found = parameters(method.make(10, hidden, activation("tanh")))
    others = [parameters(method.make(10, w, activation("tanh"), matched=False)) for w in range(1, 2 * hidden)]
    assert abs(found - target) == min(abs(other - target) for other in others)


def test_hqkan_has_a_logarithmic_middle_and_can_be_matched():
    small, wide = (suite.method("hqkan").make(50, 50, widening=w) for w in (1, 4))
    assert (small.down.out_features, wide.down.out_features) == (6, 24)
    matched = parameters(suite.method("hqkan").make(64, 128, matched=True))
    assert abs(matched - plain(64, 128)) <= 0.05 * plain(64, 128)


def test_soft_moe_sends_as_many_vectors_through_experts_as_an_image_has_patches():
    module = build(suite.method("soft-moe"))
    seen = []
    for act in module.activations:
        act.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape)))
    module(torch.randn(2, 16, FEATURES))
    assert seen == [(2, 4, HIDDEN)] * 4


# ---------------------------------------------------------------- how blocks start


@pytest.mark.parametrize("name", ["quadratic-neuron", "quadratic-compact"])
def test_quadratic_networks_start_as_plain_ones(name):
    module = build(suite.method(name), "tanh").double()
    p, x = numbers(module), torch.randn(5, FEATURES, dtype=torch.float64)
    linear = {k.replace(".linear", ""): v for k, v in p.items() if ".linear." in k}
    np.testing.assert_allclose(module(x).detach().numpy(), plain_block(linear, x.numpy()), rtol=1e-12, atol=1e-14)


def test_a_rezero_block_starts_at_zero():
    assert not build(suite.method("quadratic-rezero"))(torch.randn(3, FEATURES)).any()


@pytest.mark.parametrize(("lr", "step"), [("sgd", 0.01**2), ("adam", 0.01)])
def test_quadratic_weights_move_less_than_linear_ones(lr, step):
    """Of two parameters with equal gradients in w: shrink² as far by a plain step, shrink by an Adam step."""
    module = suite.method("quadratic-compact").make(1, 1, nn.Identity, matched=False).double()
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(1.0 if p is module.up.linear.weight or p is module.down.linear.weight else 0.0)
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[lr](module.parameters(), lr=1e-3)
    module(torch.ones(1, 1, dtype=torch.float64)).sum().backward()
    optimizer.step()
    linear = module.up.linear.weight - 1.0
    square = module.up.shrink * module.up.square.weight
    assert float(square.detach() / linear.detach()) == pytest.approx(step, rel=1e-4)


def layers_of(name: str, features: int = 64) -> list[nn.Module]:
    module = build(suite.method(name)) if features == FEATURES else suite.method(name).make(features, 40, matched=False)
    return [module.up, module.down]


def test_kan_starts_as_in_the_paper():
    for layer in layers_of("kan-paper"):
        fans = sum(layer.base.shape)
        assert (layer.scale == 1).all()
        assert float(layer.coefficients.std()) == pytest.approx(0.1, rel=0.05)
        assert float(layer.base.std()) == pytest.approx(math.sqrt(2 / fans), rel=0.1)


@pytest.mark.parametrize(("name", "grid", "noise"), [("kan-pykan", 3, 0.3), ("kan-efficient", 5, 0.1)])
def test_kan_splines_start_as_noise_at_the_knots(name, grid, noise):
    for layer in layers_of(name):
        knots = torch.linspace(-1, 1, grid + 1)
        values = torch.einsum("nm,jim->jin", spline_basis(knots[:, None], grid, 3, 1.0), layer.coefficients.detach())
        bound = noise / grid / 2
        assert float(values.abs().max()) <= bound * (1 + 1e-4)
        assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("name", ["kan-pykan", "kan-efficient"])
def test_kan_base_weights_start_uniform(name):
    for layer in layers_of(name):
        bound = 1 / math.sqrt(layer.base.shape[1])
        for weight in (layer.base, layer.scale) if name == "kan-efficient" else (layer.base,):
            assert float(weight.abs().max()) == pytest.approx(bound, rel=0.02)
            assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
        if name == "kan-pykan":
            torch.testing.assert_close(layer.scale, torch.full_like(layer.scale, bound))


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_cardinal_splines_are_scipys(order):
    half = (order + 1) / 2
    x = np.linspace(-half - 1, half + 1, 41)  # knots and centre among them
    spline = BSpline.basis_element(np.arange(order + 2) - half, extrapolate=False)
    found = cardinal_spline(torch.from_numpy(x), order).numpy()
    np.testing.assert_allclose(found, np.nan_to_num(spline(x)), rtol=1e-12, atol=1e-15)


def test_cardinal_splines_have_exact_derivatives_on_their_knots_too():
    x = torch.linspace(-3, 3, 25, dtype=torch.float64)
    spline = BSpline.basis_element(np.arange(5) - 2.0, extrapolate=False)
    for k, found in enumerate(scalar_derivatives(partial(cardinal_spline, order=3), x, 2)):
        expected = np.nan_to_num(spline(x.numpy(), k))
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("grid", "order", "extent"), [(5, 3, 1.0), (3, 3, 2.0), (4, 2, 0.5)])
def test_splines_sum_to_one_on_the_grid_and_vanish_far_away(grid, order, extent):
    inside = torch.linspace(-extent, extent, 101, dtype=torch.float64)
    basis = spline_basis(inside[:, None], grid, order, extent)
    assert basis.shape == (101, grid + order)
    torch.testing.assert_close(basis.sum(-1), torch.ones_like(inside))
    assert not spline_basis(torch.tensor([[-50.0], [50.0]]), grid, order, extent).any()


@pytest.mark.parametrize("name", ["daruan", "qkan", "hqkan"])
def test_circuits_start_with_published_values(name):
    module = suite.method(name).make(64, 64, activation("relu"))
    parts = [part for part in module.modules() if hasattr(part, "theta")]
    for circuits in parts:
        *shape, rows, angles = circuits.theta.shape
        fan_in, fan_out = (shape[1] if len(shape) == 2 else rows), shape[0]
        field = rows * angles if len(shape) == 2 else angles
        assert float(circuits.theta.std()) == pytest.approx(math.sqrt(2 / ((fan_in + fan_out) * field)), rel=0.2)
        assert (circuits.weight == 1).all() and (circuits.gain == 1).all()
        assert not circuits.bias.any() and not circuits.shift.any()
    assert all((part.base == 0.5).all() for part in module.modules() if hasattr(part, "base"))


def test_the_fast_readout_is_the_difference_of_amplitudes():
    module = stirred(suite.method("hqkan").make(6, 6, fast=True).double())
    x = torch.randn(5, 6, dtype=torch.float64)
    np.testing.assert_allclose(module(x).detach().numpy(), hqkan(numbers(module), x.numpy(), fast=True), rtol=1e-9)


def test_multiplets_start_as_unweighted_means_between_smallest_and_largest():
    module = suite.method("multiplet").make(3, 3, matched=False).multiplets.double()
    x = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    cubes = x**-3
    expected = torch.tensor([[float(cubes.sum() / (x**-4).sum()), 7 / 3, float((x**5).sum() / (x**4).sum())]])
    torch.testing.assert_close(module(x), expected.double())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e7])
def test_multiplet_means_keep_their_scale_in_single_precision(scale):
    module = suite.method("multiplet").make(3, 3, matched=False).multiplets
    x = torch.tensor([[1.0, 2.0, 4.0]])
    torch.testing.assert_close(module(scale * x), scale * module(x))


def test_m_layer_of_a_nilpotent_generator_is_a_polynomial():
    module = suite.method("m-layer").make(1, 4).double()
    with torch.no_grad():
        module.exponential.generators.zero_()[1, 0] = 3.0
        module.exponential.origin.zero_()
    x = torch.tensor([[0.7]], dtype=torch.float64)
    torch.testing.assert_close(module.exponential(x), torch.tensor([[1.0, 2.1, 0.0, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.0, 1e-9, 0.01, 0.3, 3.0, 20.0])
def test_matrix_exponentials_are_scipys(scale):
    torch.manual_seed(0)
    a = scale * torch.randn(7, 4, 4, dtype=torch.float64)
    expected = np.array([linalg.expm(m) for m in a.numpy()])
    found = matrix_exp(a.flatten(-2), 4).unflatten(-1, (4, 4)).numpy()
    scales = np.abs(expected).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found / scales, expected / scales, atol=1e-13 * max(1.0, scale))
    single = matrix_exp(a.flatten(-2).float(), 4).unflatten(-1, (4, 4)).numpy()
    np.testing.assert_allclose(single / scales, expected / scales, atol=3e-6 * max(1.0, scale))


def test_matrix_exponentials_of_half_precision_are_taken_in_single():
    a = torch.randn(3, 9).bfloat16()
    torch.testing.assert_close(matrix_exp(a, 3), matrix_exp(a.float(), 3).bfloat16(), rtol=0, atol=0)


def test_a_matrix_exponential_does_not_depend_on_the_other_rows():
    torch.manual_seed(0)
    rows = torch.randn(6, 9) * torch.tensor([1e-3, 0.1, 1.0, 4.0, 20.0, math.inf])[:, None]
    together = matrix_exp(rows, 3)
    assert torch.equal(together[:5], torch.cat([matrix_exp(row, 3) for row in rows[:5].split(1)]))
    assert not together[5].isfinite().any()
    assert matrix_exp(rows[:0], 3).shape == (0, 9)


def test_matrix_exponentials_carry_jets_to_the_fourth_order():
    """Against nested differentiation, with rows that are squared three times and not at all."""
    torch.manual_seed(0)
    weight, bias = torch.randn(9, 2, dtype=torch.float64) / 3, torch.randn(9, dtype=torch.float64) / 3
    x = (torch.tensor([[0.01], [1.0], [6.0]]) * torch.randn(3, 2)).double().requires_grad_()

    def network(x: Any) -> Any:
        return nn.functional.linear(matrix_exp(nn.functional.linear(x, weight, bias), 3), torch.eye(9)[:2].double())

    jets, nested = AxisJets({0: 4, 1: 2})(network, x), autograd_fields(network, x)
    for jet, field in zip(jets, nested, strict=True):
        torch.testing.assert_close(jet.value, field.value)
        for axes in [(0,), (1,), (0, 0), (1, 1), (0, 0, 0), (0, 0, 0, 0)]:
            torch.testing.assert_close(jet.d(*axes), field.d(*axes), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- skipping tokens


def skipping(budget: float = 0.5, progress: float = 1.0) -> nn.Module:
    module = stirred(build(suite.method("gateskip"), budget=budget))
    module.set_progress(progress)
    return module


def skipped(module: nn.Module, x: Tensor) -> Tensor:
    return (module(x) == 0).all(-1)


def test_a_full_budget_skips_nothing():
    x = torch.randn(4, 8, FEATURES)
    module = skipping(progress=0.0)
    assert not skipped(module, x).any()
    assert float(module.threshold) == 0.0


def test_training_skips_the_tokens_with_the_smallest_gates():
    x = torch.randn(4, 8, FEATURES)
    module = skipping(budget=0.75)
    out = skipped(module, x)
    importance = module.gate(x).sigmoid().mean(-1)
    assert out.sum() == 8
    assert float(importance[out].detach().max()) < float(importance[~out].detach().min())


@pytest.mark.parametrize(("budget", "tokens"), [(0.8, 20), (0.8, 21), (0.7, 4), (0.9, 10), (0.6, 7), (0.95, 8)])
def test_training_skips_what_is_at_or_below_the_interpolated_quantile(budget, tokens):
    x = torch.randn(1, tokens, FEATURES)
    module = skipping(budget=budget)
    importance = module.gate(x).sigmoid().mean(-1).detach().double().numpy()
    share = round(1 - budget, 9)
    assert skipped(module, x).sum() == (importance <= np.quantile(importance, share)).sum()


def test_the_budget_falls_linearly():
    module = skipping(budget=0.8)
    budgets = []
    for progress in (0.0, 0.5, 1.0):
        module.set_progress(progress)
        budgets.append(module.budget)
    assert budgets == pytest.approx([1.0, 0.9, 0.8])


def test_evaluation_skips_by_the_running_threshold_whatever_the_other_tokens():
    module, x = skipping(budget=0.5), torch.randn(4, 8, FEATURES)
    for _ in range(100):
        module(x)
    assert float(module.threshold) == pytest.approx(
        float(module.smallest(module.gate(x).sigmoid().mean(-1)).detach()), rel=1e-4
    )
    module.eval()
    together = skipped(module, x)
    assert together.sum() in (15, 16)  # the threshold comes near from below
    assert torch.equal(torch.cat([skipped(module, row) for row in x.flatten(0, 1).split(1)]), together.flatten())


def test_gradients_flow_through_kept_tokens_only():
    module, x = skipping(), torch.randn(4, 8, FEATURES, requires_grad=True)
    module(x).sum().backward()
    assert torch.equal((x.grad == 0).all(-1), skipped(module, x))


def test_the_sparsity_loss_is_the_mean_norm_of_the_last_training_gates_over_the_width():
    module, x = skipping(), torch.randn(4, 8, FEATURES)
    module(x)
    gates = logistic(affine(numbers(module), "gate", x.flatten(0, 1).numpy()))
    assert float(module.auxiliary_loss()) == pytest.approx(0.1 * np.sqrt((gates**2).sum(1)).mean() / FEATURES, rel=1e-5)


# ---------------------------------------------------------------- blocks in physics-informed fits


def fit(task: str, name: str) -> Any:
    """The task's workload with the named block, small and in double precision, at its first points."""
    info = registry().task(task)
    recipe = recipe_for(info, "reference").with_choice("block", Choice(name, suite.method(name).defaults))
    sizes = {**info.tiers["smoke"].sizes, "width": 12, "points": 20}
    tier = suite.Tier(**{**vars(info.tiers["smoke"]), "sizes": sizes})
    work = info.factory(info).workload(Context(info, tier, "smoke", recipe, 0, torch.device("cpu")))
    work.next()
    return work


@pytest.mark.parametrize("task", ["helmholtz", "poisson-5"])
@pytest.mark.parametrize("method", [m for m in METHODS if "pde" in m.families], ids=lambda m: m.name)
def test_a_blocks_residual_is_that_of_nested_differentiation(method, task):
    """By Taylor-mode jets where the block carries them, else by nested differentiation itself."""
    work = fit(task, method.name)
    stirred(work.model).double()
    points = work.points.double()
    found = work.method.residual(work.model, points)
    fields = autograd_fields(work.model, points)
    torch.testing.assert_close(found, work.problem.residual(fields, points), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "carried"),
    [
        ("ffn", True),
        ("quadratic-neuron", True),
        ("kan-paper", True),
        ("daruan", True),
        ("m-layer", True),
        ("matexp3", True),
    ],
)
def test_jets_are_used_where_a_block_carries_them(name, carried):
    assert fit("helmholtz", name).problem.taylor is carried
