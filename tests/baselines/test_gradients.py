"""Gradient methods against updates written out in numpy float64, and the contract of every registered one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import suite
from baselines.gradient.refined_schedule import refined
from suite.train.step import Stepper

NAMES = [m.name for m in suite.methods("gradient") if not m.name.startswith("highway-bp")]  # test_highway.py
SHAPES = {"matrix": (4, 6), "conv": (3, 2, 2, 2), "head": (2, 4), "embedding": (5, 2), "bias": (4,), "other": ()}
SIZES = {role: int(np.prod(shape)) for role, shape in SHAPES.items()}
COUNT = sum(SIZES.values())
RATES = [0.2, 0.2, 0.1, 0.15, 0.05, 0.02, 0.3]
HELD_OUT = -1  # the batch after those of the steps
HP: dict[str, dict[str, Any]] = {
    "grad-clip": {"max_norm": 0.7},
    "clip-value": {"max_value": 0.08},
    "agc": {"clipping": 0.2, "eps": 0.4},
    "sam": {"rho": 0.6},
    "amp": {"epsilon": 0.3, "inner_rate": 1.3, "inner_steps": 2},
    "amp-global": {"epsilon": 0.3, "inner_rate": 1.3, "inner_steps": 2},
    "extragradient": {"ratio": 1.7},
    "optimistic-gradient": {"ratio": 1.7},
    "lookahead": {"every": 3, "alpha": 0.4},
    "layca-sgd": {"rotation": 0.2, "train_rest": False},
    "layca-adam": {"rotation": 0.02, "train_rest": True},
    "ef21": {"density": 0.15},
    "ef-classic": {"density": 0.15},
    "lift": {"density": 0.3, "every": 3, "rank": 2},
    "magnitude-mask-ft": {"density": 0.3, "every": 3},
    "random-mask-ft": {"density": 0.3, "every": 3},
    "norm-loss-decoupled": {"strength": 0.3},
    "large-batch": {"batches": 3},
    "linear-lr-scaling": {"batches": 3},
    "sqrt-lr-scaling": {"batches": 3},
    "sqrt-lr-sgd": {"batches": 3},
    "refined-schedule": {"pilot": 0.6, "warmup": 0.3},
    "hypertrain-simplified": {"strength": 0.03, "hyper_rate": 0.3, "every": 2},
    "hypertrain-local": {"strength": 0.03, "hyper_rate": 0.3, "every": 2, "spread": 0.2},
    "hypertrain-global": {"strength": 0.03, "hyper_rate": 0.3, "units": 4, "search": 0.35},
}
WEIGHTS = ("matrix", "conv", "head", "embedding")
HAS_MOMENTS = ("lift", "magnitude-mask-ft", "random-mask-ft")

Vectors = dict[str, np.ndarray]


class Problem:
    """A least-squares loss with a sine ripple; the data change with every step, as batches do."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.a = rng.normal(size=(len(RATES), 40, COUNT)) / 6
        self.y = rng.normal(size=(len(RATES), 40))
        held = np.random.default_rng(100 + seed)
        self.a = np.concatenate([self.a, held.normal(size=(1, 40, COUNT)) / 6])
        self.y = np.concatenate([self.y, held.normal(size=(1, 40))])
        self.start = {role: rng.normal(size=shape) * 0.7 for role, shape in SHAPES.items()}
        self.batch = 0
        self.params = {role: torch.tensor(v, requires_grad=True) for role, v in self.start.items()}
        self.calls = 0

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [p], "role": role} for role, p in self.params.items()]

    def closure(self) -> Tensor:
        self.calls += 1
        for p in self.params.values():
            p.grad = None
        with torch.enable_grad():
            theta = torch.cat([p.flatten() for p in self.params.values()]).double()
            residual = torch.from_numpy(self.a[self.batch]) @ theta - torch.from_numpy(self.y[self.batch])
            loss = 0.5 * residual.square().sum() + 0.05 * theta.sin().sum()
            loss.backward()
        return loss.detach()

    def held_out(self) -> Tensor:
        """Loss and gradients of a batch that no step trains on."""
        batch, self.batch = self.batch, HELD_OUT
        try:
            return self.closure()
        finally:
            self.batch = batch

    def gradient(self, weights: Vectors, batch: int) -> Vectors:
        """The same gradient in numpy."""
        theta = np.concatenate([w.ravel() for w in weights.values()])
        a = self.a[batch]
        flat = a.T @ (a @ theta - self.y[batch]) + 0.05 * np.cos(theta)
        return unflatten(flat)


def unflatten(flat: np.ndarray) -> Vectors:
    parts = np.split(flat, np.cumsum(list(SIZES.values()))[:-1])
    return {role: part.reshape(SHAPES[role]) for role, part in zip(SHAPES, parts, strict=True)}


def flatten(vectors: Vectors) -> np.ndarray:
    return np.concatenate([v.ravel() for v in vectors.values()])


def total_norm(vectors: Vectors) -> float:
    return float(np.sqrt(sum((v**2).sum() for v in vectors.values())))


def run(name: str, make: Callable[..., torch.optim.Optimizer], steps: int = len(RATES)) -> tuple[Problem, Stepper]:
    """`steps` updates at the rates above, from the problem's start."""
    problem = Problem()
    optimizer = make(problem.groups(), lr=RATES[0])
    stepper = suite.method(name).make(optimizer, **HP.get(name, {}))
    advance(problem, stepper, range(steps))
    return problem, stepper


