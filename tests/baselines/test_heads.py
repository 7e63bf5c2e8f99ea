"""Losses that bring the model's output layer: the layer and the loss against numpy, and inside the engine."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from torch import Tensor, nn

import suite
from baselines.loss.heads import equiangular
from suite.runner.execute import make_workload
from suite.runner.spec import RunSpec
from suite.train.build import loss_head, output_layer
from suite.train.loop import Trainer
from suite.train.roles import named_parameters

METHODS = {m.name: m for m in suite.methods(slot="loss") if hasattr(m.factory, "head")}
NAMES = list(METHODS)
FEATURES, CLASSES, COUNT = 6, 4, 9
TARGETS = np.array([0, 1, 1, 2, 0, 2, 2, 1, 3])  # the last class has no partner
Weights = dict[str, np.ndarray]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).sum(1))[:, None]


def smoothed(z: np.ndarray, smoothing: float = 0.0) -> float:
    soft = np.full(z.shape, smoothing / CLASSES)
    soft[np.arange(len(z)), TARGETS] += 1 - smoothing
    return float(-(soft * log_softmax(z, axis=1)).sum(1).mean())


def ebv(x: np.ndarray, w: Weights, dims: int, temperature: float, label_smoothing: float) -> tuple[np.ndarray, float]:
    z = unit(x @ w["0.weight"].T + w["0.bias"]) @ w["2.directions"].T / temperature
    return z, smoothed(z, label_smoothing)


def psl(surrogate: Callable[[float], float]) -> Callable[..., tuple[np.ndarray, float]]:
    def reference(x: np.ndarray, w: Weights, temperature: float) -> tuple[np.ndarray, float]:
        scores = unit(x) @ unit(w["weight"]).T / 2
        losses = []
        for row, y in zip(scores, TARGETS, strict=True):
            terms = [surrogate(s - row[y]) ** (1 / temperature) for c, s in enumerate(row) if c != y]
            losses.append(math.log(sum(terms)))
        return scores / temperature, float(np.mean(losses))

    return reference


def contrast(rectified: bool) -> Callable[..., tuple[np.ndarray, float]]:
    def reference(x: np.ndarray, w: Weights, temperature: float, dims: int) -> tuple[np.ndarray, float]:
        f = x @ w["0.weight"].T + w["0.bias"]
        features = unit(np.maximum(f, 0) if rectified else f)
        last = "3" if rectified else "2"
        z = features @ w[f"{last}.weight"].T + w[f"{last}.bias"]
        losses = []
        for i in range(COUNT):
            others = [a for a in range(COUNT) if a != i]
            partners = [p for p in others if TARGETS[p] == TARGETS[i]]
            total = sum(math.exp(features[i] @ features[a] / temperature) for a in others)
            shares = [math.exp(features[i] @ features[p] / temperature) / total for p in partners]
            if partners:
                losses.append(-sum(map(math.log, shares)) / len(partners))
        return z, float(np.mean(losses)) + smoothed(z)

    return reference


def nonneg(x: np.ndarray, w: Weights, rectify_weights: bool) -> tuple[np.ndarray, float]:
    weight = np.maximum(w["1.weight"], 0) if rectify_weights else w["1.weight"]
    z = np.maximum(x, 0) @ weight.T + w["1.bias"]
    return z, smoothed(z)


def cf_line(x: np.ndarray, w: Weights) -> tuple[np.ndarray, float]:
    """The cubic's root by numpy's polynomial solver."""
    inner = w["m"] * (x @ w["weight"].T + w["bias"])
    z = np.empty_like(inner)
    for i, c in np.ndindex(*inner.shape):
        roots = np.roots([w["a"][c], 0.0, 1.0, -inner[i, c]])
        z[i, c] = roots[np.abs(roots.imag).argmin()].real
    hit = np.eye(CLASSES)[TARGETS]
    return z, float(-(hit * np.log(expit(z)) + (1 - hit) * np.log(expit(-z))).sum(1).mean())


REFERENCES: dict[str, Callable[..., tuple[np.ndarray, float]]] = {
    "ebv": ebv,
    "psl-tanh": psl(lambda d: math.tanh(d) + 1),
    "psl-atan": psl(lambda d: math.atan(d) + 1),
    "psl-relu": psl(lambda d: max(d + 1, 0)),
    "supcon": contrast(rectified=False),
    "supcon-relu": contrast(rectified=True),
    "supcon-relu-bind": contrast(rectified=True),
    "nonneg-ce": nonneg,
    "cf-line-head": cf_line,
}
PROBED = ("supcon", "supcon-relu", "supcon-relu-bind")
SURROGATE = ("nonneg-ce",)


class Head:
    """A loss with its output layer, in float64, on fixed features."""

    def __init__(self, name: str, **hp: object) -> None:
        self.method = METHODS[name]
        self.hp = {**self.method.defaults, **hp}
        torch.manual_seed(0)
        self.layer, classifier = output_layer(loss_head(self.method, self.hp)(FEATURES, CLASSES, True))
        self.layer.double()
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
        self.kept: dict[str, Tensor] = {}
        if "features" in inspect.signature(self.method.factory).parameters:
            classifier.register_forward_pre_hook(lambda module, args: self.kept.update(features=args[0]))
        stream = torch.Generator().manual_seed(1)
        self.x = torch.randn(COUNT, FEATURES, generator=stream, dtype=torch.float64)

    def __call__(self, x: Tensor, probe: bool = True) -> tuple[Tensor, Tensor]:
        """Logits and loss; without the probe's share of the gradient where `probe` is False."""
        logits = self.layer(x)
        given = logits if probe else logits.detach() * 0
        targets = torch.from_numpy(TARGETS).to(x.device)
        return logits, self.method.make(**self.hp)(given, targets, **{k: f.to(x.dtype) for k, f in self.kept.items()})

    def reference(self) -> tuple[np.ndarray, float]:
        arrays = {k: v.detach().numpy() for k, v in self.layer.state_dict().items()}
        return REFERENCES[self.method.name](self.x.numpy(), arrays, **self.hp)


