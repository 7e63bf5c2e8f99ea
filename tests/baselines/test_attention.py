"""Registered token mixers against loops over tokens in numpy: recurrences as they are printed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

import suite
from baselines.attention.sparsemax import sparsemax as sparsemax_weights
from suite.train.roles import named_parameters

METHODS = suite.methods(slot="attention")
NAMES = [m.name for m in METHODS]
FEATURES, HEADS, TIME = 12, 3, 9
WIDTH = FEATURES // HEADS
Array = np.ndarray
Params = dict[str, Array]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def seen(t: int, causal: bool) -> list[int]:
    return list(range(t + 1 if causal else TIME))


# A head takes q, k, v (time, width), the gates (gates, time), the parameters, the head's index and
# `causal`, and gives (time, width).
Head = Callable[[Array, Array, Array, Array, Params, int, bool], Array]


def weighted(weights: Callable[[Array, Array, int, list[int], Params, int, bool], Array]) -> Head:
    """A head that averages the values it sees, with weights of each query on its keys."""

    def head(q: Array, k: Array, v: Array, gates: Array, p: Params, h: int, causal: bool) -> Array:
        return np.array([weights(q[t], k, t, seen(t, causal), p, h, causal) @ v[seen(t, causal)] for t in range(TIME)])

    return head


def dots(q: Array, k: Array, keys: list[int]) -> Array:
    return np.array([np.dot(q, k[s]) for s in keys]) / math.sqrt(WIDTH)


def softmax(scores: Array) -> Array:
    exps = np.exp(scores - scores.max())
    return exps / exps.sum()


def sparsemax(scores: Array) -> Array:
    """Root of Σ max(z - τ, 0) = 1."""
    tau = brentq(lambda t: np.maximum(scores - t, 0).sum() - 1, scores.min() - 2, scores.max(), xtol=1e-14)
    return np.maximum(scores - tau, 0)


def table(values: Array, h: int, t: int, keys: list[int], causal: bool) -> Array:
    """Toeplitz entries: the causal table starts at offset 0, the other at the farthest negative one."""
    count = values.shape[1]
    farthest, zero = (count - 1, 0) if causal else (count // 2, count // 2)
    return np.array([values[h, zero + max(min(t - s, farthest), -farthest)] for s in keys])


def biased(q: Array, k: Array, t: int, keys: list[int], p: Params, h: int, causal: bool) -> Array:
    return softmax(dots(q, k, keys) + table(p["bias.values"], h, t, keys, causal))


def linear(q: Array, k: Array, t: int, keys: list[int], p: Params, h: int, causal: bool) -> Array:
    def phi(x: Array) -> Array:
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))

    state = np.array([phi(q) @ phi(k[s]) for s in keys])
    return state / (state.sum() + 1e-6)


def inverse_distance(q: Array, k: Array, t: int, keys: list[int], p: Params, h: int, causal: bool) -> Array:
    near = np.array([1 / math.sqrt(((q - k[s]) ** 2).sum() + 1e-3) for s in keys])
    return near / near.sum()


def recurrent(q: Array, k: Array, v: Array, beta: Array, decay: Array) -> Array:
    """S ← a S (I - β k kᵀ) + β v kᵀ; reads S q."""
    state, reads = np.zeros((v.shape[1], k.shape[1])), []
    for t in range(TIME):
        state = decay[t] * state @ (np.eye(k.shape[1]) - beta[t] * np.outer(k[t], k[t]))
        state = state + beta[t] * np.outer(v[t], k[t])
        reads.append(state @ q[t])
    return np.array(reads)


def elu_features(x: Array) -> Array:
    y = np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))
    return y / (y.sum(-1, keepdims=True) + 1e-6)


def dpfp_features(x: Array) -> Array:
    r = np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], -1)
    n = r.shape[-1]
    y = np.concatenate([[[row[j] * row[(j - i) % n] for j in range(n)] for row in r] for i in (1, 2)], -1)
    return y / (y.sum(-1, keepdims=True) + 1e-6)


def plain_delta(features: Callable[[Array], Array], factor: float) -> Head:
    def head(q: Array, k: Array, v: Array, gates: Array, p: Params, h: int, causal: bool) -> Array:
        return factor * recurrent(features(q), features(k), v, sigmoid(gates[0]), np.ones(TIME))

    return head


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def rms(x: Array, scale: Array) -> Array:
    return scale * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def decays(gate: Array, p: Params, h: int) -> Array:
    return np.exp(-np.exp(p["forget.log_rate"][h]) * softplus(gate + p["forget.step_bias"][h]))


def modern_delta(top: float, gated: bool) -> Head:
    def head(q: Array, k: Array, v: Array, gates: Array, p: Params, h: int, causal: bool) -> Array:
        decay = decays(gates[1], p, h) if gated else np.ones(TIME)
        return rms(recurrent(unit(q), unit(k), v, top * sigmoid(gates[0]), decay), p["scale.weight"])

    return head


def gated_linear(q: Array, k: Array, v: Array, gates: Array, p: Params, h: int, causal: bool) -> Array:
    state, reads = np.zeros((WIDTH, WIDTH)), []
    for t, decay in enumerate(decays(gates[0], p, h)):
        state = decay * state + np.outer(v[t], k[t])
        reads.append(state @ q[t] / math.sqrt(WIDTH))
    return rms(np.array(reads), p["scale.weight"])


REFERENCES: dict[str, Head] = {
    "softmax-attention": weighted(lambda q, k, t, keys, p, h, causal: softmax(dots(q, k, keys))),
    "sparsemax-attention": weighted(lambda q, k, t, keys, p, h, causal: sparsemax(dots(q, k, keys))),
    "rel-bias-attention": weighted(biased),
    "urpe": weighted(
        lambda q, k, t, keys, p, h, causal: (
            biased(q, k, t, keys, p, h, causal) * table(p["factor.values"], h, t, keys, causal)
        )
    ),
    "rela-g": weighted(lambda q, k, t, keys, p, h, causal: np.maximum(dots(q, k, keys), 0)),
    "idw-attention": weighted(inverse_distance),
    "linear-attn": weighted(linear),
    "deltanet": plain_delta(elu_features, 1.0),
    "deltanet-dpfp": plain_delta(dpfp_features, 1 / math.sqrt(WIDTH)),
    "deltanet-l2": modern_delta(1.0, gated=False),
    "deltanet-neg": modern_delta(2.0, gated=False),
    "gated-deltanet": modern_delta(1.0, gated=True),
    "gated-linear": gated_linear,
    "reluformer": weighted(
        lambda q, k, t, keys, p, h, causal: (
            np.maximum(dots(q, k, keys), 0) / (math.exp(p["log_gamma"][h]) * math.sqrt(len(keys) / 2))
        )
    ),
}


# Mixers of another build: (parameters, tokens (time, features), causal) -> (time, features).


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return weight * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) + bias


def hgrn(p: Params, x: Array, causal: bool, bound: Array | float = 0.0) -> Array:
    parts = x @ p["inputs.weight"].T + p["inputs.bias"]
    c = silu(parts[:, :FEATURES]) + 1j * silu(parts[:, FEATURES : 2 * FEATURES])
    keep = bound + (1 - bound) * sigmoid(parts[:, 2 * FEATURES : 3 * FEATURES])
    h, rows = np.zeros(FEATURES, dtype=complex), []
    for t in range(len(x)):
        h = keep[t] * np.exp(1j * p["theta"]) * h + (1 - keep[t]) * c[t]
        rows.append(np.concatenate([h.real, h.imag]))
    normal = layer_norm(np.array(rows), p["scale.weight"], p["scale.bias"])
    return (normal * silu(parts[:, 3 * FEATURES :])) @ p["out.weight"].T + p["out.bias"]


def hgrn_real(p: Params, x: Array, causal: bool) -> Array:
    c, gate, out = np.split(x @ p["inputs.weight"].T, 3, axis=1)
    h, rows = np.zeros(FEATURES), []
    for t in range(len(x)):
        keep = sigmoid(gate[t])
        h = keep * h + (1 - keep) * silu(c[t])
        rows.append(h / math.sqrt((h**2).mean() + 1e-5) * p["scale.weight"])
    return (np.array(rows) * silu(out)) @ p["out.weight"].T


def mamba(sign: int) -> Callable[[Params, Array, bool], Array]:
    def whole(p: Params, x: Array, causal: bool) -> Array:
        values, gate = np.split(x @ p["inputs.weight"].T, 2, axis=1)
        values = convolved(values, p["conv.weight"], p["conv.bias"])
        rates = -np.exp(p["space.log_rate"])
        h, rows = np.zeros(rates.shape), []
        for u in values:
            rank, b, c = np.split(p["select.weight"] @ u, [1, 17])
            step = softplus(p["step.weight"] @ rank + p["space.step_bias"])
            keep = np.exp(np.outer(step, np.ones(16)) * rates)
            h = (keep if sign > 0 else 2 * keep - 1) * h + np.outer(step * u, b)
            rows.append(h @ c + p["space.skip"] * u)
        return (np.array(rows) * silu(gate)) @ p["out.weight"].T

    return whole


def tropical(distance: Callable[[Array], float]) -> Callable[[Params, Array, bool], Array]:
    def whole(p: Params, x: Array, causal: bool) -> Array:
        z, mixed = np.log1p(np.maximum(x, 0)), np.zeros_like(x)
        for h in range(HEADS):
            own = slice(h * WIDTH, (h + 1) * WIDTH)
            q, k, v = (
                np.array([[max(z[t, own] + w) for w in p[f"{n}.weight"]] for t in range(TIME)])
                for n in ("query", "key", "value")
            )
            for t in range(TIME):
                reach = [-distance(q[t] - k[s]) + v[s] for s in seen(t, causal)]
                mixed[t, own] = np.max(reach, axis=0)
        return np.expm1(mixed) @ p["out.weight"].T

    return whole


WHOLE: dict[str, Callable[[Params, Array, bool], Array]] = {
    "hgrn": hgrn,
    "hgrn-real": hgrn_real,
    "mamba": mamba(1),
    "mamba-neg": mamba(-1),
    "tropical": tropical(lambda d: d.max() - d.min()),
    "tropical-asym": tropical(lambda d: sum(d - d.min())),
}
STATES = {"hgrn", "hgrn-real", "mamba", "mamba-neg"}
RECURRENT = {"deltanet", "deltanet-dpfp", "deltanet-l2", "deltanet-neg", "gated-deltanet", "gated-linear"} | STATES
CASES = [(name, causal) for name in NAMES for causal in (True, False) if causal or name not in RECURRENT]


def made(name: str, causal: bool = True, **hp: object) -> nn.Module:
    """The mixer in float64, every parameter moved from its start."""
    torch.manual_seed(0)
    module = suite.method(name).make(FEATURES, HEADS, causal, **hp).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module


def tokens(batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, TIME, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def convolved(parts: Array, kernel: Array, bias: Array | float = 0.0) -> Array:
    """Causal depthwise convolution of (time, channels), then SiLU."""
    size = kernel.shape[-1]
    padded = np.concatenate([np.zeros((size - 1, parts.shape[1])), parts])
    return silu(np.array([(padded[t : t + size] * kernel[:, 0].T).sum(0) for t in range(TIME)]) + bias)


def reference(name: str, module: nn.Module, x: Array, causal: bool) -> Array:
    """Output for one sequence (time, features)."""
    p = {k: v.detach().numpy() for k, v in module.named_parameters()}
    if name in WHOLE:
        return WHOLE[name](p, x, causal)
    parts = x @ p["qkv.weight"].T
    if "qkv.bias" in p:
        parts = parts + p["qkv.bias"]
    streams, gates = parts[:, : 3 * FEATURES], parts[:, 3 * FEATURES :]
    if "conv.conv.weight" in p:
        streams = convolved(streams, p["conv.conv.weight"])
    q, k, v = (streams[:, i * FEATURES : (i + 1) * FEATURES] for i in range(3))
    heads = []
    for h in range(HEADS):
        own = slice(h * WIDTH, (h + 1) * WIDTH)
        gate = gates[:, h::HEADS].T
        heads.append(REFERENCES[name](q[:, own], k[:, own], v[:, own], gate, p, h, causal))
    mixed = np.concatenate(heads, axis=1)
    if name == "rela-g":
        gate = sigmoid(p["norm.gate"] * mixed)
        mixed = p["norm.weight"] * mixed / np.sqrt((mixed**2).mean(1, keepdims=True) + 1e-8) * gate
    return mixed @ p["out.weight"].T + p.get("out.bias", np.zeros(FEATURES))


def test_every_registered_attention_has_a_reference() -> None:
    assert set(REFERENCES) | set(WHOLE) == set(NAMES)


@pytest.mark.parametrize(("name", "causal"), CASES)
def test_output_agrees_with_the_formula(name: str, causal: bool) -> None:
    module, x = made(name, causal), tokens()
    wanted = np.stack([reference(name, module, sequence, causal) for sequence in x.numpy()])
    np.testing.assert_allclose(module(x).detach().numpy(), wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["urpe", "rel-bias-attention"])
@pytest.mark.parametrize("causal", [True, False])
def test_offsets_past_the_farthest_share_its_entry(name: str, causal: bool) -> None:
    farthest = 3
    module, x = made(name, causal, farthest=farthest), tokens()
    assert module.bias.values.shape == (HEADS, 4 if causal else 7)
    wanted = np.stack([reference(name, module, sequence, causal) for sequence in x.numpy()])
    np.testing.assert_allclose(module(x).detach().numpy(), wanted, rtol=1e-8, atol=1e-10)


def test_projections_may_have_biases() -> None:
    module, x = made("softmax-attention", bias=True), tokens()
    assert {n for n, _ in module.named_parameters()} == {"qkv.weight", "qkv.bias", "out.weight", "out.bias"}
    wanted = np.stack([reference("softmax-attention", module, s, True) for s in x.numpy()])
    np.testing.assert_allclose(module(x).detach().numpy(), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_the_future_does_not_change_the_past(name: str) -> None:
    module, x = made(name), tokens()
    changed = x.clone()
    changed[:, 5:] = tokens(seed=9)[:, 5:]
    before, after = module(x), module(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=1e-12, atol=1e-14)
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_flows_from_a_token_to_its_future(name: str) -> None:
    x = tokens().requires_grad_()
    (gradient,) = torch.autograd.grad(made(name).eval()(x)[:, 4].sum(), x)
    assert not gradient[:, 5:].any()
    assert gradient[:, 4].any()


@pytest.mark.parametrize("name", sorted(set(NAMES) - RECURRENT - {"urpe", "rel-bias-attention"}))
def test_without_a_mask_the_order_of_the_tokens_does_not_matter(name: str) -> None:
    module, x = made(name, causal=False), tokens()
    order = torch.randperm(TIME, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order])


@pytest.mark.parametrize("name", NAMES)
def test_sequences_of_a_batch_do_not_mix(name: str) -> None:
    module, x = made(name), tokens(batch=3)
    torch.testing.assert_close(module(x[1:2]), module(x)[1:2])


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_derivative(name: str) -> None:
    module, x = made(name).eval(), tokens(batch=1)[:, :5].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_token_and_long_sequences_keep_shape_type_and_are_finite(name: str, dtype: torch.dtype) -> None:
    module = suite.method(name).make(FEATURES, HEADS, True).to(dtype)
    for time in (1, 64, 200):
        x = torch.randn(2, time, FEATURES, generator=torch.Generator().manual_seed(time)).to(dtype)
        y = module(x.requires_grad_())
        assert y.shape == x.shape
        assert y.dtype == dtype
        assert torch.isfinite(y).all()
        assert torch.isfinite(torch.autograd.grad(y.float().square().mean(), x)[0]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0.0, 1e3])
def test_zero_and_large_tokens_give_finite_output_and_gradients(name: str, size: float) -> None:
    torch.manual_seed(0)
    module = suite.method(name).make(FEATURES, HEADS, True)
    x = (size * tokens().float()).requires_grad_()
    y = module(x)
    assert torch.isfinite(y).all()
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_state_goes_through_a_state_dict_that_holds_no_masks(name: str) -> None:
    module, other, x = made(name), made(name), tokens()
    module(x)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), module(x))
    assert module.state_dict().keys() == dict(module.named_parameters()).keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_made_without_gradients_serves_training_later(name: str) -> None:
    """Masks are cached: one made in inference mode must not poison a later backward pass."""
    module, x = suite.method(name).make(FEATURES, HEADS, True), torch.randn(1, 23, FEATURES)
    with torch.inference_mode():
        module(x)
    module(x).sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_the_output_projection_ends_the_residual_branch_and_tables_are_left_to_themselves(name: str) -> None:
    roles = {
        info.name: info for _, info in named_parameters(nn.ModuleDict({"mix": made(name), "head": nn.Linear(2, 2)}))
    }
    assert {n for n, info in roles.items() if info.residual_out} == {"mix.out.weight"}
    first = "inputs" if name in STATES else "out" if name in WHOLE else "qkv"
    assert roles[f"mix.{first}.weight"].role == roles["mix.out.weight"].role == "matrix"
    others = {n.rpartition(".")[2]: info.role for n, info in roles.items() if n.startswith("mix.")}
    wanted = dict.fromkeys(("values", "log_rate", "step_bias", "skip", "theta", "log_gamma"), "other") | {
        "gate": "norm"
    }
    assert {k: v for k, v in others.items() if k in wanted} == {k: v for k, v in wanted.items() if k in others}


@pytest.mark.parametrize("name", NAMES)
def test_the_output_projection_is_registered_after_every_inner_norm(name: str) -> None:
    """Registration order says where a residual branch ends."""
    order = [n for n, _ in made(name).named_modules()]
    inner = [n for n in ("norm", "scale") if n in order]
    assert all(order.index(n) < order.index("out") for n in inner)


@pytest.mark.parametrize("name", NAMES)
def test_heads_must_divide_the_features(name: str) -> None:
    with pytest.raises(ValueError, match="5 heads"):
        suite.method(name).make(FEATURES, 5, True)


@pytest.mark.parametrize("name", sorted(RECURRENT))
def test_recurrences_refuse_to_see_the_future(name: str) -> None:
    with pytest.raises(ValueError, match="causal"):
        suite.method(name).make(FEATURES, HEADS, False)


@pytest.mark.parametrize("name", NAMES)
def test_a_token_that_is_no_number_gives_no_number_to_those_that_see_it(name: str) -> None:
    module, x = made(name, True), tokens()
    x[0, 3, 2] = math.nan
    y = module(x)
    assert y[0, 3:].isnan().any(-1).all()
    assert y[1:].isfinite().all()


def test_sparsemax_weights_sum_to_one_whatever_the_scores_size() -> None:
    scores = torch.tensor([[2.0, 1.0, -1.0], [4096.0, 4095.75, 0.0], [3e7, 3e7, 1e7], [1e30, -1e30, 0.0]])
    wanted = torch.tensor([[1.0, 0.0, 0.0], [0.625, 0.375, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(sparsemax_weights(scores), wanted, rtol=0, atol=1e-7)


def test_urpe_starts_as_softmax_attention() -> None:
    urpe, plain = (suite.method(n).make(FEATURES, HEADS, True) for n in ("urpe", "softmax-attention"))
    plain.load_state_dict({k: v for k, v in urpe.state_dict().items() if k in plain.state_dict()})
    x = tokens().float()
    torch.testing.assert_close(urpe(x), plain(x))


def test_delta_rule_overwrites_a_repeated_unit_key_at_full_strength() -> None:
    """With β = 1 and the same key, the second value replaces the first; with β = 2 it is reflected."""
    from baselines.attention.delta import delta_rule

    k = torch.tensor([[0.6, 0.8], [0.6, 0.8]], dtype=torch.float64)
    v = torch.tensor([[1.0, 2.0], [5.0, -1.0]], dtype=torch.float64)
    decay = torch.ones(2, 2, dtype=torch.float64).tril()
    for beta, last in ((1.0, v[1]), (2.0, 2 * v[1] - 2 * v[0])):
        reads = delta_rule(k, k, v, torch.full((2,), beta, dtype=torch.float64), decay)
        torch.testing.assert_close(reads[1], last)


def test_a_linear_recurrence_by_doubling_is_the_one_step_by_step() -> None:
    from baselines.attention import recurrence

    class OnGpu(Tensor):
        is_cuda = True

    generator = torch.Generator().manual_seed(0)
    for time in (1, 2, 7, 16):
        a, u = (torch.randn(time, 3, dtype=torch.complex128, generator=generator) for _ in range(2))
        doubled = recurrence.run(a.as_subclass(OnGpu), u.as_subclass(OnGpu)).as_subclass(Tensor)
        torch.testing.assert_close(doubled, recurrence.run(a, u))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_gradient_of_a_linear_recurrence_is_its_derivative(dtype: torch.dtype) -> None:
    from baselines.attention.recurrence import linear_recurrence

    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(5, 2, 3, dtype=dtype, generator=generator, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(linear_recurrence, pair)


def test_hgrn_layers_share_lower_bounds_that_grow_with_depth() -> None:
    stack = [made("hgrn") for _ in range(3)]
    for index, layer in enumerate(stack):
        layer.place(index, stack)
    assert [hasattr(layer, "bounds") for layer in stack] == [True, False, False]
    torch.testing.assert_close(stack[0].bounds(2), torch.full((FEATURES,), 2 / 3))
    logits = torch.randn(3, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    stack[0].bounds.double().logits.data.copy_(logits)
    shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(0)
    x = tokens(batch=1)
    for index, layer in enumerate(stack):
        p = {k: v.detach().numpy() for k, v in layer.named_parameters()}
        wanted = hgrn(p, x[0].numpy(), True, shares[:index].sum(0))
        np.testing.assert_allclose(layer(x)[0].detach().numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_hgrn_bounds_are_shared_and_trained_in_a_model_and_its_copies() -> None:
    import copy

    from suite.runner.execute import make_workload
    from suite.runner.spec import RunSpec
    from suite.train.loop import Trainer

    spec = RunSpec("markov-gpt", "hgrn-real", "smoke")
    trainer = Trainer(make_workload(spec), spec.recipe, spec.given)
    model = trainer.workload.model
    (bounds,) = [(n, p) for n, p in model.named_parameters() if n.endswith("bounds.logits")]
    twin = copy.deepcopy(model)
    for _ in range(3):
        trainer.step()
    assert bounds[1].any()
    assert not dict(twin.named_parameters())[bounds[0]].any()
    owners = [m.stack[0] for m in twin.modules() if getattr(m, "stack", None)]
    assert len(owners) > 1
    assert all(any(owner is m for m in twin.modules()) for owner in owners)


def test_reluformer_adds_its_penalties_to_the_gradient_in_training_only() -> None:
    """Against autograd on the loss with both terms written out."""
    module, x = made("reluformer", penalty=0.3, margin=0.5), tokens()
    total = torch.zeros((), dtype=torch.float64)
    q, k, _, _ = module.split(x)
    rows = 0
    for b in range(len(x)):
        for h in range(HEADS):
            for t in range(TIME):
                scores = (k[b, h, : t + 1] @ q[b, h, t]) / math.sqrt(WIDTH)
                a = scores.clamp(min=0) / module.log_gamma[h].exp() / math.sqrt((t + 1) / 2)
                if not a.any():
                    continue
                share = a[a > 0] / a.sum()
                entropy = -(share * share.log()).sum()
                total = total + a.sum().log().abs() + (entropy - 0.5 * math.log(max(t + 1, 2))).clamp(min=0)
                rows += 1
    loss = module.eval()(x).square().mean()
    parameters = list(module.parameters())
    wanted = torch.autograd.grad(loss + 0.3 * total / rows, parameters)
    plain = torch.autograd.grad(module(x).square().mean(), parameters)
    penalised = torch.autograd.grad(module.train()(x).square().mean(), parameters)
    for got, want in zip(penalised, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(plain[0], penalised[0], rtol=1e-3, atol=0)


def test_negative_mamba_can_flip_its_state_at_every_token() -> None:
    """exp(ΔA) near 0 gives a factor near -1: the state alternates where the plain form forgets."""
    exponent = torch.tensor([-50.0, 0.0])
    factors = {n: suite.method(n).make(FEATURES, HEADS, True).decay(exponent).tolist() for n in ("mamba", "mamba-neg")}
    assert factors["mamba"] == pytest.approx([0.0, 1.0])
    assert factors["mamba-neg"] == pytest.approx([-1.0, 1.0])


@pytest.mark.parametrize("name", ["mamba", "mamba-neg"])
def test_mamba_has_about_the_parameters_of_attention(name: str) -> None:
    counts = [
        sum(p.numel() for p in suite.method(n).make(64, 4, True).parameters()) for n in (name, "softmax-attention")
    ]
    assert counts[0] == pytest.approx(counts[1], rel=0.1)
