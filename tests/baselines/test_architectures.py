"""Contract of every registered architecture, and an independent reference for each, in loops and sums of numpy.

A new architecture is tested because it is registered; it fails until `REFERENCES` holds a second way to compute it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import suite
from baselines.architecture.adapool import AdaPool, SimilarityPool, SoftPool, windows
from baselines.architecture.subdeq import FixedPoint
from suite.recipe import recipe_for
from suite.registry import registry
from suite.train.build import Build, Interface
from suite.train.derivatives import autograd_fields
from suite.train.loop import Trainer
from suite.train.roles import named_parameters
from suite.train.workload import Context, DoesNotApply
from tasks.vision.images import Normalise

METHODS = suite.methods(slot="architecture")
TASKS = [t for t in suite.tasks() if "architecture" in t.slots and not t.data]
HOME = {"vision": "shapes-cnn", "language": "hmm-gpt", "pde": "poisson-5"}
POOLS = ("adapool", "edscw", "softpool")
OWN = (*POOLS, "hypernet-conv")  # start from the task's own network
Array = np.ndarray
Params = dict[str, Array]

every_architecture = pytest.mark.parametrize("method", METHODS, ids=[m.name for m in METHODS])


def context(task: str, name: str = "reference", tier: str = "smoke", seed: int = 0, **hp: Any) -> Context:
    info = registry().task(task)
    recipe = recipe_for(info, name, hp)
    return Context(info, info.tiers[tier], tier, recipe, seed, torch.device("cpu"))


def home(method: suite.Method) -> str:
    return next(task for family, task in HOME.items() if family in method.families)


def network(task: str, name: str, tier: str = "smoke", **hp: Any) -> nn.Module:
    """The named architecture as the task builds it, initialised."""
    made = context(task, name, tier, **hp)
    torch.manual_seed(0)
    factory = made.task.factory(made.task)
    build = Build(made)
    if made.task.family == "pde":
        return build.finish(factory.network(build, factory.domain.dims, made.tier))
    return build.finish(factory.model(build, made.tier))


def inputs(task: str, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    if task == "hmm-gpt":
        return torch.randint(0, 17, (count, 9), generator=generator)
    if task == "shapes-cnn":
        return torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return torch.rand(count, 5, generator=generator) * 2 - 1


def stirred(model: nn.Module) -> nn.Module:
    """`model` with every parameter and running statistic moved off its initial value, in place."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and "scale" not in name and "shift" not in name:
                tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
    return model


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# ---------------------------------------------------------------- every architecture


@every_architecture
def test_outputs_have_the_tasks_shape_and_dtype(method):
    task = home(method)
    x = inputs(task)
    shape = {"shapes-cnn": (3, 10), "hmm-gpt": (3, 9, 16), "poisson-5": (3, 1)}[task]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        model = network(task, method.name).to(dtype)
        y = model(x.to(dtype) if x.is_floating_point() else x)
        assert y.shape == shape
        assert y.dtype == dtype
        y.float().square().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_architecture
def test_examples_do_not_mix_and_evaluation_is_deterministic(method):
    task = home(method)
    model, x = stirred(network(task, method.name)).double().eval(), inputs(task, 4)
    x = x.double() if x.is_floating_point() else x
    with torch.no_grad():
        together = model(x)
        assert torch.equal(model(x), together)
        tolerance = 1e-3 if method.name == "subdeq" else 1e-12  # the solver stops for all examples at once
        torch.testing.assert_close(
            torch.cat([model(row) for row in x.split(1)]), together, rtol=tolerance, atol=tolerance
        )


@every_architecture
def test_state_goes_through_a_state_dict_and_copies_stand_on_their_own(method):
    task = home(method)
    model, other = stirred(network(task, method.name)).eval(), network(task, method.name).eval()
    other.load_state_dict(model.state_dict())
    twin, x = copy.deepcopy(model), inputs(task)
    with torch.no_grad():
        before = model(x)
        assert torch.equal(other(x), before)
        assert torch.equal(twin(x), before)
        stirred(stirred(twin))
        assert torch.equal(model(x), before)
        assert not torch.equal(twin(x), before)