def test_every_registered_loss_with_a_head_has_a_reference() -> None:
    assert set(REFERENCES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("u", [None, 0.0, 0.4, 1.0])
def test_logits_and_loss_agree_with_the_formula(name: str, u: float | None) -> None:
    space = METHODS[name].space
    head = Head(name, **({} if u is None else {k: domain.at(u) for k, domain in space.items()}))
    logits, loss = head(head.x)
    wanted, value = head.reference()
    np.testing.assert_allclose(logits.detach().numpy(), wanted, rtol=1e-7, atol=1e-9)
    assert loss.item() == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SURROGATE])
def test_gradient_is_the_derivative(name: str) -> None:
    head = Head(name)
    assert torch.autograd.gradcheck(lambda x: head(x, probe=name not in PROBED)[1], (head.x.clone().requires_grad_(),))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_extreme_features_give_finite_losses_and_gradients(name: str, size: float) -> None:
    head = Head(name)
    head.layer.float()
    x = (size * head.x.float()).requires_grad_()
    loss = head(x)[1]
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.layer.parameters())


@pytest.mark.parametrize("name", PROBED)
def test_a_probe_learns_and_sends_nothing_back(name: str) -> None:
    head = Head(name)
    x = head.x.clone().requires_grad_()
    with_probe = torch.autograd.grad(head(x)[1], x)[0]
    without = torch.autograd.grad(head(x, probe=False)[1], x)[0]
    torch.testing.assert_close(with_probe, without)
    head(x)[1].backward()
    assert head.layer[-1].weight.grad.abs().max() > 0


def test_nonneg_features_have_the_gradient_of_gelu() -> None:
    head = Head("nonneg-ce")
    x = head.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(head(x)[1], x)
    features = head.layer[0](head.x).requires_grad_()
    loss = METHODS["nonneg-ce"].make()(head.layer[1](features), torch.from_numpy(TARGETS))
    (upstream,) = torch.autograd.grad(loss, features)
    slope = torch.autograd.functional.jvp(nn.functional.gelu, head.x, torch.ones_like(head.x))[1]
    torch.testing.assert_close(gradient, upstream * slope)


def test_psl_margins_stay_where_its_surrogates_are_bounded() -> None:
    """1[d >= 0] <= surrogate(d) <= e^d on [-1, 1], where the cosine head keeps d."""
    head = Head("psl-atan")
    d = head.hp["temperature"] * (head(1e3 * head.x)[0][:, :, None] - head(1e3 * head.x)[0][:, None])
    assert d.abs().max() <= 1
    grid = np.linspace(-1, 1, 401)
    for values in (np.tanh(grid) + 1, np.arctan(grid) + 1, np.maximum(grid + 1, 0)):
        assert (values <= np.exp(grid) + 1e-12).all()
        assert (values >= (grid >= 0) - 1e-12).all()


