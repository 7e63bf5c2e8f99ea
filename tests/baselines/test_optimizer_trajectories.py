"""Every registered optimizer against an independent float64 trajectory, written from its formulas in numpy.

The problem has one tensor of each role and a batch that changes from step to step; learning rates
follow a schedule. A registered optimizer without a reference here fails.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import suite
from suite.train.step import hessian_vector

STEPS = 50
SHAPES = {
    "matrix": (4, 3),
    "conv": (3, 2, 2, 2),
    "embedding": (5, 3),
    "head": (2, 4),
    "norm": (4,),
    "bias": (3,),
    "other": (),
}
SQUARE = {**SHAPES, "matrix": (3, 3), "conv": (4, 2, 2, 1), "embedding": (3, 3), "head": (2, 2)}
WEIGHTS = ("matrix", "conv", "embedding", "head")
HIDDEN = ("matrix", "conv")
PROBLEMS: dict[str, dict[str, Any]] = {
    "soap": {"shapes": SQUARE},  # the basis of a singular Gram matrix isn't unique
    "lbfgs": {"batches": 1, "rows": 128},  # line searches on changing batches amplify rounding
    "adam-lbfgs": {"batches": 1, "rows": 128},
}
# hyper-parameters under which every part of a rule matters on this problem
CHANGED: dict[str, dict[str, Any]] = {
    "lbfgs": {"max_iter": 1, "history": 5},
    "adam-lbfgs": {"max_iter": 1, "switch": 0.85},
    "prodigy": {"d0": 1e-3},
    "prodigy-noema": {"d0": 1e-3},
    "lion-k-threshold": {"threshold": 0.01},
    "lion-k-huber": {"threshold": 0.05},
    "lion-k-topk": {"share": 0.3},
    "sgdw": {"weight_decay": 0.01},
    "sgd-eg": {"weight_decay": 0.01},
    "beta-ngd": {"momentum": 0.5},
    "adamnc": {"gamma": 0.99},
    "aprox-ftrl": {"power": 0.5, "lr": 0.5},
    "mars": {"gamma": 0.5},
    "sophia-h": {"gamma": 20.0, "betas": (0.9, 0.8), "interval": 3, "lr": 0.02},
    "sign-descent": {"momentum": 0.5},
    "spectral-descent": {"momentum": 0.5},
    "modular-descent": {"momentum": 0.5},
}
DECAY = 0.05


class Problem:
    """Mean log cosh of X_t θ − y_t over the rows of a batch, with the batches in turn."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], batches: int = 4, rows: int = 16) -> None:
        random = np.random.default_rng(0)
        self.shapes = shapes
        self.sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        count = sum(self.sizes.values())
        self.x = random.standard_normal((batches, rows, count)) / math.sqrt(count) * 3
        self.y = random.standard_normal((batches, rows))
        self.start = self.split(random.standard_normal(count) * 0.5)

    def split(self, flat: Any) -> dict[str, Any]:
        """Tensors by role from one vector."""
        parts, at = {}, 0
        for name, size in self.sizes.items():
            parts[name] = flat[at : at + size].reshape(self.shapes[name])
            at += size
        return parts

    def gradient(self, t: int, w: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
        """Loss and gradients on the batch of step `t`."""
        x, y = self.x[t % len(self.x)], self.y[t % len(self.x)]
        residual = x @ np.concatenate([w[name].reshape(-1) for name in self.shapes]) - y
        return float(np.log(np.cosh(residual)).mean()), self.split(x.T @ np.tanh(residual) / len(y))

    def curvature(self, t: int, w: dict[str, np.ndarray]) -> np.ndarray:
        """Hessian of the loss on the batch of step `t`, in all entries as one vector."""
        x, y = self.x[t % len(self.x)], self.y[t % len(self.x)]
        residual = x @ np.concatenate([w[name].reshape(-1) for name in self.shapes]) - y
        return x.T @ (x / (np.cosh(residual) ** 2 * len(y))[:, None])

    def loss(self, t: int, w: dict[str, torch.Tensor]) -> torch.Tensor:
        """The same loss in torch."""
        x, y = (torch.from_numpy(a[t % len(a)]) for a in (self.x, self.y))
        return torch.log(torch.cosh(x @ torch.cat([w[name].reshape(-1) for name in self.shapes]) - y)).mean()


def schedule(t: int) -> float:
    return 1 - 0.6 * t / STEPS


def hyper_parameters(method: Any) -> dict[str, Any]:
    decay = {"weight_decay": DECAY} if "weight_decay" in method.defaults else {}
    return {**method.defaults, **decay, **CHANGED.get(method.name, {})}


def registered_trajectory(method: Any, problem: Problem) -> dict[str, np.ndarray]:
    """Weights after STEPS steps of the registered optimizer, driven as the engine drives it."""
    w = {name: torch.from_numpy(value.copy()).requires_grad_() for name, value in problem.start.items()}
    groups: list[dict[str, Any]] = [{"params": [p], "role": name} for name, p in w.items()]
    for group in groups:
        if group["role"] not in WEIGHTS:
            group["weight_decay"] = 0.0
    optimizer = method.make(groups, **hyper_parameters(method))
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    if hasattr(optimizer, "set_horizon"):
        optimizer.set_horizon(STEPS)
    for t in range(STEPS):

        def closure(t: int = t) -> torch.Tensor:
            optimizer.zero_grad()
            loss = problem.loss(t, w)
            loss.backward()
            return loss.detach()

        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * schedule(t)
        if hasattr(optimizer, "set_progress"):
            optimizer.set_progress(t / STEPS)
        if hasattr(optimizer, "set_hessian_vector"):
            optimizer.set_hessian_vector(functools.partial(hessian_vector, lambda t=t: problem.loss(t, w)))
        if getattr(optimizer, "needs_closure", False):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    return {name: p.detach().numpy() for name, p in w.items()}


# ------------------------------------------------------------- the references

REFERENCES: dict[str, Callable[[Problem, SimpleNamespace], dict[str, np.ndarray]]] = {}


def whole(name: str) -> Callable[[Any], Any]:
    """Register `run(problem, h) -> final weights` as the reference of `name`."""

    def register(run: Any) -> Any:
        REFERENCES[name] = run
        return run

    return register


def each(*names: str) -> Callable[[Any], Any]:
    """Register `rule(w, g, s, h) -> new w` of a single tensor.

    `s` is the tensor's state: s.t counts from 1, attributes unset so far read 0. `h` holds the
    hyper-parameters with this step's lr, the schedule's factor eta, the role, and wd (0 for vectors).
    """

    def register(rule: Any) -> Any:
        def run(problem: Problem, h: SimpleNamespace) -> dict[str, np.ndarray]:
            w = dict(problem.start)
            state = {name: State() for name in w}
            for t in range(STEPS):
                _, g = problem.gradient(t, w)
                for name in w:
                    state[name].t += 1
                    w[name] = rule(w[name], g[name], state[name], at_step(h, t, name))
            return w

        for name in names:
            REFERENCES[name] = run
        return rule

    return register


class State(SimpleNamespace):
    t = 0

    def __getattr__(self, name: str) -> float:
        return 0.0


def at_step(h: SimpleNamespace, t: int, role: str) -> SimpleNamespace:
    eta = schedule(t)
    now = SimpleNamespace(**vars(h))
    now.eta, now.lr, now.base_lr, now.role = eta, h.lr * eta, h.lr, role
    now.adam_lr = getattr(h, "adam_lr", 0.0) * eta
    now.wd = getattr(h, "weight_decay", 0.0) if role in WEIGHTS else 0.0
    return now


def adam_step(s: State, g: np.ndarray, betas: tuple[float, float], eps: float) -> np.ndarray:
    s.m = betas[0] * s.m + (1 - betas[0]) * g
    s.v = betas[1] * s.v + (1 - betas[1]) * g * g
    return s.m / (1 - betas[0] ** s.t) / (np.sqrt(s.v / (1 - betas[1] ** s.t)) + eps)


def ema(s: State, g: np.ndarray, beta: float) -> np.ndarray:
    s.m = beta * s.m + (1 - beta) * g
    return s.m


def uv(g: np.ndarray) -> np.ndarray:
    """UVᵀ of g seen as (first, rest)."""
    u, _, vt = np.linalg.svd(g.reshape(g.shape[0], -1), full_matrices=False)
    return (u @ vt).reshape(g.shape)


@each("sgd", "sgd-l2")
def _sgd(w, g, s, h):
    s.m = h.momentum * s.m + g + h.wd * w
    return w - h.lr * s.m


@each("nesterov")
def _nesterov(w, g, s, h):
    g = g + h.wd * w
    s.m = h.momentum * s.m + g
    return w - h.lr * (g + h.momentum * s.m)


@each("adam", "adam-l2")
def _adam(w, g, s, h):
    return w - h.lr * adam_step(s, g + h.wd * w, h.betas, h.eps)


@each("adamw", "heavy-decay")
def _adamw(w, g, s, h):
    return w - h.lr * h.wd * w - h.lr * adam_step(s, g, h.betas, h.eps)


@each("powerlines-wd")
def _powerlines(w, g, s, h):
    timescale = math.exp(math.log(1.084) - 0.527 * math.log(h.ratio))
    wd = 1 / (h.base_lr * STEPS * timescale) if h.role in WEIGHTS else 0.0
    return w - h.lr * wd * w - h.lr * adam_step(s, g, h.betas, h.eps)


@each("amsgrad")
def _amsgrad(w, g, s, h):
    adam_step(s, g, h.betas, h.eps)
    s.top = np.maximum(s.top, s.v)
    return w - h.lr * s.m / (1 - h.betas[0] ** s.t) / (np.sqrt(s.top) / math.sqrt(1 - h.betas[1] ** s.t) + h.eps)


@each("amsgrad-paper")
def _amsgrad_paper(w, g, s, h):
    adam_step(s, g, h.betas, 1.0)
    s.top = np.maximum(s.top, s.v)
    return w - h.lr * s.m / np.sqrt(s.top)


@each("adamnc")
def _adamnc(w, g, s, h):
    beta = h.beta1 * h.gamma ** (s.t - 1)
    s.m = beta * s.m + (1 - beta) * g
    s.sum = s.sum + g * g
    return w - h.lr * s.m / np.sqrt(s.sum / s.t)


@each("rmsprop")
def _rmsprop(w, g, s, h):
    s.v = h.alpha * s.v + (1 - h.alpha) * g * g
    return w - h.lr * g / (np.sqrt(s.v) + h.eps)


@each("adagrad")
def _adagrad(w, g, s, h):
    s.v = s.v + g * g
    return w - h.lr * g / (np.sqrt(s.v) + h.eps)


@each("adadelta")
def _adadelta(w, g, s, h):
    s.v = h.rho * s.v + (1 - h.rho) * g * g
    step = np.sqrt(s.u + h.eps) / np.sqrt(s.v + h.eps) * g
    s.u = h.rho * s.u + (1 - h.rho) * step * step
    return w - h.lr * step


@each("nadam")
def _nadam(w, g, s, h):
    adam_step(s, g, h.betas, h.eps)
    mu, ahead = (h.betas[0] * (1 - 0.5 * 0.96 ** (k * h.momentum_decay)) for k in (s.t, s.t + 1))
    s.product = (s.product or 1.0) * mu
    look = (1 - mu) * g / (1 - s.product) + ahead * s.m / (1 - s.product * ahead)
    return w - h.lr * look / (np.sqrt(s.v / (1 - h.betas[1] ** s.t)) + h.eps)


@each("radam")
def _radam(w, g, s, h):
    adam_step(s, g, h.betas, h.eps)
    b2t = h.betas[1] ** s.t
    m = s.m / (1 - h.betas[0] ** s.t)
    limit = 2 / (1 - h.betas[1]) - 1
    rho = limit - 2 * s.t * b2t / (1 - b2t)
    if rho <= 5:
        return w - h.lr * m
    rect = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    return w - h.lr * m * rect * math.sqrt(1 - b2t) / (np.sqrt(s.v) + h.eps)


@each("grams")
def _grams(w, g, s, h):
    adam_step(s, g, h.betas, h.eps)
    size = np.abs(s.m) / (np.sqrt(s.v) + h.eps) * math.sqrt(1 - h.betas[1] ** s.t) / (1 - h.betas[0] ** s.t)
    return w * (1 - h.lr * h.wd) - h.lr * np.sign(g) * size


@each("lion")
def _lion(w, g, s, h):
    return lion_k(w, g, s, h, np.sign)


def lion_k(w, g, s, h, gradient_of_k):
    step = gradient_of_k(h.betas[0] * s.m + (1 - h.betas[0]) * g)
    s.m = h.betas[1] * s.m + (1 - h.betas[1]) * g
    return w * (1 - h.lr * h.wd) - h.lr * step


@each("lion-k-lp")
def _lion_lp(w, g, s, h):
    return lion_k(w, g, s, h, lambda x: np.sign(x) * np.abs(x) ** (h.p - 1) / (np.abs(x) ** h.p).sum() ** (1 - 1 / h.p))


@each("lion-k-threshold")
def _lion_threshold(w, g, s, h):
    return lion_k(w, g, s, h, lambda x: np.sign(x) * (np.abs(x) > h.threshold))


@each("lion-k-topk")
def _lion_topk(w, g, s, h):
    def top(x):
        k = math.ceil(h.share * x.size)
        return np.sign(x) * (np.abs(x) >= np.sort(np.abs(x).reshape(-1))[-k])

    return lion_k(w, g, s, h, top)


@each("lion-k-huber")
def _lion_huber(w, g, s, h):
    return lion_k(w, g, s, h, lambda x: np.clip(x / h.threshold, -1, 1))


def cautious(u, g):
    mask = (u * g > 0).astype(float)
    return u * mask / max(mask.mean(), 1e-3)


@each("cautious-adamw")
def _cautious_adamw(w, g, s, h):
    return w - h.lr * h.wd * w - h.lr * cautious(adam_step(s, g, h.betas, h.eps), g)


@each("cautious-lion")
def _cautious_lion(w, g, s, h):
    return lion_k(w, g, s, h, lambda x: cautious(np.sign(x), g))


@each("lamb")
def _lamb(w, g, s, h):
    u = adam_step(s, g, h.betas, h.eps) + h.wd * w
    trust = np.linalg.norm(w) / np.linalg.norm(u) if h.role in WEIGHTS else 1.0
    return w - h.lr * trust * u


def adafactor_step(w, g, s, h):
    keep = 1 - s.t**-0.8
    square = g * g + 1e-30
    if w.ndim < 2:
        s.v = keep * s.v + (1 - keep) * square
        estimate = s.v
    else:
        s.row = keep * s.row + (1 - keep) * square.mean(-1)
        s.column = keep * s.column + (1 - keep) * square.mean(-2)
        estimate = s.row[..., :, None] * s.column[..., None, :] / s.row.mean(-1)[..., None, None]
    u = g / np.sqrt(estimate)
    u = u / max(1.0, math.sqrt((u * u).mean()))
    return max(1e-3, math.sqrt((w * w).mean())) * min(h.lr, 1 / math.sqrt(s.t)) * u


@each("adafactor")
def _adafactor(w, g, s, h):
    return w - adafactor_step(w, g, s, h)


@each("adafactor-momentum")
def _adafactor_momentum(w, g, s, h):
    return w - ema(s, adafactor_step(w, g, s, h), 0.9)


@each("adopt")
def _adopt(w, g, s, h):
    if s.t == 1:
        s.v = g * g
        return w
    u = np.clip(g / np.maximum(np.sqrt(s.v), h.eps), -((s.t - 1) ** 0.25), (s.t - 1) ** 0.25)
    s.v = h.betas[1] * s.v + (1 - h.betas[1]) * g * g
    return w * (1 - h.lr * h.wd) - h.lr * ema(s, u, h.betas[0])


@each("ademamix")
def _ademamix(w, g, s, h):
    share = min(1.0, s.t / STEPS)
    half = [math.log(0.5) / math.log(b) - 1 for b in (h.betas[0], h.betas[2])]
    beta3 = 0.5 ** (1 / ((1 - share) * half[0] + share * half[1] + 1))
    adam_step(s, g, h.betas[:2], h.eps)
    s.slow = beta3 * s.slow + (1 - beta3) * g
    top = s.m / (1 - h.betas[0] ** s.t) + h.alpha * share * s.slow
    return w - h.lr * (top / (np.sqrt(s.v / (1 - h.betas[1] ** s.t)) + h.eps) + h.wd * w)


@each("mars")
def _mars(w, g, s, h):
    if h.role not in WEIGHTS:
        return w - h.adam_lr * adam_step(s, g, (0.9, 0.95), 1e-8)
    c = g + h.gamma * h.betas[0] / (1 - h.betas[0]) * (g - s.last)
    s.last = g
    c = c / max(1.0, np.linalg.norm(c))
    return w - h.lr * (adam_step(s, c, h.betas, 1e-8) + h.wd * w)


@each("schedule-free-adamw")
def _schedule_free(w, g, s, h):
    if s.t == 1:
        s.x = s.z = w
    s.v = h.betas[1] * s.v + (1 - h.betas[1]) * g * g
    u = g / (np.sqrt(s.v / (1 - h.betas[1] ** s.t)) + h.eps) + h.wd * w
    s.top = max(s.top, h.lr)
    s.sum += s.top**2
    s.z = s.z - h.lr * u
    s.x = (1 - s.top**2 / s.sum) * s.x + s.top**2 / s.sum * s.z
    return (1 - h.betas[0]) * s.z + h.betas[0] * s.x


@each("soap")
def _soap(w, g, s, h):
    if h.role not in WEIGHTS:
        return w - h.lr * adam_step(s, g, h.betas, h.eps)
    m = g.reshape(g.shape[0], -1)
    b1, b2 = h.betas
    if s.t == 1:
        s.l, s.r = (1 - b2) * m @ m.T, (1 - b2) * m.T @ m
        s.ql, s.qr = np.linalg.eigh(s.l)[1][:, ::-1], np.linalg.eigh(s.r)[1][:, ::-1]
        s.mean, s.square = np.zeros_like(m), np.zeros_like(m)
        return w
    k = s.t - 1
    s.mean = b1 * s.mean + (1 - b1) * m
    s.square = b2 * s.square + (1 - b2) * (s.ql.T @ m @ s.qr) ** 2
    u = (s.ql.T @ s.mean @ s.qr / (1 - b1**k)) / (np.sqrt(s.square / (1 - b2**k)) + h.eps)
    step = (s.ql @ u @ s.qr.T).reshape(w.shape)
    s.l, s.r = b2 * s.l + (1 - b2) * m @ m.T, b2 * s.r + (1 - b2) * m.T @ m
    if k % h.interval == 0:
        s.ql, order = renewed(s.l, s.ql)
        s.square = s.square[order]
        s.qr, order = renewed(s.r, s.qr)
        s.square = s.square[:, order]
    return w * (1 - h.lr * h.wd) - h.lr * step


def renewed(gram, basis):
    """One power iteration and QR, eigenvalue estimates in falling order."""
    order = np.argsort(-np.diag(basis.T @ gram @ basis))
    return np.linalg.qr(gram @ basis[:, order])[0], order


@each("shampoo")
def _shampoo(w, g, s, h):
    if h.role not in WEIGHTS:
        s.v = s.v + g * g
        return w - h.lr * g / np.sqrt(h.eps + s.v)
    m = g.reshape(g.shape[0], -1)
    s.l, s.r = s.l + m @ m.T, s.r + m.T @ m
    if s.t <= h.interval or s.t % h.interval == 0:
        s.lr, s.rr = (fourth_root(a + h.eps * np.eye(len(a))) for a in (s.l, s.r))
    return w - h.lr * (s.lr @ m @ s.rr).reshape(w.shape)


def fourth_root(a):
    values, vectors = np.linalg.eigh(a)
    return vectors @ np.diag(values**-0.25) @ vectors.T


@each("muon")
def _muon(w, g, s, h):
    if h.role not in HIDDEN:
        return w * (1 - h.adam_lr * h.wd) - h.adam_lr * adam_step(s, g, (0.9, 0.95), 1e-10)
    n = (1 - h.momentum) * g + h.momentum * ema(s, g, h.momentum)
    x = n.reshape(n.shape[0], -1)
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    scale = math.sqrt(max(1.0, w.shape[-2] / w.shape[-1]))
    return w * (1 - h.lr * h.wd) - h.lr * scale * x.reshape(w.shape)


@each("muon-lmo")
def _muon_lmo(w, g, s, h):
    if h.role not in HIDDEN:
        return w * (1 - h.adam_lr * h.wd) - h.adam_lr * adam_step(s, g, (0.9, 0.95), 1e-10)
    return w * (1 - h.lr * h.wd) - h.lr * uv(ema(s, g, h.momentum))


@each("signsgdm")
def _signsgdm(w, g, s, h):
    return w * (1 - h.lr * h.wd) - h.lr * np.sign(ema(s, g, h.momentum))


@each("osgdm")
def _osgdm(w, g, s, h):
    s.m = h.momentum * s.m + (uv(g) if g.ndim > 1 else g)
    return w * (1 - h.lr * h.wd) - h.lr * s.m


@each("sign-descent")
def _sign_descent(w, g, s, h):
    return w - h.lr * np.sign(ema(s, g, h.momentum))


@each("spectral-descent")
def _spectral_descent(w, g, s, h):
    m = ema(s, g, h.momentum)
    return w - h.lr * (uv(m) if m.ndim > 1 else m / np.linalg.norm(m))


@each("modular-descent")
def _modular_descent(w, g, s, h):
    m = ema(s, g, h.momentum)
    if h.role == "embedding":
        return w - h.lr * math.sqrt(w.shape[1]) * m / np.linalg.norm(m, axis=1, keepdims=True)
    if m.ndim < 2:
        return w - h.lr * m / np.sqrt((m * m).mean())
    return w - h.lr * math.sqrt(w.shape[0] / (w.size / w.shape[0])) * uv(m)


@each("sgdw")
def _sgdw(w, g, s, h):
    s.m = h.momentum * s.m + g
    return w - h.eta * h.base_lr * s.m - h.eta * h.wd * w


@each("adamw-normdecay")
def _normdecay(w, g, s, h):
    return w - h.eta * (h.base_lr * adam_step(s, g, h.betas, h.eps) + h.wd / math.sqrt(STEPS) * w)


def restart(t: int) -> tuple[float, float]:
    """(η_t, cycle length) of step t = 0, 1, … with cycles of 1/7, 2/7 and 4/7 of the run."""
    start, length = 0.0, STEPS / 7
    for _ in range(2):
        if t >= start + length:
            start, length = start + length, 2 * length
    return 0.5 * (1 + math.cos(math.pi * (t - start) / length)), length


@each("adamwr")
def _adamwr(w, g, s, h):
    factor, length = restart(s.t - 1)
    step = h.base_lr * adam_step(s, g, h.betas, h.eps) + h.wd / math.sqrt(length) * w
    return w - factor * h.eta * step


@each("sgdwr")
def _sgdwr(w, g, s, h):
    factor, length = restart(s.t - 1)
    s.m = h.momentum * s.m + g
    return w - factor * h.eta * (h.base_lr * s.m + h.wd / math.sqrt(length) * w)


@functools.cache
def draws(seed: int) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.empty((), dtype=torch.float64).exponential_(generator=generator).item() for _ in range(STEPS)]