@every_architecture
def test_there_is_one_head_and_four_steps_move_every_weight(method):
    made = context(home(method), method.name)
    work = made.task.factory(made.task).workload(made)
    assert sum(info.role == "head" for p, info in named_parameters(work.model) if p.ndim > 1) == 1
    before = {name: p.detach().clone() for name, p in work.model.named_parameters()}
    trainer = Trainer(work, made.recipe, 100)
    assert all(math.isfinite(float(trainer.step())) for _ in range(4))
    assert [name for name, p in work.model.named_parameters() if torch.equal(p, before[name])] == []
    assert work.sites["architecture"] == 1


@pytest.mark.parametrize("task", [t.name for t in TASKS if t.family != "pde"] + ["burgers", "poisson-5"])
@every_architecture
def test_parameters_are_about_those_of_the_tasks_own_network(method, task):
    if not method.fits(registry().task(task)):
        return
    own, found = (parameters(network(task, name)) for name in ("reference", method.name))
    if method.name == "hypernet-conv":
        assert found < own / 4
    else:
        assert abs(found - own) <= 0.06 * own


@pytest.mark.slow
@pytest.mark.parametrize("name", ["i-revnet", "parallel-shallow", "subdeq", "trellisnet", "hyperlstm", "xnet"])
def test_parameters_agree_in_the_standard_tier(name):
    task = home(suite.method(name))
    own, found = (parameters(network(task, n, "standard")) for n in ("reference", name))
    assert abs(found - own) <= 0.05 * own


@pytest.mark.slow
@pytest.mark.parametrize("task", [t.name for t in TASKS])
def test_every_architecture_takes_a_step_on_every_task_it_fits(task):
    for method in METHODS:
        if method.fits(registry().task(task)):
            made = context(task, method.name)
            trainer = Trainer(made.task.factory(made.task).workload(made), made.recipe, 100)
            assert math.isfinite(float(trainer.step())), method.name


@pytest.mark.parametrize("task", [t.name for t in TASKS if t.family != "pde"] + ["burgers"])
def test_without_an_architecture_a_task_has_its_own_network(task):
    made = context(task)
    asked: list[str] = []
    kinds = {"language": "tokens", "pde": "points", "vision": "images"}

    class Asked(Build):
        def network(self, interface: Interface) -> nn.Module:
            asked.append(interface.kind)
            own = interface.own()
            assert sum(p.numel() for p in own.parameters()) == self.parameters(interface.own)
            return own

    factory = made.task.factory(made.task)
    build = Asked(made)
    arguments = (build, 2, made.tier) if made.task.family == "pde" else (build, made.tier)
    own = (factory.network if made.task.family == "pde" else factory.model)(*arguments)
    names = [name for name, _ in network(task, "reference").named_parameters()]
    assert [name for name, _ in own.named_parameters()] == names
    assert asked == [kinds[made.task.family]]


def test_counting_parameters_leaves_sites_and_random_streams_alone():
    build = Build(context("shapes-cnn"))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert build.parameters(lambda: nn.Sequential(nn.Linear(3, 4), build.activation(4), build.norm(4))) == 24
    assert not +build.sites
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", OWN)
def test_changes_of_the_own_network_keep_its_other_weights(name):
    plain = dict(network("shapes-cnn", "reference").named_parameters())
    model = dict(network("shapes-cnn", name).named_parameters())
    shared = plain.keys() & model.keys()
    assert len(shared) == (len(plain) if name in POOLS else len(plain) - 5)
    assert all(torch.equal(plain[key], model[key]) for key in shared)


# ---------------------------------------------------------------- references
#
# A reference takes parameters and buffers by name and normalised inputs, all float64, and gives logits in
# evaluation mode with the home task's norm (batch norm) and activation (ReLU).


