"""Registered reparametrisations: effective weights from stored ones in numpy, starts, roles and state."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import suite
from baselines.reparam.common import residual_ends
from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.train.roles import mark, mark_activation, mark_residual, named_parameters, param_groups

NAMES = [m.name for m in suite.methods(slot="reparam")]
Stored = dict[str, np.ndarray]


class Net(nn.Module):
    """A convolution, a residual stack of two branches and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.norm_0, self.up_0, self.down_0 = nn.LayerNorm(6), nn.Linear(6, 8), mark_residual(nn.Linear(8, 6))
        self.norm_1, self.up_1, self.down_1 = nn.LayerNorm(6), nn.Linear(6, 8), mark_residual(nn.Linear(8, 6))
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)
        mark(self.head, "head")

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).mean((2, 3))
        h = h + self.down_0(torch.tanh(self.up_0(self.norm_0(h))))
        h = h + self.down_1(torch.tanh(self.up_1(self.norm_1(h))))
        return self.head(self.norm(h))


HIDDEN = ("stem", "up_0", "down_0", "up_1", "down_1")
ENDS = ("down_0", "down_1")
NORMS = ("norm_0", "norm_1")
LAYERS = (*HIDDEN, *NORMS, "norm", "head")
WEIGHTS = (*HIDDEN, "head")


def net(name: str | None = None, **hp: object) -> Net:
    torch.manual_seed(0)
    model = Net().double()
    if name is not None:
        suite.method(name).make(model, **hp)
    return model


def inputs() -> Tensor:
    return torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def rows(w: np.ndarray) -> np.ndarray:
    return w.reshape(len(w), -1)


def like(values: np.ndarray, w: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *[1] * (w.ndim - 1))


def weight_norm(stored: Stored, layer: str, start: np.ndarray) -> np.ndarray:
    v = stored["original1"]
    return stored["original0"] * v / like(np.linalg.norm(rows(v), axis=1), v)


def spectral_norm(stored: Stored, layer: str, start: np.ndarray) -> np.ndarray:
    w = stored["original"]
    return w / np.linalg.svd(rows(w), compute_uv=False)[0]


def scaled_ws(stored: Stored, layer: str, start: np.ndarray, floor: float) -> np.ndarray:
    w, gain = stored["original"], stored["0.gain"]
    fan_in = rows(w).shape[1]
    scale = gain / np.sqrt(np.maximum(fan_in * rows(w).var(axis=1), floor))
    return like(scale, w) * (w - like(rows(w).mean(axis=1), w))


def standardised(stored: Stored, layer: str, start: np.ndarray, eps: float) -> np.ndarray:
    w = stored["original"]
    return (w - like(rows(w).mean(axis=1), w)) / like(np.sqrt(rows(w).var(axis=1) + eps), w)


def conditioned(stored: Stored, layer: str, start: np.ndarray, detach: bool) -> np.ndarray:
    w = stored["original"]
    return w / like(np.sqrt((rows(w) ** 2).sum(axis=1)), w)


def ntk(stored: Stored, layer: str, start: np.ndarray, scale: float, bias_scale: float) -> np.ndarray:
    w = stored["original"]
    return w * scale / math.sqrt(rows(w).shape[1])


def spherical(stored: Stored, layer: str, start: np.ndarray) -> np.ndarray:
    radius, angles = stored["original0"], stored["original1"]
    units = []
    for row in angles:
        v = [math.cos(t) * math.prod(map(math.sin, row[:k])) for k, t in enumerate(row)]
        units.append([*v, math.prod(map(math.sin, row))])
    return (radius[:, None] * np.array(units)).reshape(start.shape)


def uniform(stored: Stored, layer: str, start: np.ndarray, scale: float) -> np.ndarray:
    return stored["original"] * scale / math.sqrt(2)


def decreasing(stored: Stored, layer: str, start: np.ndarray, scale: float) -> np.ndarray:
    index = int(layer[-1]) + 1
    return stored["original"] * scale / (math.sqrt(index) * math.log(index + 1))