@each("sgdm-exp")
def _sgdm_exp(w, g, s, h):
    return w - draws(h.seed)[s.t - 1] * h.lr * (ema(s, g, h.momentum) + h.wd * w)


@each("adamw-exp")
def _adamw_exp(w, g, s, h):
    return w - draws(h.seed)[s.t - 1] * h.lr * (adam_step(s, g, h.betas, h.eps) + h.wd * w)


@each("sgd-eg")
def _sgd_eg(w, g, s, h):
    s.m = h.momentum * s.m + g + h.wd * np.sign(w)
    return w * np.exp(-h.lr * np.sign(w) * s.m)


@each("adamw-eg")
def _adamw_eg(w, g, s, h):
    return w * (1 - h.lr * h.wd) * np.exp(-h.lr * np.sign(w) * adam_step(s, g, h.betas, h.eps))


@each("sign-constrained-gd")
def _sign_constrained(w, g, s, h):
    s.m = h.momentum * s.m + g
    moved = w - h.lr * s.m
    return np.where(moved * w > 0, moved, np.sign(w) * 1e-18)


@each("optimistic-sgd")
def _optimistic(w, g, s, h):
    last = g if s.t == 1 else s.last
    s.last = g
    return w - h.lr * (2 * g - last)


def norm(parts: dict[str, np.ndarray]) -> float:
    return math.sqrt(sum((x * x).sum() for x in parts.values()))