def convolution(x: Array, w: Array, stride: int = 1) -> Array:
    """3x3 convolution with a border of zeros."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", views, w)


def batch_norm(p: Params, name: str, x: Array) -> Array:
    def along(v: Array) -> Array:
        return v[:, None, None]

    scale = p[f"{name}.weight"] / np.sqrt(p[f"{name}.running_var"] + 1e-5)
    return along(scale) * (x - along(p[f"{name}.running_mean"])) + along(p[f"{name}.bias"])


def relu(x: Array) -> Array:
    return (x + np.abs(x)) / 2


def sigmoid(x: Array) -> Array:
    return 0.5 + np.tanh(x / 2) / 2


def maxima(x: Array) -> Array:
    return np.maximum.reduce([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])


def head(p: Params, name: str, x: Array) -> Array:
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0.0)


def xnet(p: Params, x: Array) -> Array:
    y = head(p, "inner", x.reshape(len(x), -1))
    poles = 1 / (y - 1j * p["activation.d"])
    return head(
        p, "head", p["activation.lambda1"] * poles.real + p["activation.lambda2"] * poles.imag / p["activation.d"]
    )


def residual(parallel: bool) -> Callable[[Params, Array], Array]:
    def layer(p: Params, name: str, x: Array) -> Array:
        return relu(batch_norm(p, f"{name}.1", convolution(x, p[f"{name}.0.weight"])))

    def net(p: Params, x: Array) -> Array:
        for entry, stack, pool in (("1", "2", True), ("4", "5", True), ("7", "8", False)):
            y = x = layer(p, entry, x)
            for i in range(3):
                y = y + layer(p, f"{stack}.layers.{i}", x if parallel else y)
            x = maxima(y) if pool else y
        return head(p, "11", x.mean((2, 3)))

    return net


def i_revnet(p: Params, x: Array) -> Array:
    def squeeze(x: Array) -> Array:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)

    width = p["blocks.0.function.0.weight"].shape[1]
    x1, x2 = np.zeros((2, len(x), width, *x.shape[2:]))
    x1[:, 0], x2[:, :2] = x[:, 0], x[:, 1:]
    for i in range(6):
        y, stride, at = x2, 2 if i in (2, 4) else 1, 0
        for k in range(3):
            if i or k:
                y = relu(batch_norm(p, f"blocks.{i}.function.{at}", y))
                at += 2
            y = convolution(y, p[f"blocks.{i}.function.{at}.weight"], stride if k == 0 else 1)
            at += 1
        if stride == 2:
            x1, x2 = squeeze(x1), squeeze(x2)
        x1, x2 = x2, y + x1
    both = relu(batch_norm(p, "norm", np.concatenate([x1, x2], axis=1)))
    return head(p, "head", both.mean((2, 3)))


def subdeq(p: Params, x: Array) -> Array:
    """The plain fixed-point iteration, long enough."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)
    injected = relu(convolution(x, p["2.inject.weight"]) + p["2.inject.bias"][:, None, None]) + 1.603
    z = np.ones_like(injected)
    for _ in range(60):
        z = np.tanh(convolution(z, p["2.mix.weight"])) + injected
        z = z / np.abs(z).max(axis=2, keepdims=True)
    return head(p, "6", batch_norm(p, "3", z).mean((2, 3)))


def trellisnet(p: Params, x: Array) -> Array:
    """Place by place: state (level, time) from the level below at this time and the one before."""

    def kernel(name: str) -> Array:
        g, v = (p[f"trellis.{name}.parametrizations.weight.original{i}"] for i in (0, 1))
        return g * v / np.sqrt((v**2).sum((1, 2), keepdims=True))

    inject, mix, bias = kernel("inject"), kernel("mix"), p["trellis.mix.bias"]
    hidden, features = mix.shape[1], p["tokens.weight"].shape[1]
    logits = []
    for row in x.astype(int):
        embedded = np.concatenate([np.zeros((1, features)), p["tokens.weight"][row]])
        z, c = np.zeros((2, len(row) + 1, hidden))
        for _ in range(20):
            above_z, above_c = np.zeros((2, len(row) + 1, hidden))
            for t in range(1, len(row) + 1):
                pre = bias + sum(inject[:, :, k] @ embedded[t - 1 + k] + mix[:, :, k] @ z[t - 1 + k] for k in (0, 1))
                i, o, g, f = np.split(pre, 4)
                above_c[t] = sigmoid(f) * c[t - 1] + sigmoid(i) * np.tanh(g)
                above_z[t] = sigmoid(o) * np.tanh(above_c[t])
            z, c = above_z, above_c
        logits.append(z[1:, -features:] @ p["head.weight"].T + p["head.bias"])
    return np.array(logits)


def layer_norm(x: Array, gain: Array, bias: Array) -> Array:
    return gain * (x - x.mean()) / np.sqrt(x.var() + 1e-3) + bias


