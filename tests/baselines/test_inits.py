"""Registered initialisations: their distributions, fans, structure and streams."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import suite
from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.train.roles import ParamInfo, mark, mark_residual, named_parameters

METHODS = suite.methods(slot="init")
NAMES = [m.name for m in METHODS]


class Net(nn.Module):
    """One parameter of every role, two residual branches, layers that are wide, tall and square."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(70, 48)
        self.conv = nn.Conv2d(24, 60, 3)
        self.wide = nn.Linear(300, 40)
        self.tall = nn.Linear(48, 200)
        self.norm = nn.LayerNorm(48)
        self.shifted = nn.LayerNorm(48)
        self.alpha = mark(nn.PReLU(48), "other")
        self.first = mark_residual(nn.Linear(96, 96))
        self.second = mark_residual(nn.Linear(200, 48))
        self.head = nn.Linear(48, 90)
        mark(self.head, "head")
        nn.init.constant_(self.shifted.weight, 0.3)


def filled(name: str, seed: int = 0, **hp: object) -> dict[str, tuple[Tensor, ParamInfo]]:
    """Every parameter after the init, each from a stream of its own as the engine gives them."""
    net, fill = Net(), suite.method(name).make(**hp)
    found = {}
    with torch.no_grad():
        for index, (parameter, info) in enumerate(named_parameters(net)):
            if info.role != "other":
                fill(parameter, info, torch.Generator().manual_seed(1000 * seed + index))
            found[info.name] = (parameter.detach(), info)
    return found


Std = Callable[[ParamInfo], float]


def fan_in(gain: float) -> Std:
    return lambda info: gain / math.sqrt(info.fan_in)


def xavier(info: ParamInfo) -> float:
    return math.sqrt(2 / (info.fan_in + info.fan_out))


def haar(info: ParamInfo) -> float:
    """Entries of a semi-orthogonal matrix: n of them make a unit vector, n the longer side."""
    rows = info.module.weight.shape[0]
    return 1 / math.sqrt(max(rows, info.fan_in))


# name -> (standard deviation of a weight's entries, shape of their law)
REFERENCES: dict[str, tuple[Std, str]] = {
    "torch-default": (fan_in(1 / math.sqrt(3)), "uniform"),
    "gpt2": (lambda info: 0.02 / (math.sqrt(2) if info.residual_out else 1), "normal"),
    "normal": (lambda info: 0.02, "normal"),
    "lir": (lambda info: 0.02, "normal"),  # both of the net's branches belong to block 1
    "xavier": (xavier, "uniform"),
    "xavier-normal": (xavier, "normal"),
    "he": (fan_in(math.sqrt(2)), "normal"),
    "orthogonal": (haar, "any"),
    "orthogonal-critical": (fan_in(1.0), "any"),
    "gaussian-critical": (fan_in(1.0), "normal"),
    "lsuv": (haar, "any"),  # before it looks at data
    "kumar": (fan_in(1.0), "normal"),
    "zero-residual": (lambda info: 0.0 if info.residual_out else 1 / math.sqrt(info.fan_in), "normal"),
    "lowrank-init": (fan_in(1.0), "any"),
    "block-sparse-init": (fan_in(1.0), "any"),
    "svd-rank-init": (fan_in(1.0), "any"),
    "crelu-clip-init": (fan_in(math.sqrt(3.6277)), "normal"),
    "cst-clip-init": (fan_in(math.sqrt(3.6672)), "normal"),
}
WEIGHTS = ("conv.weight", "wide.weight", "tall.weight", "first.weight", "second.weight", "head.weight")


def test_lir_divides_the_variance_of_block_l_by_l() -> None:
    """Six residual branches are three blocks; what stands outside them keeps the full deviation."""
    blocks = [layer for _ in range(6) for layer in (nn.Linear(64, 128), mark_residual(nn.Linear(128, 64)))]
    net = nn.Sequential(nn.Embedding(50, 64), *blocks, mark(nn.Linear(64, 300), "head"))
    fill = suite.method("lir").make(std=1.0)
    deviations = []
    with torch.no_grad():
        for index, (parameter, info) in enumerate(named_parameters(net)):
            fill(parameter, info, torch.Generator().manual_seed(index))
            if parameter.ndim == 2:
                deviations.append(parameter.std().item())
    wanted = [1.0] + [1 / math.sqrt(block) for block in (1, 2, 3) for _ in range(4)] + [1.0]
    assert deviations == pytest.approx(wanted, rel=0.05)


PLAIN_BIAS = [n for n in NAMES if n not in ("torch-default", "crelu-clip-init", "cst-clip-init")]
PLAIN_EMBEDDING = [n for n in NAMES if n not in ("torch-default", "gpt2")]