@whole("nsgdm")
def _nsgdm(problem, h):
    w, m = dict(problem.start), dict.fromkeys(problem.start, 0.0)
    for t in range(STEPS):
        g = problem.gradient(t, w)[1]
        m = {k: h.momentum * m[k] + (1 - h.momentum) * g[k] for k in w}
        lr, size = h.lr * schedule(t), norm(m)
        w = {k: w[k] * (1 - lr * at_step(h, t, k).wd) - lr * m[k] / size for k in w}
    return w


@whole("beta-ngd")
def _beta_ngd(problem, h):
    w, m = dict(problem.start), dict.fromkeys(problem.start, 0.0)
    for t in range(STEPS):
        g = problem.gradient(t, w)[1]
        m = {k: h.momentum * m[k] + (1 - h.momentum) * g[k] for k in w}
        size = norm(m)
        w = {k: w[k] - h.lr * schedule(t) * m[k] / size**h.beta for k in w}
    return w


@whole("prodigy")
def _prodigy(problem, h):
    w, first, (b1, b2) = dict(problem.start), problem.start, h.betas
    s, m, v = (dict.fromkeys(w, 0.0) for _ in range(3))
    d, r, b3 = h.d0, 0.0, math.sqrt(b2)
    for t in range(STEPS):
        g, lr = problem.gradient(t, w)[1], h.lr * schedule(t)
        r = b3 * r + d / h.d0 * d * lr * sum((g[k] * (first[k] - w[k])).sum() for k in w)
        s = {k: b3 * s[k] + d / h.d0 * d * lr * g[k] for k in w}
        m = {k: b1 * m[k] + (1 - b1) * d * g[k] for k in w}
        v = {k: b2 * v[k] + (1 - b2) * d * d * g[k] ** 2 for k in w}
        new = max(d, h.d_coef * r / sum(np.abs(x).sum() for x in s.values()))
        step = {k: m[k] / (np.sqrt(v[k]) + new * h.eps) + at_step(h, t, k).wd * w[k] for k in w}
        w = {k: w[k] - d * lr * step[k] for k in w}
        d = new
    return w