def cell(p: Params, name: str, pre: list[Array], c: Array) -> tuple[Array, Array]:
    i, j, f, o = (
        layer_norm(v, p[f"{name}.gate_norm.gain"][g], p[f"{name}.gate_norm.bias"][g]) for g, v in enumerate(pre)
    )
    c = c * sigmoid(f + 1) + sigmoid(i) * np.tanh(j)
    return np.tanh(layer_norm(c, p[f"{name}.cell_norm.gain"][0], p[f"{name}.cell_norm.bias"][0])) * sigmoid(o), c


def hyperlstm(p: Params, x: Array) -> Array:
    """Gate by gate, as the cell is written."""
    units, small = p["recurrent.weight"].shape[1], p["small_recurrent.weight"].shape[1]
    s = {key: p[f"scaling.{key}"] for key in ("factor_code", "factor_bias", "factor", "shift_code", "shift")}
    logits = []
    for row in x.astype(int):
        (h, c), (hh, hc), out = np.zeros((2, units)), np.zeros((2, small)), []
        for token in row:
            e = p["tokens.weight"][token]
            pre = p["small_input.weight"] @ np.concatenate([e, h]) + p["small_recurrent.weight"] @ hh
            hh, hc = cell(p, "small_cell", np.split(pre, 4), hc)
            of_x, of_h = np.split(p["input.weight"] @ e, 4), np.split(p["recurrent.weight"] @ h, 4)
            gates = []
            for g, b in enumerate(np.split(p["input.bias"], 4)):
                alpha = [s["factor"][k] @ (s["factor_code"][k] @ hh + s["factor_bias"][k]) for k in (g, 4 + g)]
                beta = s["shift"][g] @ (s["shift_code"][g] @ hh)
                gates.append(alpha[0] * of_x[g] + alpha[1] * of_h[g] + beta + b)
            h, c = cell(p, "cell", gates, c)
            out.append(p["head.weight"] @ h + p["head.bias"])
        logits.append(out)
    return np.array(logits)


def convnet(p: Params, x: Array, pool: Callable[[Array, int], Array]) -> Array:
    """The task's own network, its two 2x2 maxima replaced by `pool`, kernels as they are given."""
    position = 1
    for stage in range(6):
        x = convolution(x, p[f"{position}.weight"])
        position += 1
        if stage in (1, 3):
            x = pool(x, position)
            position += 1
        x = relu(batch_norm(p, f"{position}", x))
        position += 2
    return head(p, f"{position + 2}", x.mean((2, 3)))