@pytest.mark.parametrize("name", ["psl-tanh", "psl-atan", "psl-relu"])
def test_psl_is_finite_at_the_smallest_margin(name: str) -> None:
    """A feature along its own class and against the only other one: relu(d + 1) is 0."""
    logits = torch.tensor([[5.0, -5.0]], requires_grad=True)  # cosines 1 and -1 over 2 and τ* = 0.1
    loss = METHODS[name].make()(logits, torch.tensor([0]))
    assert loss.isfinite()
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_supcon_of_a_batch_without_partners_is_the_probe_alone() -> None:
    head = Head("supcon")
    z = torch.zeros(3, CLASSES, dtype=torch.float64)
    features = head.x[:3].clone().requires_grad_()
    loss = head.method.make()(z, torch.tensor([0, 1, 2]), features=features)
    assert loss.item() == pytest.approx(math.log(CLASSES))
    assert not torch.autograd.grad(loss, features)[0].any()


@pytest.mark.parametrize(("count", "dims"), [(10, 64), (10, 10), (10, 8), (100, 32), (100, 64)])
def test_equiangular_vectors_are_of_unit_length_and_as_orthogonal_as_promised(count: int, dims: int) -> None:
    directions = equiangular(count, dims).double()
    gram = directions @ directions.mT
    torch.testing.assert_close(gram.diagonal(), torch.ones(count, dtype=torch.float64), atol=1e-6, rtol=0)
    welch = math.sqrt(max(0, count - dims) / (dims * (count - 1)))
    largest = gram.fill_diagonal_(0).abs().max().item()
    assert welch - 1e-6 <= largest <= 1.5 * welch + 2e-4
    assert torch.equal(equiangular(count, dims), equiangular(count, dims))


# ---------------------------------------------------------------- in the engine


@pytest.mark.parametrize("task", ["digits-cnn", "shapes-vit"])
@pytest.mark.parametrize("name", NAMES)
def test_a_head_is_built_trained_and_evaluated(name: str, task: str) -> None:
    spec = RunSpec(task, name, "smoke", 0)
    work = make_workload(spec)
    trainer = Trainer(work, spec.recipe, spec.given)
    losses = [float(trainer.step()) for _ in range(12)]
    assert all(math.isfinite(v) for v in losses)
    metrics = trainer.evaluate()
    assert math.isfinite(metrics["ce"])
    roles = {info.role for _, info in named_parameters(work.model)}
    assert ("head" in roles) == (name != "ebv")
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in work.model.parameters()}
    assert not work.kept


@pytest.mark.parametrize("name", ["psl-tanh", "psl-relu"])
def test_a_cosine_head_fits_a_language_model(name: str) -> None:
    trainer = Trainer(
        make_workload(RunSpec("dyck-gpt", name, "smoke", 0)), RunSpec("dyck-gpt", name, "smoke").recipe, 60
    )
    losses = [float(trainer.step()) for _ in range(10)]
    assert losses[-1] < losses[0]


def test_bound_examples_join_every_batch_and_are_counted() -> None:
    spec = RunSpec("digits-cnn", "supcon-relu-bind", "smoke", 0)
    work, plain = make_workload(spec), make_workload(RunSpec("digits-cnn", "supcon-relu", "smoke", 0))
    for _ in range(2):
        for w in (work, plain):
            w.next()
        assert torch.equal(work.x[: plain.batch], plain.x)
        assert work.y[plain.batch :].tolist() == list(range(10))
        first = [int((work.data.train_y == c).nonzero()[0]) for c in range(10)]
        assert torch.equal(work.x[plain.batch :], work.data.train_x[first])
    assert (work.examples, plain.examples) == (2 * (plain.batch + 10), 2 * plain.batch)


def test_features_are_the_inputs_of_the_classifier_in_training_only() -> None:
    work = make_workload(RunSpec("digits-cnn", "supcon", "smoke", 0))
    work.next()
    work.model(work.x)
    assert work.kept["features"].shape == (len(work.x), 64)
    torch.testing.assert_close(work.kept["features"].norm(dim=1), torch.ones(len(work.x)))
    work.kept.clear()
    work.model.eval()(work.x)
    assert not work.kept