def test_every_registered_init_has_a_reference() -> None:
    assert set(REFERENCES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_weights_have_mean_zero_and_the_stated_deviation(name: str, weight: str) -> None:
    values, info = filled(name)[weight]
    std, law = REFERENCES[name]
    wanted, n = std(info), values.numel()
    loose = 2.0 if law == "any" else 1.0
    assert abs(values.mean().item()) <= loose * 4 * wanted / math.sqrt(n)
    assert values.square().mean().sqrt().item() == pytest.approx(wanted, rel=loose * 4 / math.sqrt(n), abs=1e-12)


@pytest.mark.parametrize("name", [n for n in NAMES if REFERENCES[n][1] != "any"])
def test_weights_follow_the_stated_law(name: str) -> None:
    """Kolmogorov-Smirnov at a level that a right law fails once in 10,000 streams."""
    std, law = REFERENCES[name]
    values, info = filled(name)["wide.weight"]
    scaled = values.flatten().double().numpy() / std(info)
    law_of = stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)) if law == "uniform" else stats.norm()
    assert stats.kstest(scaled, law_of.cdf).pvalue > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_same_stream_gives_the_same_weights_and_another_gives_others(name: str) -> None:
    first, again, other = filled(name), filled(name), filled(name, seed=1)
    assert all(torch.equal(first[k][0], again[k][0]) for k in WEIGHTS)
    moved = [k for k in WEIGHTS if not torch.equal(first[k][0], other[k][0])]
    assert set(moved) == {k for k in WEIGHTS if first[k][0].any()}