def pooled(p: Params, x: Array, position: int, kind: str) -> Array:
    """Window by window."""
    n, c, h, w = x.shape
    out = np.zeros((n, c, h // 2, w // 2))
    for i, j in np.ndindex(h // 2, w // 2):
        window = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(n, c, 4)
        mean = window.mean(-1, keepdims=True)
        alike = np.exp(2 * np.abs(window * mean) / (window**2 + mean**2))
        soft = np.exp(window)
        by_similarity = (window * alike).sum(-1) / alike.sum(-1)
        by_size = (window * soft).sum(-1) / soft.sum(-1)
        beta = {"edscw": 1.0, "softpool": 0.0}.get(kind)
        if beta is None:
            beta = min(max(p[f"{position}.beta"][i, j], 0.0), 1.0)
        out[:, :, i, j] = beta * by_similarity + (1 - beta) * by_size
    return out


def pooling(kind: str) -> Callable[[Params, Array], Array]:
    return lambda p, x: convnet(p, x, lambda y, position: pooled(p, y, position, kind))


def hypernet_conv(p: Params, x: Array) -> Array:
    """Kernels block by block from their codes."""
    (prefix,) = {key.rpartition(".")[0] for key in p if key.endswith("0.network.rows")}
    rows, rows_bias, kernels, kernels_bias = (
        p[f"{prefix}.{part}"] for part in ("rows", "rows_bias", "kernels", "kernels_bias")
    )
    plain = dict(p)
    for key, codes in p.items():
        if not key.endswith("parametrizations.weight.original"):
            continue
        m, n, _ = codes.shape
        weight = np.zeros((16 * m, 16 * n, 3, 3))
        for a, b, channel in np.ndindex(m, n, 16):
            row = (codes[a, b] @ rows + rows_bias).reshape(16, -1)[channel]
            weight[16 * a : 16 * a + 16, 16 * b + channel] = (row @ kernels + kernels_bias).reshape(16, 3, 3)
        plain[f"{key.partition('.')[0]}.weight"] = weight
    return convnet(plain, x, lambda y, position: maxima(y))


REFERENCES: dict[str, Callable[[Params, Array], Array]] = {
    "adapool": pooling("adapool"),
    "edscw": pooling("edscw"),
    "hyperlstm": hyperlstm,
    "hypernet-conv": hypernet_conv,
    "i-revnet": i_revnet,
    "parallel-shallow": residual(parallel=True),
    "residual-stack": residual(parallel=False),
    "softpool": pooling("softpool"),
    "subdeq": subdeq,
    "trellisnet": trellisnet,
    "xnet": xnet,
}
EXACTLY = {"subdeq": {"tolerance": 1e-12, "iterations": 200}}


@every_architecture
def test_an_independent_reference_exists(method):
    assert method.name in REFERENCES, f"add a second way to compute {method.name!r} to REFERENCES"


@pytest.mark.parametrize("name", REFERENCES)
def test_architectures_agree_with_the_reference(name):
    method = suite.method(name)
    task = home(method)
    model = stirred(network(task, name, **EXACTLY.get(name, {})).double()).eval()
    x = inputs(task, 2)
    stored = {key: value.numpy() for key, value in model.state_dict().items()}
    seen = normalised(model, x).numpy() if task == "shapes-cnn" else x.numpy()
    x = x.double() if x.is_floating_point() else x
    expected = REFERENCES[name](stored, seen)
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-7, atol=1e-8)


def normalised(model: nn.Module, x: Tensor) -> Tensor:
    (first,) = [part for part in model.modules() if isinstance(part, Normalise)]
    return first(x)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", [m.name for m in METHODS])
def test_gradients_are_derivatives_of_the_loss(name):
    """Along a direction in all parameters, by central differences; the pools with their exact gradient."""
    method = suite.method(name)
    task, hp = home(method), {"exact": True} if method.surrogate else EXACTLY.get(name, {})
    model, x = stirred(network(task, name, **hp).double()).eval(), inputs(task, 2)
    x = x.double() if x.is_floating_point() else x
    names, values = zip(*((n, p.detach()) for n, p in model.named_parameters()), strict=True)
    generator = torch.Generator().manual_seed(4)
    directions = [torch.randn(v.shape, generator=generator, dtype=v.dtype) / v.numel() ** 0.5 for v in values]

    def loss(step: float | Tensor) -> Tensor:
        moved = {n: v + step * d for n, v, d in zip(names, values, directions, strict=True)}
        return functional_call(model, moved, (x,)).square().sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(step), step)
    h = 1e-6
    with torch.no_grad():
        difference = (loss(h) - loss(-h)) / (2 * h)
    torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("pool", "beta"), [(SoftPool, 0.0), (SimilarityPool, 1.0), (AdaPool, 0.4)])
def test_pools_hold_their_weights_constant_in_the_published_backward_pass(pool, beta):
    module = (pool(2, False, (3, 2)) if pool is AdaPool else pool(2, False)).double()
    if pool is AdaPool:
        nn.init.constant_(module.beta, beta)
    x = torch.randn(1, 2, 6, 4, dtype=torch.float64, requires_grad=True)
    module(x).sum().backward()
    window = x.detach()[0, 1, 2:4, :2].flatten().numpy()
    mean = window.mean()
    soft, alike = np.exp(window), np.exp(2 * np.abs(window * mean) / (window**2 + mean**2))
    expected = beta * alike / alike.sum() + (1 - beta) * soft / soft.sum()
    np.testing.assert_allclose(x.grad[0, 1, 2:4, :2].flatten().numpy(), expected, rtol=1e-12)