@whole("prodigy-noema")
def _prodigy_noema(problem, h):
    w, first, d = dict(problem.start), problem.start, h.d0
    for t in range(STEPS):
        g = problem.gradient(t, w)[1]
        way = sum((g[k] * (first[k] - w[k])).sum() for k in w)
        d = max(d, way / sum(np.abs(x).sum() for x in g.values()))
        w = {k: w[k] - h.lr * schedule(t) * d * np.sign(g[k]) for k in w}
    return w


@whole("spider")
def _spider(problem, h):
    w = last = dict(problem.start)
    v = dict.fromkeys(w, 0.0)
    for t in range(STEPS):
        position = t % h.period
        g = problem.gradient(t, w)[1]
        if position < h.refresh:
            v = {k: (v[k] * position + g[k]) / (position + 1) for k in w}
            if position < h.refresh - 1:
                continue
        else:
            old = problem.gradient(t, last)[1]
            v = {k: v[k] + g[k] - old[k] for k in w}
        size, last = norm(v), w
        w = {k: w[k] - h.lr * schedule(t) * v[k] / size for k in w}
    return w


@whole("aprox-ftrl")
def _aprox_ftrl(problem, h):
    """The share a of each round by bisection on the dual instead of the closed form."""
    w, first, dual = dict(problem.start), problem.start, {k: np.zeros_like(x) for k, x in problem.start.items()}
    for t in range(STEPS):
        loss, g = problem.gradient(t, w)
        g = {k: schedule(t) * x for k, x in g.items()}
        strength = (t + 1) ** h.power / h.lr
        start = {k: first[k] + dual[k] / strength - w[k] for k in w}
        a = dual_share(schedule(t) * (loss - h.target), strength, start, g)
        dual = {k: dual[k] - a * g[k] for k in w}
        w = {k: first[k] + dual[k] / strength for k in w}
    return w