def by_layer(stored: Stored, layer: str, start: np.ndarray, branches: int) -> np.ndarray:
    return stored["original"] / math.sqrt(int(layer[-1]) // branches + 1)


def depth_mup(stored: Stored, layer: str, start: np.ndarray, scale: float) -> np.ndarray:
    """Two branches: L = 2."""
    return stored["original"] / math.sqrt(2) * (scale / math.sqrt(2) if layer in ENDS else 1.0)


def normaliser_free(stored: Stored, layer: str, start: np.ndarray, alpha: float, floor: float) -> np.ndarray:
    return scaled_ws(stored, layer, start, floor) * (alpha * stored["1.gain"] if layer in ENDS else 1.0)


def hyper(encoding: Callable[[float], list[float]]) -> Callable[[Stored, float], np.ndarray]:
    """Hidden values of a hypernetwork with layers of 16, 64 and 128 and LeakyReLU."""

    def hidden(stored: Stored, z: float) -> np.ndarray:
        h = np.array(encoding(z))
        for i in range(3):
            h = stored[f"0.trunk.layers.{i}.weight"] @ h + stored[f"0.trunk.layers.{i}.bias"]
            h = np.maximum(h, 0) + 0.01 * np.minimum(h, 0)
        assert h.shape == (128,)
        return h

    return hidden


def mip(stored: Stored, layer: str, start: np.ndarray, rate: float, at: float) -> np.ndarray:
    h = hyper(lambda z: [math.cos(math.pi * z / 2), math.sin(math.pi * z / 2)])(stored, at)
    return stored["original"] + (stored["0.output.weight"] @ h).reshape(start.shape)


def plain_hyper(stored: Stored, layer: str, start: np.ndarray, rate: float, at: float) -> np.ndarray:
    return (stored["original"] @ hyper(lambda z: [z])(stored, at)).reshape(start.shape)


def frozen(stored: Stored, layer: str, start: np.ndarray, share: float) -> np.ndarray:
    return np.where(stored["0.frozen"], start, stored["original"])


# name -> (effective weight from what is stored, layers it is on, whether the start is the recipe's)
REFERENCES: dict[str, tuple[Callable[..., np.ndarray], tuple[str, ...], bool]] = {
    "weightnorm": (weight_norm, WEIGHTS, True),
    "spectral-norm": (lambda s, layer, start, iterations: spectral_norm(s, layer, start), WEIGHTS, False),
    "scaled-ws": (scaled_ws, HIDDEN, False),
    "weight-standardization": (standardised, ("stem",), False),
    "weight-conditioning": (conditioned, HIDDEN, False),
    "weight-conditioning-detach": (conditioned, HIDDEN, False),
    "ntk-param": (ntk, WEIGHTS, True),
    "geometric-param": (spherical, HIDDEN, True),
    "rezero": (lambda s, layer, start, start_=0.0, **hp: s["0.alpha"] * s["original"], ENDS, False),
    "stable-uniform": (uniform, ENDS, False),
    "stable-decreasing": (decreasing, ENDS, False),
    "lns": (by_layer, NORMS, True),
    "frozen-random": (frozen, HIDDEN, True),
    "depth-mup": (depth_mup, HIDDEN[1:], False),
    "nf-resnet": (normaliser_free, HIDDEN, False),
    "mip-hypernet": (mip, WEIGHTS, False),
    "hypernet-plain": (plain_hyper, WEIGHTS, False),
    # weights that are stored as they are, and changed after each update: see the tests of constraints below
    "nap": (lambda s, *_, **hp: s["weight"], (), True),
    "tvr": (lambda s, *_, **hp: s["weight"], (), True),
    "polarity-random": (lambda s, *_, **hp: s["weight"], (), True),
}
CONSTRAINTS = {"nap", "tvr", "polarity-random"}
RESIDUAL = {"rezero", "stable-uniform", "stable-decreasing"}


def stored_of(model: nn.Module, layer: str) -> Stored:
    prefix = f"{layer}.parametrizations.weight."
    return {k.removeprefix(prefix): v.numpy() for k, v in model.state_dict().items() if k.startswith(prefix)}


def jiggle(model: nn.Module) -> None:
    """Move every parameter, as training would."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def test_every_registered_reparam_has_a_reference() -> None:
    assert set(REFERENCES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_effective_weights_follow_the_formula_after_the_stored_ones_moved(name: str) -> None:
    formula, layers, _ = REFERENCES[name]
    hp = {k: v for k, v in suite.method(name).defaults.items() if not (name == "rezero" and k == "start")}
    start, model = net(), net(name)
    jiggle(model)
    if name == "spectral-norm":
        for _ in range(300):
            model(inputs())  # power iteration goes on in training
    model.eval()
    for layer in LAYERS:
        module, before = model.get_submodule(layer), start.get_submodule(layer).weight.detach().numpy()
        assert parametrize.is_parametrized(module, "weight") == (layer in layers)
        if layer in layers:
            wanted = formula(stored_of(model, layer), layer, before, **hp)
            np.testing.assert_allclose(module.weight.detach().numpy(), wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in NAMES if REFERENCES[n][2]])
def test_the_function_at_the_start_is_the_recipes(name: str) -> None:
    torch.testing.assert_close(net(name)(inputs()), net()(inputs()), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_derivatives_of_the_loss(name: str) -> None:
    """Against central differences in one entry of every stored tensor."""
    if suite.method(name).surrogate:
        pytest.skip("the backward pass is deliberately another")
    model, x = net(name), inputs()
    jiggle(model)
    model.eval()
    model(x).square().sum().backward()
    h = 1e-6
    for parameter in model.parameters():
        assert parameter.grad is not None
        flat, index = parameter.data.view(-1), parameter.numel() // 2
        before, values = flat[index].item(), []
        for step in (h, -h):
            flat[index] = before + step
            with torch.no_grad():
                values.append(model(x).square().sum().item())
        flat[index] = before
        slope = (values[0] - values[1]) / (2 * h)
        assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_state_goes_through_a_state_dict(name: str) -> None:
    model, other = net(name), net(name)
    jiggle(model)
    other.load_state_dict(model.state_dict())
    x = inputs()
    assert torch.equal(other.eval()(x), model.eval()(x))


@pytest.mark.parametrize("name", NAMES)
def test_a_deep_copy_stands_on_its_own(name: str) -> None:
    model = net(name).eval()
    twin, x = copy.deepcopy(model), inputs()
    before = model(x)
    jiggle(twin)
    assert torch.equal(model(x), before)
    assert not torch.allclose(twin(x), before)


@pytest.mark.parametrize("name", NAMES)
def test_the_result_does_not_depend_on_torchs_global_stream_and_leaves_it_alone(name: str) -> None:
    first, second = net(), net()
    torch.manual_seed(1)
    suite.method(name).make(first)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    suite.method(name).make(second)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_gradient_descent_lowers_a_loss(name: str) -> None:
    model, x = net(name), inputs()
    target = torch.tensor([0, 1, 2, 0, 1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_roles_are_those_of_the_layers_and_extra_parameters_are_undecayed(name: str) -> None:
    """Stored weights keep their layer's role; gains, radii, angles and factors are 'other'."""
    plain = {info.name: info.role for _, info in named_parameters(net())}
    for parameter, info in named_parameters(net(name)):
        layer, _, inside = info.name.partition(".parametrizations.")
        if not inside:
            assert info.role == plain[info.name]
            continue
        attribute = inside.partition(".")[0]
        original = dict(net().named_parameters())[f"{layer}.{attribute}"]
        is_weight = parameter.shape == original.shape and name not in ("geometric-param", "hypernet-plain")
        wanted = plain[f"{layer}.{attribute}"] if is_weight or attribute == "bias" else "other"
        assert info.role == wanted, info.name
        stored = inside.split(".")[1].startswith("original")
        assert info.residual_out == (layer in ENDS and parameter.ndim > 1 and stored)
    decayed = [p for g in param_groups(net(name)) if g.get("weight_decay") != 0.0 for p in g["params"]]
    assert all(p.ndim >= 2 for p in decayed)


@pytest.mark.parametrize(("name", "branches", "factors"), [("transformer", 4, 2), ("net", 2, 2)])
def test_rezero_has_one_factor_a_residual_layer(name: str, branches: int, factors: int) -> None:
    model = net("rezero") if name == "net" else make_workload(RunSpec("hmm-gpt", "rezero", "smoke")).model
    ends = residual_ends(model)
    learnt = {id(p): p for n, p in model.named_parameters() if n.endswith(".alpha")}
    assert (len(ends), len(learnt)) == (branches, factors)
    assert {float(p.detach()) for p in learnt.values()} == {0.0}
    undecayed = {id(p) for group in param_groups(model) if group.get("weight_decay") == 0.0 for p in group["params"]}
    assert set(learnt) <= undecayed


@pytest.mark.parametrize("name", sorted(RESIDUAL))
def test_residual_factors_scale_the_branch_with_its_bias(name: str) -> None:
    plain, model = net(), net(name, **({"start": 0.7} if name == "rezero" else {}))
    h = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for index, (a, b) in enumerate([(plain.down_0, model.down_0), (plain.down_1, model.down_1)], start=1):
        factor = {
            "rezero": 0.7,
            "stable-uniform": 1 / math.sqrt(2),
            "stable-decreasing": 1 / (math.sqrt(index) * math.log(index + 1)),
        }[name]
        torch.testing.assert_close(b(h), factor * a(h))


@pytest.mark.parametrize("name", sorted(RESIDUAL))
def test_a_model_without_residual_branches_stays_as_it_is(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    before = copy.deepcopy(model.state_dict())
    suite.method(name).make(model)
    assert model.state_dict().keys() == before.keys()


def test_lns_divides_the_norms_of_layer_l_by_its_root_and_leaves_the_final_norm() -> None:
    """One branch a layer here, then two: both branches of layer 1 keep their norms."""
    h = torch.randn(4, 6, dtype=torch.float64)
    plain = net()
    for branches, factors in ((1, (1.0, 1 / math.sqrt(2))), (2, (1.0, 1.0))):
        model = net("lns", branches=branches)
        for norm, factor in zip(NORMS, factors, strict=True):
            torch.testing.assert_close(model.get_submodule(norm)(h), factor * plain.get_submodule(norm)(h))
        torch.testing.assert_close(model.norm(h), plain.norm(h))
        assert not parametrize.is_parametrized(model.norm)


def test_lns_scales_the_first_norm_of_a_branch_only() -> None:
    """A norm inside the attention of a branch is not the branch's input."""
    inner = [nn.LayerNorm(4) for _ in range(4)]
    model = nn.Sequential(
        *(nn.Sequential(inner[i], nn.Linear(4, 4), inner[i + 1], mark_residual(nn.Linear(4, 4))) for i in (0, 2))
    )
    suite.method("lns").make(model, branches=1)
    assert [parametrize.is_parametrized(m) for m in inner] == [True, False, True, False]


def test_rezero_starts_as_the_skip_path_and_gives_each_branch_one_scalar() -> None:
    model = net("rezero")
    assert not model.down_0(torch.randn(2, 8, dtype=torch.float64)).any()
    scalars = [p for p in model.parameters() if p.ndim == 0]
    assert len(scalars) == 2


def test_residual_ends_may_be_normalisation_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), mark_residual(nn.BatchNorm2d(3)))
    suite.method("rezero").make(model)
    assert not model(torch.randn(4, 1, 2, 2)).any()