def test_adapools_beta_is_clipped_and_learns_beyond_its_bounds():
    module = AdaPool(2, False, (1, 1)).double()
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    ends = [pool(2, False)(x) for pool in (SoftPool, SimilarityPool)]
    for beta, expected in ((-2.0, ends[0]), (0.25, 0.75 * ends[0] + 0.25 * ends[1]), (3.0, ends[1])):
        nn.init.constant_(module.beta, beta)
        module.zero_grad()
        y = module(x)
        y.sum().backward()
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(module.beta.grad, (ends[1] - ends[0]).sum().expand(1, 1))


def test_adapool_starts_with_clipped_normal_betas_for_every_place():
    model = network("shapes-cnn", "adapool")
    betas = [part.beta.detach() for part in model.modules() if isinstance(part, AdaPool)]
    assert [tuple(beta.shape) for beta in betas] == [(8, 8), (4, 4)]
    assert all(((beta >= 0) & (beta <= 1)).all() for beta in betas)
    assert 0.3 < float((torch.cat([b.flatten() for b in betas]) == 0).float().mean()) < 0.7


def test_adapool_takes_the_place_of_means_as_of_maxima():
    for task, own, count in (("shapes-cnn", nn.MaxPool2d, 2), ("digits-cnn", nn.AvgPool2d, 1)):
        kinds = [[type(part) for part in network(task, name).modules()] for name in ("reference", "adapool")]
        assert [(k.count(own), k.count(AdaPool)) for k in kinds] == [(count, 0), (0, count)]


def test_pools_of_windows_of_zeros_are_zero_with_finite_gradients():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    for exact in (False, True):
        y = SimilarityPool(2, exact)(x)
        y.sum().backward()
        assert float(y.detach()) == 0
        assert x.grad.isfinite().all()


def test_windows_tile_the_image_and_drop_what_is_left_over():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    assert windows(x, 2)[:, 0, 0].permute(1, 2, 0).tolist() == [[[0, 1, 5, 6], [2, 3, 7, 8]]]