def dual_share(gap, strength, start, g):
    """a in [0, 1] that maximises the dual of min over δ of λ/2‖δ − start‖² + max(gap + ⟨g, δ⟩, 0)."""

    def slope(a):
        return gap + sum((g[k] * (start[k] - a * g[k] / strength)).sum() for k in g)

    if slope(0.0) <= 0:
        return 0.0
    if slope(1.0) >= 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return 0.5 * (low + high)


@whole("sophia-h")
def _sophia_h(problem, h):
    w, m, diagonal = dict(problem.start), dict.fromkeys(problem.start, 0.0), dict.fromkeys(problem.start, 0.0)
    stream = torch.Generator().manual_seed(h.seed)
    for t in range(STEPS):
        g, lr = problem.gradient(t, w)[1], h.lr * schedule(t)
        m = {k: h.betas[0] * m[k] + (1 - h.betas[0]) * g[k] for k in w}
        if t % h.interval == 0:
            u = np.concatenate([torch.randn(w[k].shape, generator=stream).double().numpy().reshape(-1) for k in w])
            estimate = problem.split(u * (problem.curvature(t, w) @ u))
            diagonal = {k: h.betas[1] * diagonal[k] + (1 - h.betas[1]) * estimate[k] for k in w}
        step = {k: np.clip(m[k] / np.maximum(h.gamma * diagonal[k], h.eps), -1, 1) for k in w}
        w = {k: w[k] - lr * at_step(h, t, k).wd * w[k] - lr * step[k] for k in w}
    return w


