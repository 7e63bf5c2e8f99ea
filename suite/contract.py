"""What every method must do, as functions: the registry's tests and ``levelfield check`` run them.

Each contract takes a `Method` and raises `ContractError` with a sentence that
says what is wrong.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from suite.registry import Method
from suite.train.objective import Rollouts
from suite.train.roles import param_groups


class ContractError(AssertionError):
    """A method breaks a contract of its slot; the message says which and how."""


Contract = Callable[[Method], None]


def contracts(method: Method) -> list[Contract]:
    """The contracts of a method's slot, the cheap ones first."""
    return [described, *_BY_SLOT.get(method.slot, [])]


def described(method: Method) -> None:
    """Has a docstring, and defaults its factory takes."""
    _need(bool(method.summary), "has no docstring; say in one sentence what it computes, with the formula")
    try:
        parameters = inspect.signature(method.factory).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = set(method.defaults) - set(parameters)
    _need(not unknown, f"its defaults name {sorted(unknown)}, which its factory does not take")


# ---------------------------------------------------------------- activation


def _inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(6, 8, generator=generator, dtype=torch.float64)).to(dtype)


def _activation(method: Method, dtype: torch.dtype = torch.float32) -> nn.Module:
    module = method.make()
    _need(isinstance(module, nn.Module), f"make() gives a {type(module).__name__}, not a torch.nn.Module")
    return module.to(dtype)


def keeps_shape_and_dtype(method: Method) -> None:
    """(..., C) and (N, C, H, W) in, the same shape (times `width_factor`) and dtype out."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        module = _activation(method, dtype)
        factor = getattr(module, "width_factor", 1)
        for shape, channel in (((6, 8), -1), ((2, 5, 8), -1), ((2, 8, 4, 4), 1)):
            x = torch.linspace(-3, 3, math.prod(shape)).reshape(shape).to(dtype)
            y = module(x)
            wanted = list(shape)
            wanted[channel] = int(shape[channel] * factor)
            _need(list(y.shape) == wanted, f"takes {shape} to {tuple(y.shape)}; expected {tuple(wanted)}")
            _need(y.dtype == dtype, f"takes {dtype} to {y.dtype}; keep the input's dtype")


def leaves_input_alone(method: Method) -> None:
    """The input tensor is not written to."""
    x = _inputs()
    before = x.clone()
    _activation(method)(x)
    _need(torch.equal(x, before), "changes its input in place; later layers may need it: return a new tensor")


def finite_where_finite(method: Method) -> None:
    """Finite output and gradient on [-50, 50] and at 0, in float32 and bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.cat([torch.linspace(-50, 50, 399), torch.zeros(1)])[:, None].repeat(1, 8).to(dtype).requires_grad_()
        y = _activation(method, dtype)(x)
        finite = bool(y.isfinite().all())
        _need(
            finite, f"is not finite on [-50, 50] in {dtype}" + ("" if finite else f" (first at x = {_first_bad(x, y)})")
        )
        if y.requires_grad:
            y.float().sum().backward()
            good = x.grad is None or bool(x.grad.isfinite().all())
            _need(good, f"has a gradient that is not finite on [-50, 50] in {dtype}")


def deterministic_in_eval(method: Method) -> None:
    """Two calls in evaluation mode agree bit for bit; in training mode too unless it says stochastic."""
    x = _inputs()
    module = _activation(method)
    modes = ("eval",) if method.stochastic else ("eval", "train")
    for mode in modes:
        getattr(module, mode)()
        first, second = module(x), module(x)
        _need(torch.equal(first, second), f"gives two answers for one input in {mode} mode; state stochastic=True")


def state_round_trips(method: Method) -> None:
    """`load_state_dict(state_dict())` into a fresh module gives the same function."""
    module = _activation(method)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.add_(0.05)
    other = _activation(method)
    other.load_state_dict(copy.deepcopy(module.state_dict()))
    x = _inputs()
    same = torch.equal(module.eval()(x), other.eval()(x))
    _need(same, "does not come back from its state dict; keep state in parameters or buffers")