@pytest.mark.parametrize("name", NAMES)
def test_torchs_global_stream_is_not_used(name: str) -> None:
    before = torch.random.get_rng_state()
    net = Net()
    torch.random.set_rng_state(before)
    with torch.no_grad():
        for parameter, info in named_parameters(net):
            if info.role != "other":
                suite.method(name).make()(parameter, info, torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_normalisation_parameters_keep_the_values_of_their_modules(name: str) -> None:
    found = filled(name)
    assert torch.equal(found["norm.weight"][0], torch.ones(48))
    assert torch.equal(found["norm.bias"][0], torch.zeros(48))
    assert torch.equal(found["shifted.weight"][0], torch.full((48,), 0.3))


@pytest.mark.parametrize("name", PLAIN_BIAS)
def test_biases_start_at_zero(name: str) -> None:
    assert all(not value.any() for value, info in filled(name).values() if info.role == "bias")


@pytest.mark.parametrize("name", PLAIN_EMBEDDING)
def test_embeddings_start_as_in_gpt2_where_the_paper_says_nothing(name: str) -> None:
    values = filled(name)["embedding.weight"][0]
    assert stats.kstest(values.flatten().numpy() / 0.02, stats.norm().cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("layer", "make"),
    [
        ("wide", lambda: nn.Linear(300, 40)),
        ("conv", lambda: nn.Conv2d(24, 60, 3)),
        ("embedding", lambda: nn.Embedding(70, 48)),
    ],
)
def test_torch_default_draws_from_the_laws_of_torchs_own_modules(layer: str, make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    theirs = [make() for _ in range(20)]
    ours = [filled("torch-default", seed) for seed in range(20)]
    for part in ("weight", "bias"):
        if not hasattr(theirs[0], part):
            continue
        two = (
            torch.cat([found[f"{layer}.{part}"][0].flatten() for found in ours]),
            torch.cat([getattr(m, part).detach().flatten() for m in theirs]),
        )
        assert stats.ks_2samp(*(t.numpy() for t in two)).pvalue > 1e-4
        if layer != "embedding":
            assert two[0].abs().max().item() == pytest.approx(two[1].abs().max().item(), rel=0.01)


def test_torch_default_leaves_a_bias_without_a_weight_at_zero() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.ones(3))

    (parameter, info), *_ = named_parameters(nn.Sequential(Shift()))
    with torch.no_grad():
        suite.method("torch-default").make()(parameter, info, torch.Generator())
    assert not parameter.any()


def test_gpt2_scales_residual_ends_by_the_number_of_branches() -> None:
    found = filled("gpt2", std=1.0)
    assert found["first.weight"][1].depth == 2
    assert found["first.weight"][0].std().item() == pytest.approx(1 / math.sqrt(2), rel=0.05)
    assert found["tall.weight"][0].std().item() == pytest.approx(1.0, rel=0.05)
    assert found["embedding.weight"][0].std().item() == pytest.approx(1.0, rel=0.05)


def test_he_takes_the_fan_that_its_mode_names() -> None:
    values, info = filled("he", mode="fan_out")["tall.weight"]
    assert values.std().item() == pytest.approx(math.sqrt(2 / info.fan_out), rel=0.05)


@pytest.mark.parametrize("name", ["orthogonal", "orthogonal-critical"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_orthogonal_rows_or_columns_are_orthogonal_and_of_one_length(name: str, weight: str) -> None:
    values, info = filled(name)[weight]
    matrix = values.flatten(1).double()
    short = matrix if len(matrix) <= matrix.shape[1] else matrix.mT
    gram = (short @ short.mT).numpy()
    length = 1.0 if name == "orthogonal" else max(len(matrix), info.fan_in) / info.fan_in
    np.testing.assert_allclose(gram, length * np.eye(len(gram)), atol=1e-5)


def test_orthogonal_takes_a_gain() -> None:
    plain, scaled = (filled("orthogonal", gain=g)["wide.weight"][0] for g in (1.0, 1.5))
    torch.testing.assert_close(scaled, 1.5 * plain)


@pytest.mark.parametrize(
    ("nonlinearity", "variance"),
    [("tanh", 1.0), ("sigmoid", 12.8), ("silu", 4.0), ("gelu", 4.0), ("relu", 2.0)],
)
def test_kumar_gives_the_papers_constants(nonlinearity: str, variance: float) -> None:
    values, info = filled("kumar", nonlinearity=nonlinearity)["wide.weight"]
    assert values.var().item() * info.fan_in == pytest.approx(variance, rel=0.06)


@pytest.mark.parametrize(
    ("name", "hp", "activation"),
    [
        ("crelu-clip-init", {}, "crelu-clip"),
        ("cst-clip-init", {}, "cst-clip"),
        ("crelu-clip-init", {"tau": 1.0364, "m": 0.8095}, "crelu-clip"),
        ("cst-clip-init", {"tau": 1.4395, "m": 0.6727}, "cst-clip"),
    ],
)
def test_clipped_sparse_inits_keep_variance_one_and_the_slopes_mean_square(
    name: str, hp: dict[str, float], activation: str
) -> None:
    """σ_w² E[φ(Z)²] + σ_b² = 1 and σ_w² E[φ'(Z)²] = 1 over quantiles of Z ~ N(0, 1)."""
    draws = [filled(name, seed, **hp) for seed in range(8)]
    weights = torch.cat([found["wide.weight"][0].flatten() for found in draws]).double()
    biases = torch.cat([found[f"{layer}.bias"][0] for found in draws for layer in ("wide", "tall", "conv")]).double()
    z = torch.tensor(stats.norm.ppf((np.arange(100000) + 0.5) / 100000)).requires_grad_()
    value = suite.method(activation).make(**hp)(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    weight, bias = 300 * weights.var().item(), biases.var().item()
    assert weight * slope.square().mean().item() == pytest.approx(1.0, rel=4 * math.sqrt(2 / len(weights)))
    assert weight * value.square().mean().item() + bias == pytest.approx(1.0, rel=4 * math.sqrt(2 / len(biases)))


def test_clipped_sparse_inits_have_the_activations_defaults() -> None:
    for name in ("crelu-clip", "cst-clip"):
        own = suite.method(f"{name}-init").defaults
        assert {k: own[k] for k in ("tau", "m")} == suite.method(name).defaults


def test_clipped_sparse_inits_refuse_an_activation_without_a_critical_point() -> None:
    with pytest.raises(ValueError, match="tau must not be negative"):
        filled("crelu-clip-init", tau=-0.5)


def test_zero_residual_starts_every_branch_at_zero() -> None:
    found = filled("zero-residual")
    assert not found["first.weight"][0].any()
    assert not found["second.weight"][0].any()
    assert found["tall.weight"][0].all()


@pytest.mark.parametrize(("weight", "rank"), [("first.weight", 24), ("wide.weight", 10), ("conv.weight", 15)])
def test_lowrank_init_has_the_stated_rank_and_an_orthonormal_column_space(weight: str, rank: int) -> None:
    values = filled("lowrank-init")[weight][0].flatten(1).double()
    assert torch.linalg.matrix_rank(values, rtol=1e-5) == rank


@pytest.mark.parametrize("name", ["lowrank-init", "block-sparse-init", "svd-rank-init"])
def test_structured_inits_leave_the_head_full(name: str) -> None:
    values = filled(name)["head.weight"][0]
    assert torch.linalg.matrix_rank(values) == 48
    assert values.all()


def test_lowrank_init_keeps_a_layer_with_few_inputs_at_full_rank() -> None:
    net = nn.Sequential(nn.Linear(3, 64), nn.Linear(64, 1))
    (parameter, info), *_ = named_parameters(net)
    with torch.no_grad():
        suite.method("lowrank-init").make()(parameter, info, torch.Generator().manual_seed(0))
    assert torch.linalg.matrix_rank(parameter) == 3


@pytest.mark.parametrize("keep", [0.25, 0.5])
def test_block_sparse_init_is_a_shuffled_block_mask(keep: float) -> None:
    """With rows and columns sorted back into blocks, every block is full or empty."""
    kept = filled("block-sparse-init", keep=keep, block=8)["first.weight"][0] != 0
    assert kept.float().mean().item() == keep
    assert (kept.sum(1) == keep * 96).all()
    patterns, counts = torch.unique(kept, dim=0, return_counts=True)
    assert (counts % 8 == 0).all()
    assert len(patterns) <= 12
    assert (torch.unique(kept, dim=1, return_counts=True)[1] % 8 == 0).all()


def test_svd_rank_init_keeps_the_leading_part_at_the_norm_of_the_whole() -> None:
    name = "svd-rank-init"
    whole = filled(name, rank=1.0)["wide.weight"][0].double()
    part = filled(name, rank=0.25)["wide.weight"][0].double()
    u, s, vh = np.linalg.svd(whole.numpy(), full_matrices=False)
    cut = (u[:, :10] * s[:10]) @ vh[:10]
    np.testing.assert_allclose(part.numpy(), cut * np.linalg.norm(s) / np.linalg.norm(s[:10]), atol=1e-5)


# ---------------------------------------------------------------- inits that look at data


def rescaled(weights: list[np.ndarray], biases: list[np.ndarray], x: np.ndarray, attempts: int) -> int:
    """LSUV of a tanh MLP in numpy, in place; returns the forward passes it takes."""

    def output(layer: int) -> np.ndarray:
        h = x
        for i in range(layer + 1):
            h = (np.tanh(h) if i else h) @ weights[i].T + biases[i]
        return h

    forwards = 0
    for i in range(len(weights)):
        for _ in range(attempts + 1):
            h = output(i)
            forwards += 1
            if abs(h.std() - 1) <= 0.1:
                break
            weights[i] /= h.std()
            biases[i] -= h.mean() / h.std()
    return forwards


@pytest.mark.parametrize("attempts", [0, 10])
def test_lsuv_rescales_layer_by_layer_as_in_numpy(attempts: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 30), nn.Tanh(), nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 4)).double()
    with torch.no_grad():
        net[0].weight.mul_(5.0)
        net[2].bias.add_(2.0)
    layers = [net[i] for i in (0, 2, 4)]
    x = torch.randn(64, 5, dtype=torch.float64) + 1.0
    weights = [layer.weight.detach().numpy().copy() for layer in layers]
    biases = [layer.bias.detach().numpy().copy() for layer in layers]
    wanted = rescaled(weights, biases, x.numpy(), attempts)
    with torch.no_grad():
        forwards = suite.method("lsuv").factory.calibrate(net, x, tolerance=0.1, attempts=attempts)
    assert forwards == wanted
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-6)
        np.testing.assert_allclose(layer.bias.detach().numpy(), bias, rtol=1e-6, atol=1e-7)
    assert net.training


@pytest.mark.parametrize("shape", [(40, 300), (200, 48), (60, 24, 3, 3)])
def test_lsuv_starts_from_orthonormal_rows_or_columns(shape: tuple[int, ...]) -> None:
    weight = torch.empty(shape)
    (_, info), *_ = named_parameters(nn.Linear(2, 2))
    suite.method("lsuv").make()(weight, info, torch.Generator().manual_seed(0))
    matrix = weight.flatten(1)
    short = matrix if len(matrix) <= matrix.shape[1] else matrix.mT
    torch.testing.assert_close(short @ short.mT, torch.eye(len(short)), atol=1e-5, rtol=0)


def test_lsuv_leaves_a_layer_that_gives_a_constant_or_is_not_called() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(0 * x)

    net = Partly()
    nn.init.zeros_(net.used.bias)
    before = [p.clone() for p in net.parameters()]
    with torch.no_grad():
        assert suite.method("lsuv").factory.calibrate(net, torch.ones(4, 3), tolerance=0.1, attempts=10) == 2
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("task", ["digits-cnn", "hmm-gpt", "convection"])
def test_lsuv_gives_every_layer_of_a_tasks_model_outputs_of_unit_deviation(task: str) -> None:
    spec = RunSpec(task, "lsuv", "smoke", 0)
    work = make_workload(spec)
    plain = make_workload(RunSpec(task, "orthogonal", "smoke", 0))
    layers = [m for m in work.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    stream = work.context.generator("calibration")
    if task == "convection":
        inputs = work.task.domain.uniform(work.count, stream)
    else:
        inputs = work.data.train_x[torch.randint(len(work.data.train_x), (work.batch,), generator=stream)]
    deviations: list[float] = []
    for layer in layers:
        layer.register_forward_hook(lambda m, args, out: deviations.append(out.detach().std(correction=0).item()))
    with torch.no_grad():
        work.model.eval()(inputs)
    assert len(deviations) == len(layers)
    assert all(0.9 <= d <= 1.1 for d in deviations)
    assert work.passes >= math.ceil(len(layers) / 3)
    assert plain.passes == 0