def advance(problem: Problem, stepper: Stepper, steps: range) -> None:
    if hasattr(stepper, "set_held_out"):
        stepper.set_held_out(problem.held_out)
    for step in steps:
        problem.batch = step
        for group in stepper.optimizer.param_groups:
            group["lr"] = RATES[step]
        if hasattr(stepper, "set_progress"):
            stepper.set_progress(step / len(RATES))
        stepper.step(problem.closure)


# ---------------------------------------------------------------- references
#
# Each takes (grad, hp) and yields, per step, a function weights, batch, lr -> new weights, written with
# gradient descent as the optimizer.

Grad = Callable[[Vectors, int], Vectors]
Rule = Callable[[Vectors, int, float], Vectors]


def descend(w: Vectors, g: Vectors, lr: float) -> Vectors:
    return {k: w[k] - lr * g[k] for k in w}


def moved(w: Vectors, d: Vectors) -> Vectors:
    return {k: w[k] + d[k] for k in w}


def of_gradient(change: Callable[[Vectors, Vectors], Vectors]) -> Callable[[Grad, dict], Rule]:
    """Reference of a method that only changes the gradient: change(weights, gradient)."""
    return lambda grad, hp: lambda w, b, lr: descend(w, change(w, grad(w, b)), lr)


def clip(grad: Grad, hp: dict) -> Rule:
    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        g = grad(w, b)
        factor = min(1.0, hp["max_norm"] / (total_norm(g) + 1e-6))
        return descend(w, {k: v * factor for k, v in g.items()}, lr)

    return rule


def clip_value(grad: Grad, hp: dict) -> Rule:
    c = hp["max_value"]
    return lambda w, b, lr: descend(w, {k: np.clip(v, -c, c) for k, v in grad(w, b).items()}, lr)