@pytest.mark.parametrize("name", [*POOLS, "hypernet-conv"])
def test_a_network_without_the_layers_in_question_is_left_out(name):
    made = context("shapes-cnn")
    interface = Interface("images", (1, 4, 4), 3, lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    with pytest.raises(DoesNotApply):
        suite.method(name).make(Build(made), interface)


# ---------------------------------------------------------------- single architectures


def test_i_revnet_is_invertible():
    model = stirred(network("shapes-cnn", "i-revnet").double()).eval()
    images = model.first(inputs("shapes-cnn"))
    features = model.features(images)
    assert features[0].numel() >= images[0].numel()
    torch.testing.assert_close(model.inverse(features), images, rtol=1e-9, atol=1e-9)


def test_i_revnet_has_the_papers_bottlenecks_where_its_width_allows():
    model = network("shapes-cnn", "i-revnet", "standard")
    channels = [(block.function[-1].in_channels, block.function[-1].out_channels) for block in model.blocks]
    assert all(abs(4 * middle - outputs) <= 0.25 * outputs for middle, outputs in channels)


def test_parallel_layers_see_the_stages_input_and_sequential_ones_each_other():
    parallel, stack = (network("shapes-cnn", name).eval() for name in ("parallel-shallow", "residual-stack"))
    stack.load_state_dict(parallel.state_dict())
    x = torch.randn(2, *parallel[2].layers[0][0].weight.shape[:1], 4, 4)
    first, *others = parallel[2].layers
    torch.testing.assert_close(parallel[2](x), x + first(x) + sum(f(x) for f in others))
    assert not torch.allclose(parallel[2](x), stack[2](x))
    with torch.no_grad():
        for f in others:
            f[1].weight.zero_()
    stack.load_state_dict(parallel.state_dict())
    torch.testing.assert_close(parallel[2](x), stack[2](x))


def test_residual_sums_refuse_an_activation_that_changes_the_channels():
    made = context("shapes-cnn", "parallel-shallow+crelu")
    with pytest.raises(DoesNotApply, match="number of channels"):
        made.task.factory(made.task).workload(made)


def test_subdeqs_gradient_is_that_of_the_plain_iteration_to_the_end():
    torch.manual_seed(0)
    layer = FixedPoint(2, 4, 1.603, 1e-13, 100).double()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 4, 5, 5, dtype=torch.float64)

    def unrolled() -> Tensor:
        z = torch.ones_like(weight)
        for _ in range(80):
            z = layer.step(z, torch.relu(layer.inject(x)) + 1.603)
        return z

    wanted = [x, *layer.parameters()]
    found, expected = (torch.autograd.grad((z * weight).sum(), wanted) for z in (layer(x), unrolled()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_subdeq_stops_at_its_tolerance_and_at_its_iterations():
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, 5)
    calls = []
    for tolerance, iterations in ((1e-3, 30), (0.0, 7)):
        layer, count = FixedPoint(2, 4, 1.603, tolerance, iterations), 0

        def counted(z: Tensor, injected: Tensor, step=layer.step) -> Tensor:
            nonlocal count
            count += 1
            return step(z, injected)

        layer.step = counted
        with torch.no_grad():
            z = layer(x)
            calls.append(count)
            moved = (layer.step(z, torch.relu(layer.inject(x)) + 1.603) - z).norm() / z.norm()
        assert float(moved) < 1e-3
    assert calls[0] < 15
    assert calls[1] == 7 + 1  # and once more for the gradient


@pytest.mark.parametrize("name", [m.name for m in METHODS if "language" in m.families])
def test_language_models_are_causal_and_use_the_past(name):
    model, x = stirred(network("hmm-gpt", name)).eval(), inputs("hmm-gpt", 2)
    moved = x.clone()
    moved[:, 5] = (moved[:, 5] + 1) % 16
    changed = (model(moved) - model(x)).abs().amax((0, 2)) > 1e-7
    assert changed.tolist() == [False] * 5 + [True] * 4


def test_trellisnet_sees_as_many_tokens_as_it_has_levels_and_one_more():
    model = stirred(stirred(network("hmm-gpt", "trellisnet", levels=3))).double().eval()
    x = torch.randint(0, 16, (1, 12))
    moved = x.clone()
    moved[0, 2] = (moved[0, 2] + 1) % 16
    changed = (model(moved) - model(x)).abs().amax((0, 2)) > 0
    assert changed.nonzero().flatten().tolist() == [2, 3, 4, 5]


def test_trellisnet_starts_with_small_normal_kernels():
    trellis = network("hmm-gpt", "trellisnet").trellis
    for kernel in (trellis.inject.weight, trellis.mix.weight):
        assert kernel.std().item() == pytest.approx(0.01, rel=0.1)


def test_a_hyperlstm_starts_as_a_layer_normalised_lstm():
    """Factors of .1 and shifts of 0, whatever the small LSTM says; recurrent maps orthogonal gate by gate."""
    model = network("hmm-gpt", "hyperlstm")
    of_x, of_h, shift = model.scaling(torch.randn(5, model.small_recurrent.in_features))
    torch.testing.assert_close(of_x, torch.full_like(of_x, 0.1))
    torch.testing.assert_close(of_h, torch.full_like(of_h, 0.1))
    assert not shift.any()
    for gate in model.recurrent.weight.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(len(gate)), atol=1e-5, rtol=0)


def test_layers_of_a_hypernetwork_share_it():
    model = network("shapes-cnn", "hypernet-conv")
    codes = [p for name, p in model.named_parameters() if name.endswith("original")]
    assert [tuple(c.shape) for c in codes] == [(1, 1, 4), (2, 1, 4), (2, 2, 4), (2, 2, 4), (2, 2, 4)]
    assert all((c.abs() <= 2.02).all() for c in codes)
    twin = copy.deepcopy(model).double()
    (network_of,) = [part for name, part in twin.named_modules() if name.endswith("0.network")]
    made = [m.parametrizations.weight[0].shared[0] for m in twin.modules() if hasattr(m, "parametrizations")]
    assert len(made) == 5
    assert all(part is network_of for part in made)


@pytest.mark.parametrize("task", ["helmholtz", "poisson-5", "burgers", "convection"])
def test_xnets_residual_is_that_of_nested_differentiation(task):
    made = context(task, "xnet", lambda1=1.0, lambda2=1.0)
    work = made.task.factory(made.task).workload(made)
    work.next()
    work.model.double()
    points = work.points[:20].double()
    found = work.method.residual(work.model, points)
    fields = autograd_fields(work.model, points)
    torch.testing.assert_close(found, work.problem.residual(fields, points), rtol=1e-5, atol=1e-5)
    assert work.problem.taylor is (task != "convection")