def gradient_is_the_derivative(method: Method) -> None:
    """The backward pass is the derivative (float64, away from kinks), unless stated `surrogate`."""
    if method.surrogate or method.stochastic:
        return
    module = _activation(method, torch.float64).eval()
    x = (_inputs(torch.float64) * 0.7 + 0.137).requires_grad_(True)
    tensors = [x, *[p for p in module.parameters() if p.requires_grad]]
    y = module(x)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    if not y.requires_grad:
        return
    gradients = torch.autograd.grad((y * weight).sum(), tensors, allow_unused=True)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        slope = 0.0 if gradient is None else float((gradient * direction).sum())
        _need(
            any(abs(_slope(module, x, tensor, direction, weight, h) - slope) <= 1e-4 * (1 + abs(slope)) for h in STEPS),
            "its gradient is not the derivative of its output; state surrogate=True if that is meant",
        )


STEPS = (1e-5, 1e-6, 1e-7)


def _slope(module: nn.Module, x: Tensor, tensor: Tensor, direction: Tensor, weight: Tensor, h: float) -> float:
    """Central difference of the weighted output along a direction of one tensor."""
    values = []
    with torch.no_grad():
        original = tensor.clone()
        for sign in (1, -1):
            tensor.copy_(original + sign * h * direction)
            values.append(float((module(x) * weight).sum()))
        tensor.copy_(original)
    return (values[0] - values[1]) / (2 * h)


# ---------------------------------------------------------------- optimizer


def _problem(seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))
    return model, torch.randn(32, 6), torch.randint(0, 3, (32,))


def _optimize(method: Method, steps: int, interrupt: int = -1) -> tuple[list[float], nn.Module]:
    """Losses of a few steps on a small problem; the optimizer is rebuilt from its state at `interrupt`."""
    model, x, y = _problem()
    optimizer = method.make(param_groups(model))
    losses = []
    for step in range(steps):
        if step == interrupt:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = method.make(param_groups(model))
            optimizer.load_state_dict(state)
        losses.append(_step(optimizer, model, x, y))
    return losses, model


def _step(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor) -> float:
    """One step as the training loop takes it; returns the loss before it."""

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss.detach()

    if getattr(optimizer, "needs_closure", False):
        return float(optimizer.step(closure))
    loss = closure()
    optimizer.step()
    return float(loss)


def is_an_optimizer(method: Method) -> None:
    """make(groups) gives a torch.optim.Optimizer that holds every parameter once."""
    model, *_ = _problem()
    optimizer = method.make(param_groups(model))
    good = isinstance(optimizer, torch.optim.Optimizer)
    _need(good, f"make(groups) gives a {type(optimizer).__name__}, not a torch.optim.Optimizer")
    held = [id(p) for g in optimizer.param_groups for p in g["params"]]
    wanted = {id(p) for p in model.parameters()}
    _need(set(held) == wanted and len(held) == len(wanted), "does not hold every parameter exactly once")


def steps_are_finite_and_move(method: Method) -> None:
    """Ten steps stay finite and change the weights."""
    start, *_ = _problem()
    losses, model = _optimize(method, 10)
    finite = all(math.isfinite(v) for v in losses) and all(bool(p.isfinite().all()) for p in model.parameters())
    _need(finite, "leaves the finite numbers within ten steps of a small problem")
    moved = any(not torch.equal(a, b) for a, b in zip(start.parameters(), model.parameters(), strict=True))
    _need(moved, "does not move any weight in ten steps")


def optimizer_is_deterministic(method: Method) -> None:
    """The same steps from the same start agree bit for bit."""
    _need(
        _optimize(method, 6)[0] == _optimize(method, 6)[0], "gives two trajectories from one start; seed its own draws"
    )


def optimizer_resumes(method: Method) -> None:
    """Rebuilt from its state dict in the middle, it goes on as if nothing had happened."""
    whole, _ = _optimize(method, 8)
    resumed, _ = _optimize(method, 8, interrupt=4)
    _need(whole == resumed, "does not go on from its state dict as it would have; keep all its state there")


def skips_missing_gradients(method: Method) -> None:
    """Parameters without a gradient stay as they are."""
    model, x, y = _problem()
    idle = nn.Linear(4, 4)
    before = idle.weight.clone()
    optimizer = method.make(param_groups(nn.ModuleList([idle, model])))
    _step(optimizer, model, x, y)
    _need(torch.equal(before, idle.weight), "moves a parameter that has no gradient")


# ---------------------------------------------------------------- functions


def schedule_is_a_multiplier(method: Method) -> None:
    """Finite and non-negative over the whole budget, at whole and fractional steps."""
    schedule = method.make()
    for total in (1, 10, 1000.0):
        for i in range(101):
            value = schedule(i / 101 * total, total)
            _need(math.isfinite(value) and value >= 0, f"is {value} at {i / 101:.2f} of a budget of {total}")