def torch_lbfgs(problem, h, w, first_step):
    """torch's L-BFGS on one flat vector, from step `first_step` on."""
    flat = torch.from_numpy(np.concatenate([w[k].reshape(-1) for k in w])).requires_grad_()
    tolerances = {"tolerance_grad": 1e-9, "tolerance_change": 1e-12}
    sizes = {"max_iter": h.max_iter, "history_size": h.history}
    optimizer = torch.optim.LBFGS([flat], line_search_fn="strong_wolfe", **sizes, **tolerances)
    for t in range(first_step, STEPS):

        def closure(t: int = t) -> torch.Tensor:
            optimizer.zero_grad()
            loss = problem.loss(t, problem.split(flat))
            loss.backward()
            return loss

        optimizer.param_groups[0]["lr"] = schedule(t) if first_step == 0 else 1.0
        optimizer.step(closure)
    return problem.split(flat.detach().numpy())


@whole("lbfgs")
def _lbfgs(problem, h):
    return torch_lbfgs(problem, h, problem.start, 0)


@whole("adam-lbfgs")
def _adam_lbfgs(problem, h):
    w, switch = dict(problem.start), math.ceil(h.switch * STEPS)
    state = {name: State() for name in w}
    for t in range(switch):
        g = problem.gradient(t, w)[1]
        for k in w:
            state[k].t += 1
            w[k] = w[k] - h.lr * schedule(t) * adam_step(state[k], g[k], (0.9, 0.999), 1e-8)
    return torch_lbfgs(problem, h, w, switch)