def agc(grad: Grad, hp: dict) -> Rule:
    def unit(w: np.ndarray, g: np.ndarray) -> np.ndarray:
        limit = hp["clipping"] * max(np.linalg.norm(w), hp["eps"])
        return g if np.linalg.norm(g) <= limit else g * limit / np.linalg.norm(g)

    def change(role: str, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        if role == "head":
            return g
        return unit(w, g) if w.ndim < 2 else np.stack([unit(x, y) for x, y in zip(w, g, strict=True)])

    return lambda w, b, lr: descend(w, {k: change(k, w[k], g) for k, g in grad(w, b).items()}, lr)


def centralized(w: Vectors, g: Vectors) -> Vectors:
    return {
        k: v - v.reshape(len(v), -1).mean(1).reshape(-1, *[1] * (v.ndim - 1)) if v.ndim > 1 else v for k, v in g.items()
    }


def perpendicular(w: Vectors, g: Vectors) -> Vectors:
    def one(w: np.ndarray, g: np.ndarray) -> np.ndarray:
        if w.size == 1:
            return g
        h = g - (w * g).sum() / (w * w).sum() * w
        return h * np.sqrt((g * g).sum() / (h * h).sum())

    return {k: one(w[k], g[k]) for k in w}


def sam(grad: Grad, hp: dict) -> Rule:
    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        g = grad(w, b)
        e = {k: hp["rho"] * v / (total_norm(g) + 1e-12) for k, v in g.items()}
        return descend(w, grad(moved(w, e), b), lr)

    return rule


def amp(shared: bool) -> Callable[[Grad, dict], Rule]:
    def reference(grad: Grad, hp: dict) -> Rule:
        def rule(w: Vectors, b: int, lr: float) -> Vectors:
            delta = {k: np.zeros_like(v) for k, v in w.items()}
            for _ in range(hp["inner_steps"]):
                g = grad(moved(w, delta), b)
                delta = {k: delta[k] + hp["inner_rate"] * g[k] for k in w}
                norms = {k: total_norm(delta) if shared else np.linalg.norm(delta[k].ravel()) for k in w}
                delta = {k: d * hp["epsilon"] / norms[k] if norms[k] > hp["epsilon"] else d for k, d in delta.items()}
            return descend(w, grad(moved(w, delta), b), lr)

        return rule

    return reference


def extragradient(grad: Grad, hp: dict) -> Rule:
    return lambda w, b, lr: descend(w, grad(descend(w, grad(w, b), hp["ratio"] * lr), b), lr)


def optimistic(grad: Grad, hp: dict) -> Rule:
    previous = {k: np.zeros(shape) for k, shape in SHAPES.items()}

    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        nonlocal previous
        previous = grad(descend(w, previous, hp["ratio"] * lr), b)
        return descend(w, previous, lr)

    return rule


def lookahead(grad: Grad, hp: dict) -> Rule:
    slow: Vectors = {}
    count = 0

    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        nonlocal slow, count
        slow = slow or w
        count += 1
        fast = descend(w, grad(w, b), lr)
        if count % hp["every"]:
            return fast
        slow = {k: (1 - hp["alpha"]) * slow[k] + hp["alpha"] * fast[k] for k in fast}
        return slow

    return rule


def layca(grad: Grad, hp: dict) -> Rule:
    def kernel(w: np.ndarray, s: np.ndarray, eta: float) -> np.ndarray:
        norm = np.sqrt((w * w).sum())
        s = s - (s * w).sum() * w / norm**2
        new = w - eta * s * norm / np.sqrt((s * s).sum())
        return new * norm / np.sqrt((new * new).sum())

    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        g = grad(w, b)
        eta = hp["rotation"] * lr / RATES[0]
        new = {k: kernel(w[k], g[k], eta) for k in ("matrix", "conv", "head", "embedding")}
        rest = {k: w[k] - lr * g[k] if hp["train_rest"] else w[k] for k in ("bias", "other")}
        return new | rest

    return rule


def largest(vector: np.ndarray, density: float) -> np.ndarray:
    """Indices of the share `density` of entries largest in absolute value."""
    return np.argsort(-np.abs(vector))[: round(density * vector.size)]


def ef21(grad: Grad, hp: dict) -> Rule:
    h = np.zeros(COUNT)

    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        gap = flatten(grad(w, b)) - h
        kept = largest(gap, hp["density"])
        h[kept] += gap[kept]
        return descend(w, unflatten(h), lr)

    return rule


def ef_classic(grad: Grad, hp: dict) -> Rule:
    e = np.zeros(COUNT)

    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        nonlocal e
        p = lr * flatten(grad(w, b)) + e
        sent = np.zeros(COUNT)
        kept = largest(p, hp["density"])
        sent[kept] = p[kept]
        e = p - sent
        return moved(w, unflatten(-sent))

    return rule


def masked(score: Callable[[np.ndarray, int, dict], np.ndarray]) -> Callable[[Grad, dict], Rule]:
    def reference(grad: Grad, hp: dict) -> Rule:
        steps = 0
        mask = np.zeros(0)

        def rule(w: Vectors, b: int, lr: float) -> Vectors:
            nonlocal steps, mask
            if steps == 0 or (steps + 1) % hp["every"] == 0:
                mask = np.zeros(SIZES["matrix"])
                mask[largest(score(w["matrix"], steps, hp).ravel(), hp["density"])] = 1
            steps += 1
            return w | {"matrix": w["matrix"] - lr * grad(w, b)["matrix"] * mask.reshape(SHAPES["matrix"])}

        return rule

    return reference


def low_rank(w: np.ndarray, step: int, hp: dict) -> np.ndarray:
    values, vectors = np.linalg.eigh(w @ w.T)
    top = vectors[:, np.argsort(-values)[: hp["rank"]]]
    return top @ top.T @ w


def random_score(w: np.ndarray, step: int, hp: dict) -> np.ndarray:
    generator = torch.Generator().manual_seed((step << 20) + 0)
    return torch.rand(w.shape, generator=generator).numpy()


def norm_loss(grad: Grad, hp: dict) -> Rule:
    """Each output channel's norm goes from r to r - 2 lr strength (r - r/(r + 1e-8)) before the step."""

    def pulled(w: np.ndarray, lr: float) -> np.ndarray:
        channels = w.reshape(len(w), -1)
        norms = np.sqrt((channels**2).sum(1, keepdims=True))
        excess = norms - norms / (norms + 1e-8)
        return (channels / norms * (norms - 2 * lr * hp["strength"] * excess)).reshape(w.shape)

    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        return descend({k: pulled(v, lr) if k in WEIGHTS else v for k, v in w.items()}, grad(w, b), lr)

    return rule


def large_batch(factor: float, limit: float = np.inf) -> Callable[[Grad, dict], Rule]:
    def reference(grad: Grad, hp: dict) -> Rule:
        waiting: list[Vectors] = []

        def rule(w: Vectors, b: int, lr: float) -> Vectors:
            waiting.append(grad(w, b))
            if len(waiting) < hp["batches"]:
                return w
            mean = {k: sum(g[k] for g in waiting) / len(waiting) for k in w}
            waiting.clear()
            clipped = min(1.0, limit / (total_norm(mean) + 1e-6))
            return descend(w, mean, lr * factor * clipped)

        return rule

    return reference


def refined_rates(norms: list[float]) -> list[float]:
    """Of a pilot so short that the median filter has width 1."""
    weights = [n**-2.0 for n in norms]
    rates = [w * sum(weights[t + 1 :]) for t, w in enumerate(weights)]
    return [r / max(rates) for r in rates]


def refined_schedule(grad: Grad, hp: dict) -> Rule:
    norms: list[float] = []
    rates: list[float] = []
    start: Vectors = {}

    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        nonlocal start
        start = start or w
        share = b / len(RATES)
        if share < hp["pilot"]:
            g, place = grad(w, b), share / hp["pilot"]
            norms.append(total_norm(g))
            ramp = 1.0 if place >= hp["warmup"] else 0.01 + 0.99 * place / hp["warmup"]
            return descend(w, g, RATES[0] * ramp * (1 - place))
        if not rates:
            rates.extend(refined_rates(norms))
            w = start
        place = (share - hp["pilot"]) / (1 - hp["pilot"])
        return descend(w, grad(w, b), RATES[0] * rates[int(place * len(rates))])

    return rule


class Adam1:
    """Adam on one number."""

    def __init__(self, value: float, rate: float) -> None:
        self.value, self.rate, self.m, self.v, self.t = value, rate, 0.0, 0.0, 0

    def descend(self, slope: float) -> None:
        self.t += 1
        self.m += 0.1 * (slope - self.m)
        self.v += 0.001 * (slope**2 - self.v)
        self.value -= self.rate * self.m / (1 - 0.9**self.t) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


def dot(a: Vectors, b: Vectors) -> float:
    return float(sum((a[k] * b[k]).sum() for k in a))


def penalised(grad: Grad, hp: dict, excess: float) -> Grad:
    """Gradients of loss + strength e^excess ||w||^2."""

    def of(w: Vectors, b: int) -> Vectors:
        return {k: g + 2 * hp["strength"] * np.exp(excess) * w[k] * (k in WEIGHTS) for k, g in grad(w, b).items()}

    return of


def hyper_local(grad: Grad, hp: dict) -> Rule:
    """Linear hypernetwork w = b + V h; `w` of a step is what the model holds, at the current h."""
    hyper, count = Adam1(1.0, hp["hyper_rate"]), 0
    stream = torch.Generator().manual_seed(0)
    base: Vectors = {}
    slope: Vectors = {}

    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        nonlocal base, slope, count
        base, slope = base or w, slope or {k: np.zeros_like(v) for k, v in w.items()}
        count += 1
        noise = torch.randn((), generator=stream, dtype=torch.float64).item() if "spread" in hp else 0.0
        h = hyper.value + hp.get("spread", 0.0) * noise
        at = {k: base[k] + h * slope[k] for k in w}
        g = penalised(grad, hp, h - 1)(at, b)
        base, slope = descend(base, g, lr), descend(slope, g, lr * h)
        if count % hp["every"] == 0:
            now = {k: base[k] + hyper.value * slope[k] for k in w}
            hyper.descend(dot(grad(now, HELD_OUT), slope))
        return {k: base[k] + hyper.value * slope[k] for k in w}

    return rule


def hyper_global(grad: Grad, hp: dict) -> Rule:
    """w = b + sum over units of V_j relu(u_j h + c_j)."""
    hyper, stream = Adam1(0.0, hp["hyper_rate"]), torch.Generator().manual_seed(0)
    u, c = torch.randn(2, hp["units"], generator=stream, dtype=torch.float64).numpy()
    base: Vectors = {}
    slopes: list[Vectors] = []

    def weights(h: float) -> Vectors:
        return {k: base[k] + sum(unit(j, h) * v[k] for j, v in enumerate(slopes)) for k in base}

    def unit(j: int, h: float) -> float:
        return max(0.0, u[j] * h + c[j]) / np.sqrt(hp["units"])

    def rule(w: Vectors, b: int, lr: float) -> Vectors:
        nonlocal base, u, c
        if not slopes:
            base = w
            slopes.extend({k: np.zeros_like(v) for k, v in w.items()} for _ in range(hp["units"]))
        if b / len(RATES) >= 1 - hp["search"]:
            g = grad(weights(hyper.value), HELD_OUT)
            active = u * (u * hyper.value + c > 0) / np.sqrt(hp["units"])
            hyper.descend(sum(active[j] * dot(g, v) for j, v in enumerate(slopes)))
            return weights(hyper.value)
        h = 1.5 * torch.randn((), generator=stream, dtype=torch.float64).item()
        g = penalised(grad, hp, h)(weights(h), b)
        inner = np.array([dot(g, v) for v in slopes]) * (u * h + c > 0) / np.sqrt(hp["units"])
        slopes[:] = [descend(v, g, lr * unit(j, h)) for j, v in enumerate(slopes)]
        base, u, c = descend(base, g, lr), u - lr * h * inner, c - lr * inner
        return weights(hyper.value)

    return rule


REFERENCES: dict[str, Callable[[Grad, dict], Rule]] = {
    "plain": of_gradient(lambda w, g: g),
    "grad-clip": clip,
    "clip-value": clip_value,
    "agc": agc,
    "gradient-centralization": of_gradient(centralized),
    "perp-grad": of_gradient(perpendicular),
    "sam": sam,
    "amp": amp(shared=False),
    "amp-global": amp(shared=True),
    "extragradient": extragradient,
    "optimistic-gradient": optimistic,
    "lookahead": lookahead,
    "layca-sgd": layca,
    "layca-adam": layca,
    "ef21": ef21,
    "ef-classic": ef_classic,
    "lift": masked(low_rank),
    "magnitude-mask-ft": masked(lambda w, step, hp: w),
    "random-mask-ft": masked(random_score),
    "norm-loss-decoupled": norm_loss,
    "large-batch": large_batch(1.0),
    "linear-lr-scaling": large_batch(3.0),
    "sqrt-lr-scaling": large_batch(3**0.5),
    "sqrt-lr-sgd": large_batch(3**0.5, limit=5.0),
    "refined-schedule": refined_schedule,
    "hypertrain-simplified": hyper_local,
    "hypertrain-local": hyper_local,
    "hypertrain-global": hyper_global,
}


def test_every_registered_gradient_has_a_reference() -> None:
    assert set(REFERENCES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_updates_with_gradient_descent_agree_with_numpy(name: str) -> None:
    problem = Problem()
    rule = REFERENCES[name](problem.gradient, HP.get(name, {}))
    stepper = suite.method(name).make(torch.optim.SGD(problem.groups(), lr=RATES[0]), **HP.get(name, {}))
    weights = problem.start
    for step, lr in enumerate(RATES):
        weights = rule(weights, step, lr)
        advance(problem, stepper, range(step, step + 1))
        for role, p in problem.params.items():
            np.testing.assert_allclose(p.detach().numpy(), weights[role], rtol=1e-10, atol=1e-12, err_msg=role)


def test_hyper_parameters_of_the_references_change_the_updates() -> None:
    plain = run("plain", torch.optim.SGD)[0].params
    for name in sorted(set(NAMES) - {"plain"}):
        other = run(name, torch.optim.SGD)[0].params
        assert any(not torch.allclose(plain[role], other[role]) for role in plain), name


# ---------------------------------------------------------------- contract


def adamw(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=lr, weight_decay=0.1)


def momentum(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=lr, momentum=0.9)


def lbfgs(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    params = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.LBFGS(params, lr=lr, max_iter=4, history_size=5)
    optimizer.needs_closure = True  # type: ignore[attr-defined]
    return optimizer


OPTIMIZERS = {"sgd": momentum, "adamw": adamw, "lbfgs": lbfgs}


@pytest.mark.parametrize("make", [momentum, adamw], ids=["sgd", "adamw"])
@pytest.mark.parametrize("name", NAMES)
def test_method_trains_with_any_optimizer(name: str, make: Callable[..., torch.optim.Optimizer]) -> None:
    problem = Problem()
    stepper = suite.method(name).make(make(problem.groups(), lr=0.02), **HP.get(name, {}))
    losses = [stepper.step(problem.closure).item() for _ in range(30)]
    assert np.isfinite(losses).all()
    assert problem.closure().item() < losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_evaluation_of_an_optimizer_with_a_closure_goes_through_the_method(name: str) -> None:
    problem = Problem()
    optimizer = lbfgs(problem.groups(), lr=0.02)
    stepper = suite.method(name).make(optimizer, **HP.get(name, {}))
    loss = stepper.step(problem.closure)
    evaluations = optimizer.state_dict()["state"][0]["func_evals"]
    passes = HP[name]["inner_steps"] + 1 if name.startswith("amp") else int(suite.method(name).passes)
    assert evaluations > 1
    assert problem.calls == evaluations * passes
    assert np.isfinite(loss.item())
    assert any(not np.array_equal(p.detach().numpy(), problem.start[role]) for role, p in problem.params.items())


@pytest.mark.parametrize("name", NAMES)
def test_step_costs_the_stated_number_of_passes_and_returns_the_loss_before_it(name: str) -> None:
    method = suite.method(name)
    problem = Problem()
    before = problem.closure()
    problem.calls = 0
    stepper = method.make(adamw(problem.groups(), lr=1e-3))
    loss = stepper.step(problem.closure)
    assert problem.calls == int(method.passes)  # a fraction is what some steps cost more
    assert not loss.requires_grad
    assert loss.item() == before.item()


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """The state after a trip through a file that holds tensors and plain numbers only."""
    assert all(isinstance(v, Tensor | int | float) for v in state.values())
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("make", [momentum, adamw], ids=["sgd", "adamw"])
@pytest.mark.parametrize("name", NAMES)
def test_state_round_trip_in_the_middle_changes_nothing(name: str, make: Callable[..., torch.optim.Optimizer]) -> None:
    whole, _ = run(name, make)
    half, stepper = run(name, make, steps=4)
    resumed = Problem(seed=1)
    resumed.a, resumed.y = half.a, half.y
    optimizer = make(resumed.groups(), lr=RATES[0])
    later = suite.method(name).make(optimizer, **HP.get(name, {}))
    with torch.no_grad():
        for role, p in resumed.params.items():
            p.copy_(half.params[role])
    optimizer.load_state_dict(saved_optimizer(stepper.optimizer))
    later.load_state_dict(saved(stepper.state_dict()))
    advance(resumed, later, range(4, len(RATES)))
    for role in SHAPES:
        assert torch.equal(resumed.params[role], whole.params[role]), role


def saved_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_outside_the_loss_is_left_alone(name: str) -> None:
    problem = Problem()
    idle = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    groups = [*problem.groups(), {"params": [idle], "role": "matrix"}]
    stepper = suite.method(name).make(torch.optim.SGD(groups, lr=0.1), **HP.get(name, {}))
    for _ in range(6):
        stepper.step(problem.closure)
    assert torch.allclose(idle, torch.ones_like(idle), rtol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_group_without_a_role_is_taken(name: str) -> None:
    problem = Problem()
    stepper = suite.method(name).make(torch.optim.SGD(list(problem.params.values()), lr=0.05), **HP.get(name, {}))
    for _ in range(3):
        stepper.step(problem.closure)
    assert any(not np.array_equal(p.detach().numpy(), problem.start[role]) for role, p in problem.params.items())


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_weights_train_and_stay_bfloat16(name: str) -> None:
    problem = Problem()
    problem.params = {role: p.detach().bfloat16().requires_grad_() for role, p in problem.params.items()}
    before = [p.detach().clone() for p in problem.params.values()]
    stepper = suite.method(name).make(momentum(problem.groups(), lr=RATES[0]), **HP.get(name, {}))
    advance(problem, stepper, range(len(RATES)))
    after = [p.detach() for p in problem.params.values()]
    assert all(p.dtype == torch.bfloat16 and p.isfinite().all() for p in after)
    assert not all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


# ---------------------------------------------------------------- what each is for


class Watch(torch.optim.SGD):
    """Gradient descent that notes the weights and gradients it is given."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        params = [p for group in self.param_groups for p in group["params"]]
        self.weights = [p.detach().clone() for p in params]
        self.grads = [None if p.grad is None else p.grad.clone() for p in params]
        super().step(closure)


def watched(name: str, **hp: Any) -> tuple[Problem, Watch, Stepper]:
    problem = Problem()
    optimizer = Watch(problem.groups(), lr=0.1)
    return problem, optimizer, suite.method(name).make(optimizer, **hp)


def seen_weights(problem: Problem, stepper: Stepper) -> list[np.ndarray]:
    """All weights, flat, at each pass of one step."""
    visits: list[np.ndarray] = []

    def closure() -> Tensor:
        visits.append(np.concatenate([p.detach().numpy().ravel() for p in problem.params.values()]))
        return problem.closure()

    stepper.step(closure)
    return visits


def test_sam_looks_at_distance_rho_uphill_and_steps_from_the_exact_weights() -> None:
    problem, optimizer, stepper = watched("sam", rho=0.37)
    uphill = flatten(problem.gradient(problem.start, 0))
    here, there = seen_weights(problem, stepper)
    assert np.linalg.norm(there - here) == pytest.approx(0.37, rel=1e-9)
    assert np.dot(there - here, uphill) == pytest.approx(0.37 * np.linalg.norm(uphill), rel=1e-9)
    assert np.array_equal(torch.cat([w.flatten() for w in optimizer.weights]).numpy(), here)


@pytest.mark.parametrize("name", ["sam", "amp", "amp-global", "extragradient"])
def test_weights_come_back_when_the_second_pass_fails(name: str) -> None:
    problem, _, stepper = watched(name)

    def closure() -> Tensor:
        if problem.calls == 1:
            raise FloatingPointError("second pass")
        return problem.closure()

    with pytest.raises(FloatingPointError):
        stepper.step(closure)
    for role, p in problem.params.items():
        assert np.array_equal(p.detach().numpy(), problem.start[role])


def test_sam_at_a_stationary_point_stays_there() -> None:
    w = torch.zeros(3, requires_grad=True)
    stepper = suite.method("sam").make(torch.optim.SGD([w], lr=0.1))

    def closure() -> Tensor:
        w.grad = None
        loss = w.square().sum()
        loss.backward()
        return loss.detach()

    stepper.step(closure)
    assert torch.equal(w.detach(), torch.zeros(3))


@pytest.mark.parametrize(("name", "shared"), [("amp", False), ("amp-global", True)])
def test_amp_stays_inside_its_ball(name: str, shared: bool) -> None:
    problem, _, stepper = watched(name, epsilon=0.2, inner_rate=50.0)
    here, there = seen_weights(problem, stepper)
    delta = unflatten(there - here)
    norms = [total_norm(delta)] if shared else [float(np.linalg.norm(d.ravel())) for d in delta.values()]
    assert norms == pytest.approx([0.2] * len(norms), rel=1e-9)


def test_clipped_norm_is_the_limit_and_small_gradients_pass_unchanged() -> None:
    problem, optimizer, stepper = watched("grad-clip", max_norm=0.25)
    stepper.step(problem.closure)
    assert torch.cat([g.flatten() for g in optimizer.grads]).norm().item() == pytest.approx(0.25, rel=1e-5)
    problem, optimizer, stepper = watched("grad-clip", max_norm=1e6)
    stepper.step(problem.closure)
    expected = problem.gradient(problem.start, 0)
    for role, g in zip(SHAPES, optimizer.grads, strict=True):
        np.testing.assert_allclose(g.numpy(), expected[role], rtol=1e-13, atol=1e-14)


def test_perpendicular_gradient_is_orthogonal_at_the_old_norm_and_scalars_keep_theirs() -> None:
    problem, optimizer, stepper = watched("perp-grad")
    stepper.step(problem.closure)
    before = problem.gradient(problem.start, 0)
    for role, w, g in zip(SHAPES, optimizer.weights, optimizer.grads, strict=True):
        if w.numel() > 1:
            assert abs((w * g).sum().item()) < 1e-12
            assert g.norm().item() == pytest.approx(np.linalg.norm(before[role].ravel()), rel=1e-12)
        else:
            assert g.item() == pytest.approx(before[role].item(), rel=1e-14)


def test_perpendicular_gradient_of_zero_weights_is_the_gradient() -> None:
    w = torch.zeros(4, requires_grad=True)
    optimizer = Watch([w], lr=0.1)
    stepper = suite.method("perp-grad").make(optimizer)

    def closure() -> Tensor:
        w.grad = torch.tensor([1.0, -2.0, 0.0, 3.0])
        return torch.zeros(())

    stepper.step(closure)
    assert torch.allclose(optimizer.grads[0], torch.tensor([1.0, -2.0, 0.0, 3.0]))


def kernels(problem: Problem) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for role in ("matrix", "conv", "head", "embedding"):
        yield problem.start[role].ravel(), problem.params[role].detach().numpy().ravel()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("name", ["layca-sgd", "layca-adam"])
def test_layca_turns_every_kernel_by_the_same_angle_and_keeps_its_norm(
    name: str, make: Callable[..., torch.optim.Optimizer]
) -> None:
    problem = Problem()
    stepper = suite.method(name).make(make(problem.groups(), lr=0.1), rotation=0.3)
    for group in stepper.optimizer.param_groups:
        group["lr"] = 0.05
    stepper.step(problem.closure)
    for before, after in kernels(problem):
        assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), rel=1e-12)
        cosine = before @ after / (np.linalg.norm(before) * np.linalg.norm(after))
        assert np.arccos(cosine) == pytest.approx(np.arctan(0.15), rel=1e-6)
    for _ in range(20):
        stepper.step(problem.closure)
    for before, after in kernels(problem):
        assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), rel=1e-12)


def test_layca_leaves_gains_and_biases_at_their_initial_values() -> None:
    problem, _ = run("layca-sgd", adamw)
    for role in ("bias", "other"):
        assert np.array_equal(problem.params[role].detach().numpy(), problem.start[role])


def test_layca_at_learning_rate_zero_moves_nothing() -> None:
    problem = Problem()
    stepper = suite.method("layca-sgd").make(momentum(problem.groups(), lr=0.1))
    for group in stepper.optimizer.param_groups:
        group["lr"] = 0.0
    stepper.step(problem.closure)
    for role, p in problem.params.items():
        assert np.array_equal(p.detach().numpy(), problem.start[role])


def test_layca_trains_a_kernel_that_starts_at_zero_with_the_plain_step() -> None:
    problem = Problem()
    with torch.no_grad():
        problem.params["head"].zero_()
    stepper = suite.method("layca-sgd").make(torch.optim.SGD(problem.groups(), lr=0.1))
    start = {role: p.detach().numpy().copy() for role, p in problem.params.items()}
    gradient = problem.gradient(start, 0)["head"]
    stepper.step(problem.closure)
    np.testing.assert_allclose(problem.params["head"].detach().numpy(), -0.1 * gradient, rtol=1e-12)


def test_layca_ignores_a_radial_step() -> None:
    w = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    stepper = suite.method("layca-sgd").make(torch.optim.SGD([w], lr=0.1))

    def closure() -> Tensor:
        w.grad = torch.tensor([[0.3, 0.4]], dtype=torch.float64)
        return torch.zeros(())

    stepper.step(closure)
    assert torch.allclose(w.detach(), torch.tensor([[3.0, 4.0]], dtype=torch.float64), rtol=1e-15)


def test_ef21_sends_k_entries_of_all_parameters_together() -> None:
    problem, optimizer, stepper = watched("ef21", density=0.1)
    stepper.step(problem.closure)
    first = torch.cat([g.flatten() for g in optimizer.grads]).numpy()
    expected = np.zeros(COUNT)
    dense = flatten(problem.gradient(problem.start, 0))
    kept = np.argsort(-np.abs(dense))[: round(0.1 * COUNT)]
    expected[kept] = dense[kept]
    np.testing.assert_allclose(first, expected, rtol=1e-12, atol=1e-15)


def test_ef21_reaches_a_constant_gradient_in_one_over_density_steps() -> None:
    w = torch.zeros(20, dtype=torch.float64, requires_grad=True)
    constant = torch.linspace(-1, 1.1, 20, dtype=torch.float64)
    optimizer = Watch([w], lr=0.1)
    stepper = suite.method("ef21").make(optimizer, density=0.25)

    def closure() -> Tensor:
        w.grad = constant.clone()
        return torch.zeros(())

    for _ in range(4):
        stepper.step(closure)
    assert torch.allclose(optimizer.grads[0], constant)


def test_classic_error_feedback_loses_nothing_while_the_learning_rate_moves() -> None:
    problem, _, stepper = watched("ef-classic", density=0.1)
    proposed = np.zeros(COUNT)
    for step, lr in enumerate([0.1, 0.0, 0.03, 0.2]):
        problem.batch = step
        weights = {role: p.detach().numpy().copy() for role, p in problem.params.items()}
        proposed += lr * flatten(problem.gradient(weights, step))
        for group in stepper.optimizer.param_groups:
            group["lr"] = lr
        stepper.step(problem.closure)
    travelled = np.concatenate([(problem.start[r] - p.detach().numpy()).ravel() for r, p in problem.params.items()])
    np.testing.assert_allclose(travelled + stepper.state_dict()["memory"].numpy(), proposed, atol=1e-12)


@pytest.mark.parametrize("name", HAS_MOMENTS)
def test_masked_update_trains_the_share_of_hidden_entries_and_nothing_else(name: str) -> None:
    problem = Problem()
    hp = {**HP[name], "every": 100}
    stepper = suite.method(name).make(adamw(problem.groups(), lr=0.05), **hp)
    for _ in range(5):
        stepper.step(problem.closure)
    changed = problem.params["matrix"].detach().numpy() != problem.start["matrix"]
    assert changed.sum() == round(0.3 * SIZES["matrix"])
    for role in set(SHAPES) - {"matrix"}:
        assert np.array_equal(problem.params[role].detach().numpy(), problem.start[role]), role


@pytest.mark.parametrize("name", HAS_MOMENTS)
def test_refreshed_mask_starts_new_entries_from_zero_moments(name: str) -> None:
    problem = Problem()
    stepper = suite.method(name).make(adamw(problem.groups(), lr=0.3), **HP[name])
    for step in range(len(RATES)):
        problem.batch = step
        stepper.step(problem.closure)
        mask = stepper.state_dict()["mask.0"]
        moments = stepper.optimizer.state[problem.params["matrix"]]
        for key in ("exp_avg", "exp_avg_sq"):
            assert not moments[key][~mask].any()


def test_lift_at_full_rank_chooses_as_the_magnitudes_do() -> None:
    problem = Problem()
    lift = suite.method("lift").make(adamw(problem.groups(), lr=0.1), density=0.3, rank=4)
    magnitude = suite.method("magnitude-mask-ft").make(adamw(problem.groups(), lr=0.1), density=0.3)
    assert torch.equal(lift.state_dict()["mask.0"], magnitude.state_dict()["mask.0"])


def test_random_masks_differ_between_refreshes() -> None:
    problem = Problem()
    stepper = suite.method("random-mask-ft").make(adamw(problem.groups(), lr=0.1), density=0.3, every=2)
    first = stepper.state_dict()["mask.0"].clone()
    stepper.step(problem.closure)
    assert not torch.equal(first, stepper.state_dict()["mask.0"])


def test_centralised_rows_have_mean_zero() -> None:
    problem, optimizer, stepper = watched("gradient-centralization")
    stepper.step(problem.closure)
    for role, g in zip(SHAPES, optimizer.grads, strict=True):
        if len(SHAPES[role]) > 1:
            assert g.flatten(1).mean(1).abs().max().item() < 1e-14


def test_adaptive_clipping_leaves_the_head_alone() -> None:
    problem, optimizer, stepper = watched("agc", clipping=1e-6)
    stepper.step(problem.closure)
    grads = dict(zip(SHAPES, optimizer.grads, strict=True))
    np.testing.assert_allclose(grads["head"].numpy(), problem.gradient(problem.start, 0)["head"], rtol=1e-12)
    assert grads["matrix"].abs().max().item() < 1e-5


def test_lookahead_resets_fast_to_slow_every_k_steps_only() -> None:
    problem, _, stepper = watched("lookahead", every=4, alpha=0.5)
    plain_problem, _, plain = watched("plain")
    for step in range(1, 5):
        stepper.step(problem.closure)
        plain.step(plain_problem.closure)
        for role, p in problem.params.items():
            fast = plain_problem.params[role].detach().numpy()
            expected = (problem.start[role] + fast) / 2 if step == 4 else fast
            np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-12, atol=1e-15)


def test_plain_lbfgs_is_torchs() -> None:
    problem, bare = Problem(), Problem()
    stepper = suite.method("plain").make(lbfgs(problem.groups(), lr=0.5))
    optimizer = lbfgs(bare.groups(), lr=0.5)
    for _ in range(3):
        stepper.step(problem.closure)
        optimizer.step(bare.closure)
    for role in SHAPES:
        assert torch.equal(problem.params[role], bare.params[role])


# ---------------------------------------------------------------- refined schedules, large batches, hyper-training


@pytest.mark.parametrize("order", [1, 2])
def test_a_refined_schedule_is_made_of_medians_over_a_tenth_of_the_pilot(order: int) -> None:
    norms = np.random.default_rng(0).lognormal(size=200) * np.linspace(3, 1, 200)
    window = 10  # on either side: the width is 21
    ends = np.concatenate([np.full(window, norms[0]), norms, norms[-2 : -2 - window : -1]])
    smooth = np.array([np.median(ends[t : t + 2 * window + 1]) for t in range(200)])
    weights = smooth ** -float(order)
    rates = np.array([w * weights[t + 1 :].sum() for t, w in enumerate(weights)])
    np.testing.assert_allclose(refined(norms, order), rates / rates.max(), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_constant_norms_are_refined_to_linear_decay(order: int) -> None:
    for norm in (3.0, 0.0):
        np.testing.assert_allclose(refined(np.full(50, norm), order), np.arange(49, -1, -1) / 49, rtol=1e-12)


@pytest.mark.parametrize(("make", "norm"), [(momentum, 2), (adamw, 1)], ids=["sgd", "adamw"])
def test_the_pilots_norms_are_the_optimizers_own_and_its_state_starts_anew(make: Any, norm: int) -> None:
    problem = Problem()
    stepper = suite.method("refined-schedule").make(make(problem.groups(), lr=0.1))
    seen = []
    for share in (0.0, 0.2, 0.4):
        stepper.set_progress(share)
        gradient = flatten(problem.gradient({k: p.detach().numpy() for k, p in problem.params.items()}, 0))
        seen.append(np.linalg.norm(gradient, norm))
        stepper.step(problem.closure)
    np.testing.assert_allclose(stepper.norms, seen, rtol=1e-10)
    stepper.set_progress(0.5)
    stepper.step(problem.closure)
    again = Problem()
    first = make(again.groups(), lr=0.1 * stepper.schedule[0])
    again.closure()
    first.step()
    for role, p in problem.params.items():
        torch.testing.assert_close(p, again.params[role])


def test_a_large_batch_is_one_batch_of_all_its_examples() -> None:
    """Two half batches make the update of the whole one, with any optimizer."""
    whole, halves = Problem(), Problem()
    halves.a, halves.y = (
        np.concatenate([v[:1, :20], v[:1, 20:]]) * 2**0.5 for v in (halves.a, halves.y)
    )  # each half's loss counts twice, so that the mean of the two is the whole's
    plain = suite.method("plain").make(adamw(whole.groups(), lr=0.1))
    large = suite.method("large-batch").make(adamw(halves.groups(), lr=0.1), batches=2)
    plain.step(whole.closure)
    for halves.batch in (0, 1):
        large.step(halves.closure)
    for role, p in whole.params.items():
        torch.testing.assert_close(p, halves.params[role], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("held_out", "direction"), [("zero", 1), ("the training targets", -1)])
def test_hyper_training_raises_a_penalty_that_helps_and_lowers_one_that_harms(held_out: str, direction: int) -> None:
    problem, targets = Problem(), 5 * np.random.default_rng(5).normal(size=40)
    problem.a[:], problem.y[:] = problem.a[0].copy(), targets
    problem.y[HELD_OUT] = 0.0 if held_out == "zero" else targets
    hp = {"strength": 0.1, "hyper_rate": 0.05, "units": 20, "search": 0.2}
    stepper = suite.method("hypertrain-global").make(torch.optim.SGD(problem.groups(), lr=0.02), **hp)
    stepper.set_held_out(problem.held_out)
    for step in range(400):
        stepper.set_progress(step / 400)
        stepper.step(problem.closure)
    assert direction * stepper.h > 0.5