def test_spectral_norm_brings_the_largest_singular_value_to_one() -> None:
    model = net("spectral-norm", iterations=5)
    for _ in range(50):
        model(inputs())
    model.eval()
    for layer in WEIGHTS:
        matrix = model.get_submodule(layer).weight.flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1.0, rel=1e-6)


def test_weight_conditioning_rows_have_unit_length_and_only_the_full_form_has_tangent_gradients() -> None:
    for name, tangent in (("weight-conditioning", True), ("weight-conditioning-detach", False)):
        model = net(name)
        model(inputs()).square().sum().backward()
        stored = model.up_0.parametrizations.weight.original
        torch.testing.assert_close(model.up_0.weight.norm(dim=1), torch.ones(8, dtype=torch.float64))
        radial = (stored.grad * stored).sum(1).abs().max().item()
        assert (radial < 1e-10) == tangent


def test_weight_conditioning_detached_passes_the_gradient_through_fixed_lengths() -> None:
    model = net("weight-conditioning-detach")
    layer = model.up_0
    stored = layer.parametrizations.weight.original
    cotangent = torch.randn(8, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((layer.weight * cotangent).sum(), stored)
    torch.testing.assert_close(gradient, cotangent / stored.norm(dim=1, keepdim=True))


def test_scaled_ws_keeps_weights_without_spread_finite() -> None:
    model = net()
    nn.init.constant_(model.up_0.weight, 0.3)
    suite.method("scaled-ws").make(model)
    assert not model.up_0.weight.any()
    model(inputs()).sum().backward()
    assert torch.isfinite(model.up_0.parametrizations.weight.original.grad).all()


def test_ntk_param_stores_unit_variance_weights_and_damps_gradient_steps() -> None:
    model, layer = net("ntk-param"), "up_0"
    stored = stored_of(model, layer)["original"]
    np.testing.assert_allclose(stored, net().up_0.weight.detach().numpy() * math.sqrt(6), rtol=1e-9)
    bias = model.get_submodule(layer).parametrizations.bias.original
    np.testing.assert_allclose(bias.detach().numpy(), net().up_0.bias.detach().numpy() / 0.1, rtol=1e-9)
    plain = net()
    for m in (plain, model):
        m(inputs()).square().sum().backward()
    gradient = model.up_0.parametrizations.weight.original.grad
    torch.testing.assert_close(gradient, plain.up_0.weight.grad / math.sqrt(6), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_frozen_random_keeps_a_share_of_hidden_weights_through_training(share: float) -> None:
    model = net("frozen-random", share=share)
    before = {layer: model.get_submodule(layer).weight.detach().clone() for layer in HIDDEN}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    model(inputs()).square().sum().backward()
    optimizer.step()
    after = {layer: model.get_submodule(layer).weight.detach() for layer in HIDDEN}
    still = torch.cat([(before[k] == after[k]).flatten() for k in HIDDEN]).double().mean().item()
    assert still == pytest.approx(share, abs=0.08)


def test_geometric_param_scales_the_bias_with_the_radius() -> None:
    """r·(v·x + λ): the unit's output is linear in its radius, bias included."""
    model = net("geometric-param")
    layer, x = model.up_0, torch.randn(3, 6, dtype=torch.float64)
    before = layer(x)
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(2.0)
    torch.testing.assert_close(layer(x), 2 * before)


def test_geometric_param_keeps_the_sign_of_a_unit_with_one_input() -> None:
    model = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), mark(nn.Linear(5, 1), "head")).double()
    before, x = model[0].weight.detach().clone(), torch.randn(4, 1, dtype=torch.float64)
    wanted = model(x)
    suite.method("geometric-param").make(model)
    torch.testing.assert_close(model(x), wanted)
    assert model[0].parametrizations.weight.original.shape == (5,)
    assert torch.equal(model[0].weight.sign(), before.sign())