# ------------------------------------------------------------------ the tests

METHODS = {m.name: m for m in suite.methods(slot="optimizer")}


@pytest.mark.parametrize("name", METHODS)
def test_fifty_steps_follow_the_published_rule(name):
    assert name in REFERENCES, f"{name} has no reference trajectory; write its rule in {__file__}"
    method = METHODS[name]
    problem = Problem(**{"shapes": SHAPES, **PROBLEMS.get(name, {})})
    found = registered_trajectory(method, problem)
    wanted = REFERENCES[name](problem, SimpleNamespace(**hyper_parameters(method)))
    moved = max(np.abs(wanted[k] - problem.start[k]).max() for k in wanted)
    assert moved > 1e-3
    for k in wanted:
        assert np.abs(found[k] - wanted[k]).max() <= 1e-6 * min(1.0, moved), k


@pytest.mark.parametrize("name", ["prodigy", "prodigy-noema"])
def test_the_initial_step_size_is_not_rounded_to_float32(name, monkeypatch):
    """d grows from d0 by factors that depend on it, so that a rounded d0 (1e-4 isn't a float32) shows in the weights."""
    monkeypatch.setitem(CHANGED, name, {"d0": 1e-4})
    problem, hp = Problem(SHAPES), SimpleNamespace(**hyper_parameters(METHODS[name]))
    found, wanted = registered_trajectory(METHODS[name], problem), REFERENCES[name](problem, hp)
    for k in wanted:
        np.testing.assert_allclose(found[k], wanted[k], rtol=1e-10, atol=1e-11, err_msg=k)


def test_every_reference_belongs_to_a_registered_optimizer():
    assert set(REFERENCES) <= set(METHODS)


@pytest.mark.parametrize("name", ["lion", "prodigy", "schedule-free-adamw"])
def test_agrees_with_pytorch_optimizer(name):
    """The three of its classes that are known to follow the definitions."""
    library = pytest.importorskip("pytorch_optimizer")
    cls = {"lion": "Lion", "prodigy": "Prodigy", "schedule-free-adamw": "ScheduleFreeAdamW"}[name]
    problem, results = Problem(SHAPES), []
    hp = {"prodigy": {"lr": 1.0, "d0": 1e-3}}.get(name, {"lr": 1e-2}) | {"weight_decay": 0.1}
    for make in (METHODS[name].make, getattr(library, cls)):
        flat = torch.from_numpy(np.concatenate([x.reshape(-1) for x in problem.start.values()])).requires_grad_()
        optimizer = make([flat], **hp)
        for t in range(STEPS):
            optimizer.zero_grad()
            problem.loss(t, problem.split(flat)).backward()
            optimizer.step()
        results.append(flat.detach())
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)