def loss_is_a_mean(method: Method) -> None:
    """A finite scalar with a finite gradient, for ordinary and for extreme logits."""
    loss = method.make()
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 5, (16,), generator=generator)
    for scale in (1.0, 50.0):
        logits = (scale * torch.randn(16, 5, generator=generator)).requires_grad_(True)
        value = loss(logits, targets)
        _need(value.ndim == 0, f"gives shape {tuple(value.shape)}, not a scalar")
        (gradient,) = torch.autograd.grad(value, logits)
        good = bool(value.isfinite()) and bool(gradient.isfinite().all())
        _need(good, f"or its gradient is not finite for logits of scale {scale:g}")


def norm_keeps_shape(method: Method) -> None:
    """(N, C, H, W) and (N, T, C) in, the same shape out, finite for a constant input."""
    for shape, features in (((4, 6, 5, 5), 6), ((4, 7, 6), 6)):
        module = method.make(features)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        y = module(x)
        _need(y.shape == x.shape, f"takes {shape} to {tuple(y.shape)}")
        _need(bool(module(torch.ones(shape)).isfinite().all()), "is not finite for a constant input")


def init_fills(method: Method) -> None:
    """Fills weights and biases with finite numbers, the same from the same generator."""
    from suite.train.roles import named_parameters

    fill = method.make()
    results = []
    for _ in range(2):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
        with torch.no_grad():
            for parameter, info in named_parameters(model):
                if info.role != "norm":  # a norm's own starting values may stay
                    parameter.fill_(math.nan)
                fill(parameter, info, torch.Generator().manual_seed(7))
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    _need(bool(results[0].isfinite().all()), "leaves a parameter unfilled or not finite")
    _need(torch.equal(results[0], results[1]), "draws from elsewhere than the given generator")


# ---------------------------------------------------------------- objectives


def objective_reads_only_what_was_generated(method: Method) -> None:
    """A finite scalar whose gradient is finite, and 0 where no token was generated, whatever stands there."""
    objective = method.make()
    batch, logp, entropy = _rollouts()
    logp = logp.requires_grad_()
    more = (entropy,) if getattr(objective, "needs_entropy", False) else ()
    value = objective.loss(batch, logp, *more)
    _need(value.ndim == 0, f"gives shape {tuple(value.shape)}, not a scalar")
    (gradient,) = torch.autograd.grad(value, logp)
    finite = bool(value.isfinite()) and bool(gradient.isfinite().all())
    _need(finite, "or its gradient is not finite on two prompts of four completions; NaN stands off the mask")
    _need(not bool(gradient[~batch.mask].any()), "has a gradient where the policy generated nothing; use the mask")


def _rollouts() -> tuple[Rollouts, Tensor, Tensor]:
    """Two prompts with right and wrong completions of several lengths, log-probabilities and entropies."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4, 2, 2, 5, 3])[:, None]
    old, change, entropy = (torch.rand(8, 5, generator=generator).masked_fill(~mask, math.nan) for _ in range(3))
    completions = torch.randint(1, 4, (8, 5), generator=generator).masked_fill(~mask, 0)
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    prompts = torch.ones(2, 3, dtype=torch.long)
    batch = Rollouts(rewards, mask, -old, prompts, completions, reference_logp=-old)
    return batch, -old + 0.3 * (change - 0.5), entropy


_BY_SLOT: dict[str, list[Contract]] = {
    "activation": [
        keeps_shape_and_dtype, leaves_input_alone, finite_where_finite, deterministic_in_eval, state_round_trips,
        gradient_is_the_derivative,
    ],
    "optimizer": [
        is_an_optimizer, steps_are_finite_and_move, optimizer_is_deterministic, optimizer_resumes,
        skips_missing_gradients,
    ],
    "schedule": [schedule_is_a_multiplier],
    "loss": [loss_is_a_mean],
    "norm": [norm_keeps_shape],
    "init": [init_fills],
    "objective": [objective_reads_only_what_was_generated],
    "offline-objective": [objective_reads_only_what_was_generated],
}  # fmt: skip


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ContractError(message)


def _first_bad(x: Tensor, y: Tensor) -> Any:
    flat = y.detach().reshape(len(x), -1)
    bad = (~flat.isfinite()).any(dim=1).nonzero()
    return round(float(x.detach()[int(bad[0]), 0]), 4)