def test_geometric_param_takes_rows_of_any_direction() -> None:
    """Negative last entries, zeros in front and behind, and a row of zeros."""
    weight = torch.tensor([[1.0, -2, -3], [0, 0, -1], [0, 2, 0], [-1, 0, 0], [0, 0, 0]], dtype=torch.float64)
    model = nn.Sequential(nn.Linear(3, 5), mark(nn.Linear(5, 1), "head")).double()
    with torch.no_grad():
        model[0].weight.copy_(weight)
        model[0].bias.copy_(torch.tensor([0.5, -1, 2, 0, 0]))
    suite.method("geometric-param").make(model)
    torch.testing.assert_close(model[0].weight, weight, rtol=0, atol=1e-14)
    torch.testing.assert_close(model[0].bias, torch.tensor([0.5, -1, 2, 0, 0], dtype=torch.float64))
    model(torch.randn(2, 3, dtype=torch.float64)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


# ---------------------------------------------------------------- constraints: weights put right after each update


class Sited(nn.Module):
    """A convolution with a norm and an activation, then two branches with an activation each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), mark(nn.BatchNorm2d(6), "norm"), site())
        self.branch_0 = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 8), site(), mark_residual(nn.Linear(8, 6)))
        self.branch_1 = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 8), site(), mark_residual(nn.Linear(8, 6)))
        self.head = nn.Linear(6, 3)
        mark(self.head, "head")

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).mean((2, 3))
        h = h + self.branch_0(h)
        return self.head(h + self.branch_1(h))


def site() -> nn.Module:
    return mark_activation(nn.Tanh())


def sited(name: str | None = None, **hp: object) -> Sited:
    torch.manual_seed(0)
    model = Sited().double()
    if name is not None:
        suite.method(name).make(model, **hp)
    return model


def follow(model: nn.Module) -> None:
    """What the training loop does after an update."""
    for module in model.modules():
        if hasattr(module, "after_step"):
            module.after_step()


def weights_of(model: nn.Module, roles: tuple[str, ...] = ("matrix", "conv", "head")) -> dict[str, Tensor]:
    return {info.name: p.detach() for p, info in named_parameters(model) if info.role in roles}


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_constraints_act_in_the_training_loop_after_every_update(name: str) -> None:
    from suite.runner.execute import make_workload
    from suite.runner.spec import RunSpec
    from suite.train.loop import Trainer

    spec = RunSpec("markov-gpt" if name == "tvr" else "digits-cnn", name, "smoke")
    trainer = Trainer(make_workload(spec), spec.recipe, spec.given)
    (constraint,) = [m for m in trainer.workload.model.modules() if hasattr(m, "after_step")]
    for _ in range(3):
        trainer.step()
    assert int(constraint.steps) == 3


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_constraints_count_on_from_a_checkpoint(name: str) -> None:
    model, other = net(name), net(name)
    for _ in range(2):
        jiggle(model)
        follow(model)
    other.load_state_dict(model.state_dict())
    for each in (model, other):
        jiggle(each)
        follow(each)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    assert [int(v) for k, v in other.state_dict().items() if k.endswith("constraint.steps")] == [3]


@pytest.mark.parametrize("head", [True, False])
def test_nap_returns_every_weight_to_the_norm_it_started_with_along_its_new_direction(head: bool) -> None:
    start, model = weights_of(net()), net("nap", head=head)
    jiggle(model)
    moved = {k: v.clone() for k, v in weights_of(model).items()}
    follow(model)
    for name, weight in weights_of(model).items():
        wanted = moved[name].numpy()
        if head or name != "head.weight":
            wanted = wanted * np.sqrt((start[name].numpy() ** 2).sum()) / np.sqrt((wanted**2).sum())
        np.testing.assert_allclose(weight.numpy(), wanted, rtol=1e-12)


def test_nap_leaves_weights_that_start_at_zero_free() -> None:
    model = net()
    nn.init.zeros_(model.down_0.weight)
    suite.method("nap").make(model)
    jiggle(model)
    moved = model.down_0.weight.detach().clone()
    follow(model)
    assert moved.any()
    assert torch.equal(model.down_0.weight, moved)


def test_nap_normalises_the_input_of_activations_that_no_norm_precedes() -> None:
    model, h = sited("nap"), torch.randn(5, 6, dtype=torch.float64)
    norm, up, _, down = model.branch_0
    u = up(norm(h)).detach().numpy()
    u = (u - u.mean(1, keepdims=True)) / np.sqrt(u.var(1, keepdims=True) + 1e-5)
    torch.testing.assert_close(model.branch_0(h), down(torch.tanh(torch.tensor(u))))
    torch.testing.assert_close(model.stem(inputs()), sited().stem(inputs()))  # behind the batch normalisation


def test_nap_makes_the_function_before_a_normalised_activation_independent_of_the_weights_scale() -> None:
    model, x = sited("nap"), inputs()
    before = model(x)
    with torch.no_grad():
        for layer in (model.branch_0[1], model.branch_1[1]):
            layer.weight.mul_(50.0)
            layer.bias.mul_(50.0)
    torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-3)


def tvr_on_paper(w: np.ndarray, bias: np.ndarray, target: float, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    mean = w.sum() / w.size
    deviation = math.sqrt(((w - mean) ** 2).sum() / (w.size - 1))
    if deviation / target <= ratio:
        return w, bias
    return (w - mean) / deviation * target + mean, np.zeros_like(bias)


@pytest.mark.parametrize("by_depth", [False, True])
def test_tvr_rescales_matrices_of_the_blocks_that_have_outgrown_their_target_every_so_many_updates(
    by_depth: bool,
) -> None:
    """Two branches are one block; a third and fourth would be block 2."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(6, 8), mark_residual(nn.Linear(8, 6))) for _ in range(4)]
    model = nn.Sequential(nn.Embedding(5, 6), *layers, mark(nn.Linear(6, 3), "head")).double()
    suite.method("tvr").make(model, target=0.15, every=3, ratio=1.2, by_depth=by_depth)
    with torch.no_grad():
        model[1][0].weight.mul_(0.1)  # stays below
    before = copy.deepcopy(model.state_dict())
    follow(model)
    follow(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if "steps" not in k)
    follow(model)
    changed = 0
    for branch in range(4):
        for index in (0, 1):
            name = f"{branch + 1}.{index}"
            target = 0.15 / math.sqrt(branch // 2 + 1) if by_depth else 0.15
            w, b = (before[f"{name}.{k}"].numpy() for k in ("weight", "bias"))
            wanted = tvr_on_paper(w, b, target, 1.2)
            layer = model.get_submodule(name)
            np.testing.assert_allclose(layer.weight.detach().numpy(), wanted[0], rtol=1e-10)
            np.testing.assert_allclose(layer.bias.detach().numpy(), wanted[1], rtol=1e-10)
            changed += not np.array_equal(wanted[0], w)
    assert 1 < changed < 8
    assert torch.equal(model[0].weight, before["0.weight"])
    assert torch.equal(model[5].weight, before["5.weight"])


def test_polarity_resets_entries_of_the_wrong_sign_to_small_ones_of_the_right_sign() -> None:
    model = net("polarity-random", size=0.01)
    start = {k: v.clone() for k, v in weights_of(model).items()}
    jiggle(model)
    moved = {k: v.clone() for k, v in weights_of(model).items()}
    follow(model)
    resets = []
    for name, weight in weights_of(model).items():
        sign, wrong = start[name].sign(), moved[name] * start[name] < 0
        assert bool((weight * sign >= 0).all())
        assert torch.equal(weight[~wrong], moved[name][~wrong])
        assert bool((weight[wrong].abs() <= 0.01).all())
        resets.append(weight[wrong].abs())
    sizes = torch.cat(resets)
    assert len(sizes) > 30
    assert float(sizes.mean()) == pytest.approx(0.005, rel=0.25)  # uniform


def test_polarity_draws_anew_at_every_step_and_leaves_entries_that_start_at_zero_free() -> None:
    model = net()
    nn.init.zeros_(model.head.weight)
    suite.method("polarity-random").make(model)
    model.head.weight.data.fill_(-3.0)
    signs, seen = model.up_0.weight.detach().sign(), []
    for _ in range(2):
        with torch.no_grad():
            model.up_0.weight.copy_(-signs)
        follow(model)
        seen.append(model.up_0.weight.detach().clone())
    assert not torch.equal(*seen)
    assert torch.equal(model.head.weight.detach(), torch.full((3, 6), -3.0, dtype=torch.float64))


# ---------------------------------------------------------------- depth-μP, hypernetworks, normaliser-free


def test_depth_mup_starts_as_branches_over_the_root_of_their_number_and_takes_smaller_adam_steps() -> None:
    """Against Adam on the plain model with the factors written out and the learning rate divided by √2."""
    x, target = inputs(), torch.tensor([0, 1, 2, 0, 1])
    model, plain = net("depth-mup", scale=0.7), net()
    torch.testing.assert_close(model(x), net("stable-uniform", scale=0.7)(x))
    suite.method("stable-uniform").make(plain, scale=0.7)
    inner = [p for n, p in plain.named_parameters() if n.startswith(("up_", "down_"))]
    rest = [p for n, p in plain.named_parameters() if not n.startswith(("up_", "down_"))]
    groups = [{"params": inner, "lr": 0.01 / math.sqrt(2)}, {"params": rest, "lr": 0.01}]
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.01, eps=0), torch.optim.Adam(groups, eps=0)]
    for _ in range(3):
        for each, optimizer in zip((model, plain), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(each(x), target).backward()
            optimizer.step()
    torch.testing.assert_close(model(x), plain(x), rtol=1e-8, atol=1e-10)


def test_depth_mup_reaches_what_stands_in_a_branch_and_nothing_else() -> None:
    model = sited("depth-mup")
    scaled = {n.partition(".parametrizations")[0] for n, _ in model.named_parameters() if ".parametrizations" in n}
    assert scaled == {"branch_0.1", "branch_0.3", "branch_1.1", "branch_1.3"}


@pytest.mark.parametrize("name", ["mip-hypernet", "hypernet-plain"])
def test_hypernetworks_draw_the_dropout_rate_of_each_step_and_evaluate_at_a_fixed_one(name: str) -> None:
    model, x = sited(name, rate=0.4, at=0.3), inputs()
    (trunk,) = {m for m in model.modules() if hasattr(m, "set_progress")}
    torch.manual_seed(0)
    trunk.set_progress(0.0)
    z = float(trunk.z)
    h = torch.ones(20_000, 6, dtype=torch.float64)
    dropped = model.branch_0[2](torch.atanh(0.5 * h))
    assert dropped.unique().tolist() == pytest.approx([0.0, 0.5 / (1 - 0.4 * z)])
    assert float((dropped == 0).double().mean()) == pytest.approx(0.4 * z, abs=0.01)
    weight = model.head.weight.detach().clone()
    trunk.set_progress(0.5)
    assert float(trunk.z) != z
    assert not torch.equal(model.head.weight, weight)
    model.eval()
    before = model(x)
    trunk.set_progress(0.6)
    assert torch.equal(model(x), before)


def test_mip_hypernet_starts_near_the_recipes_weights_with_an_encoding_of_constant_length() -> None:
    """‖h‖² is ‖e(z)‖² = 1 in the mean, so the shift's mean square is 2/numel: Kaiming by fan-out."""
    start, shifts = net(), []
    for at in (0.0, 0.5, 1.0):
        model = net("mip-hypernet", at=at).eval()
        shift = torch.cat([(model.get_submodule(k).weight - start.get_submodule(k).weight).flatten() for k in WEIGHTS])
        shifts.append(float(shift.detach().square().sum()))
    assert all(0.2 * 2 * len(WEIGHTS) < s < 3 * 2 * len(WEIGHTS) for s in shifts)


def test_normaliser_free_models_have_no_statistics_and_start_as_their_skip_paths() -> None:
    model, x = sited("nf-resnet"), inputs()
    assert not any(isinstance(m, nn.BatchNorm2d | nn.LayerNorm) for m in model.modules())
    torch.testing.assert_close(model(x), model.head(model.stem(x).mean((2, 3))))
    torch.testing.assert_close(model(x[:2]), model(x)[:2])


@pytest.mark.parametrize(
    ("activation", "published"),
    [
        (nn.ReLU(), 1.7139588594436646),
        (nn.SiLU(), 1.7881293296813965),
        (nn.GELU(), 1.7015043497085571),
        (nn.Tanh(), 1.5939117670059204),
        (nn.ELU(), 1.2716004848480225),
        (nn.LeakyReLU(), 1.70590341091156),
        (nn.Softplus(), 1.9203323125839233),
        (nn.Sigmoid(), 4.803835391998291),
    ],
    ids=lambda v: type(v).__name__,
)
def test_unit_gains_are_the_published_ones_up_to_their_sampling_error(activation: nn.Module, published: float) -> None:
    from scipy.integrate import quad

    from baselines.reparam.nf_resnet import unit_gain

    def moment(power: int) -> float:
        def integrand(z: float) -> float:
            f = float(activation(torch.tensor(z, dtype=torch.float64)))
            return f**power * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        return quad(integrand, -10, 0, epsabs=1e-12)[0] + quad(integrand, 0, 10, epsabs=1e-12)[0]

    exact = 1 / math.sqrt(moment(2) - moment(1) ** 2)
    assert unit_gain(activation) == pytest.approx(exact, rel=1e-6)
    assert exact == pytest.approx(published, rel=1.5e-3)


def test_normaliser_free_activations_are_scaled_and_parameters_per_channel_are_probed_as_they_are() -> None:
    from baselines.reparam.nf_resnet import unit_gain

    assert unit_gain(nn.PReLU(3, init=0.0)) == pytest.approx(unit_gain(nn.ReLU()), rel=1e-9)
    model, z = sited("nf-resnet"), torch.randn(7, 8, dtype=torch.float64)
    torch.testing.assert_close(model.branch_0[2](z), unit_gain(nn.Tanh()) * torch.tanh(z))
