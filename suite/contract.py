"""What every method must do, as functions: the registry's tests and ``levelfield check`` run them.

Each contract takes a `Method` and raises `ContractError` with a sentence that
says what is wrong.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.registry import Method
from suite.train.build import loss_head, output_layer
from suite.train.objective import Rollouts
from suite.train.roles import param_groups
from suite.train.step import hessian_vector


class ContractError(AssertionError):
    """A method breaks a contract of its slot; the message says how.

    Attributes
    ----------
    kind : "shape", "dtype", "in-place", "not-finite", "nondeterministic", "state" or "broken".
    """

    def __init__(self, message: str, kind: str = "broken") -> None:
        super().__init__(message)
        self.kind = kind


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
            _need(list(y.shape) == wanted, f"takes {shape} to {tuple(y.shape)}; expected {tuple(wanted)}", "shape")
            _need(y.dtype == dtype, f"takes {dtype} to {y.dtype}; keep the input's dtype", "dtype")


def leaves_input_alone(method: Method) -> None:
    """The input tensor is not written to."""
    x = _inputs()
    before = x.clone()
    _activation(method)(x)
    untouched = torch.equal(x, before)
    _need(untouched, "changes its input in place; later layers may need it: return a new tensor", "in-place")


def finite_where_finite(method: Method) -> None:
    """Finite output and gradient on [-50, 50] and at 0, in float32 and bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.cat([torch.linspace(-50, 50, 399), torch.zeros(1)])[:, None].repeat(1, 8).to(dtype).requires_grad_()
        y = _activation(method, dtype)(x)
        if not y.isfinite().all():
            where = f"(first at x = {_first_bad(x, y)})"
            raise ContractError(f"is not finite on [-50, 50] in {dtype} {where}", "not-finite")
        if y.requires_grad:
            y.float().sum().backward()
            good = x.grad is None or bool(x.grad.isfinite().all())
            _need(good, f"has a gradient that is not finite on [-50, 50] in {dtype}", "not-finite")


def deterministic_in_eval(method: Method) -> None:
    """Two calls in evaluation mode agree bit for bit; in training mode too unless it says stochastic."""
    x = _inputs()
    module = _activation(method)
    modes = ("eval",) if method.stochastic else ("eval", "train")
    for mode in modes:
        getattr(module, mode)()
        if torch.equal(module(x), module(x)):
            continue
        two = f"gives two answers for one input in {mode} mode"
        if _seeded(module, x).equal(_seeded(module, x)):
            raise ContractError(f"{two}: it draws random numbers; state stochastic=True", "nondeterministic")
        raise ContractError(f"{two}: it remembers earlier calls; an activation is a function of its input", "state")


def _seeded(module: nn.Module, x: Tensor) -> Tensor:
    """The answer when every global random stream starts from 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        return module(x)


def answers_by_value(method: Method) -> None:
    """The answer follows the tensor's values, not which tensor it is."""
    module, x = _activation(method).eval(), _inputs()
    with torch.no_grad():
        module(x)
        x.mul_(2.0)
        same = torch.equal(module(x), module(x.clone()))
    _need(same, "gives an old answer for a tensor whose values have changed; remember nothing by identity", "state")


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

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        return value.detach()

    if hasattr(optimizer, "set_hessian_vector"):
        optimizer.set_hessian_vector(functools.partial(hessian_vector, loss))
    if getattr(optimizer, "needs_closure", False):
        return float(optimizer.step(closure))
    value = closure()
    optimizer.step()
    return float(value)


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
    same = _optimize(method, 6)[0] == _optimize(method, 6)[0]
    _need(same, "gives two trajectories from one start; seed its own draws", "nondeterministic")


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
            number = isinstance(value, int | float | np.number) or (isinstance(value, Tensor) and value.ndim == 0)
            _need(number, f"gives a {type(value).__name__}, not a number that multiplies the learning rate")
            _need(math.isfinite(value) and value >= 0, f"is {value} at {i / 101:.2f} of a budget of {total}")


def loss_is_a_mean(method: Method) -> None:
    """A finite scalar with a finite gradient, for ordinary and for extreme logits (features, where it has a head)."""
    loss = method.make()
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 5, (16,), generator=generator)
    for scale in (1.0, 50.0):
        start, logits, more = loss_arguments(method, scale, generator)
        asked = targets.clone()
        value = _scalar(loss(logits, targets, **more), "the logits")
        _need(torch.equal(targets, asked), "changes the targets in place", "in-place")
        (gradient,) = torch.autograd.grad(value, start)
        good = bool(value.isfinite()) and bool(gradient.isfinite().all())
        _need(good, f"or its gradient is not finite for inputs of scale {scale:g}")


def _scalar(value: Any, of: str) -> Tensor:
    """What a loss gives: one number that can be differentiated."""
    _need(isinstance(value, Tensor), f"gives a {type(value).__name__}, not a tensor")
    _need(value.ndim == 0, f"gives shape {tuple(value.shape)}, not a scalar")
    _need(value.requires_grad, f"does not depend on {of}: nothing would be learned from it")
    return value


def loss_arguments(
    method: Method, scale: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A leaf tensor, and the logits and further arguments that a loss is given, computed from it.

    The leaf is (16, 5) logits, or the (16, 8) inputs of the output layer that the loss brings.
    """
    if not hasattr(method.factory, "head"):
        logits = (scale * torch.randn(16, 5, generator=generator)).requires_grad_(True)
        return logits, logits, {}
    layer, classifier = output_layer(loss_head(method, method.defaults)(8, 5, True))
    kept: dict[str, Tensor] = {}
    if "features" in inspect.signature(method.factory).parameters:
        classifier.register_forward_pre_hook(lambda module, args: kept.update(features=args[0]))
    inputs = (scale * torch.randn(16, 8, generator=generator)).requires_grad_(True)
    return inputs, layer(inputs), kept


def norm_keeps_shape(method: Method) -> None:
    """(N, C, H, W) and (N, T, C) in, the same shape out, finite for a constant input."""
    for shape, features in (((4, 6, 5, 5), 6), ((4, 7, 6), 6)):
        module = method.make(features)
        _need(isinstance(module, nn.Module), f"make(features) gives a {type(module).__name__}, not a torch.nn.Module")
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        before = x.clone()
        y = module(x)
        _need(y.shape == x.shape, f"takes {shape} to {tuple(y.shape)}", "shape")
        _need(y.dtype == x.dtype, f"takes {x.dtype} to {y.dtype}; keep the input's dtype", "dtype")
        _need(torch.equal(x, before), "changes its input in place; return a new tensor", "in-place")
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


def block_keeps_shape(method: Method) -> None:
    """(N, T, C) in, the same shape and dtype out."""
    _tokens_in_tokens_out(method.make(8, 16, lambda width: nn.GELU()))


def attention_keeps_shape_and_order(method: Method) -> None:
    """(N, T, C) in, the same shape and dtype out; a causal one reads no later token."""
    module = method.make(8, 2, True)
    x, y = _tokens_in_tokens_out(module)
    with torch.no_grad():
        later = torch.cat([x[:, :4], 1.0 - x[:, 4:]], 1)
        same = torch.allclose(module(later)[:, :4], y[:, :4], rtol=1e-4, atol=1e-5)
    _need(same, "reads later tokens though it is to be causal; mask them")


def _tokens_in_tokens_out(module: Any) -> tuple[Tensor, Tensor]:
    _need(isinstance(module, nn.Module), f"gives a {type(module).__name__}, not a torch.nn.Module")
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    y = module(x)
    _need(y.shape == x.shape, f"takes {tuple(x.shape)} to {tuple(y.shape)}", "shape")
    _need(y.dtype == x.dtype, f"takes {x.dtype} to {y.dtype}; keep the input's dtype", "dtype")
    _need(torch.equal(x, before), "changes its input in place; return a new tensor", "in-place")
    return x, y


def penalty_is_a_scalar(method: Method) -> None:
    """A function without arguments that gives a finite scalar."""
    penalty = method.make(_problem()[0])
    _need(callable(penalty), f"gives a {type(penalty).__name__}, not a function that gives the penalty")
    value = penalty()
    _need(isinstance(value, Tensor), f"its penalty is a {type(value).__name__}, not a tensor")
    _need(value.ndim == 0, f"its penalty has shape {tuple(value.shape)}, not that of a scalar")
    _need(bool(value.isfinite()), "its penalty is not finite", "not-finite")


def average_is_of_the_weights(method: Method) -> None:
    """Weights to evaluate with are finite, under names and of shapes that the model has."""
    model, *_ = _problem()
    averager = method.make(model)
    for step in range(4):
        averager.update(step + 1.0, 4.0)
    known = model.state_dict()
    average = averager.weights()
    for name, tensor in (average or {}).items():
        _need(name in known, f"gives weights named {name!r}, which the model does not have")
        _need(tensor.shape == known[name].shape, f"gives {name} of shape {tuple(tensor.shape)}", "shape")
        _need(bool(tensor.isfinite().all()), f"gives {name} values that are not finite", "not-finite")


def keeps_examples(method: Method) -> None:
    """`subset` gives indices of examples, at least one, the same from the same generator; it changes no example."""
    inputs, targets = torch.rand(64, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 4
    before = inputs.clone(), targets.clone()
    drawn = [method.make().subset(inputs, targets, torch.Generator().manual_seed(1)) for _ in range(2)]
    rows = drawn[0]
    _need(isinstance(rows, Tensor), f"subset gives a {type(rows).__name__}, not a tensor of indices")
    _need(
        rows.dtype == torch.long and rows.ndim == 1, f"subset gives {rows.dtype} {tuple(rows.shape)}; 1-d int64 it is"
    )
    _need(len(rows) > 0, "subset keeps no example at all")
    _need(bool((rows >= 0).all() and (rows < 64).all()), "subset gives indices beyond the examples there are")
    _need(torch.equal(*drawn), "subset draws from elsewhere than the given generator", "nondeterministic")
    untouched = torch.equal(inputs, before[0]) and torch.equal(targets, before[1])
    _need(untouched, "changes the training examples in place", "in-place")


# ---------------------------------------------------------------- objectives


def objective_reads_only_what_was_generated(method: Method) -> None:
    """A finite scalar whose gradient is finite, and 0 where no token was generated, whatever stands there."""
    objective = method.make()
    batch, logp, entropy = _rollouts()
    logp = logp.requires_grad_()
    more = (entropy,) if getattr(objective, "needs_entropy", False) else ()
    value = _scalar(objective.loss(batch, logp, *more), "the log-probabilities")
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
        keeps_shape_and_dtype, leaves_input_alone, finite_where_finite, deterministic_in_eval, answers_by_value,
        state_round_trips, gradient_is_the_derivative,
    ],
    "optimizer": [
        is_an_optimizer, steps_are_finite_and_move, optimizer_is_deterministic, optimizer_resumes,
        skips_missing_gradients,
    ],
    "schedule": [schedule_is_a_multiplier],
    "loss": [loss_is_a_mean],
    "norm": [norm_keeps_shape],
    "init": [init_fills],
    "block": [block_keeps_shape],
    "attention": [attention_keeps_shape_and_order],
    "regularizer": [penalty_is_a_scalar],
    "averaging": [average_is_of_the_weights],
    "data": [keeps_examples],
    "objective": [objective_reads_only_what_was_generated],
    "offline-objective": [objective_reads_only_what_was_generated],
}  # fmt: skip


def _need(condition: bool, message: str, kind: str = "broken") -> None:
    if not condition:
        raise ContractError(message, kind)


def _first_bad(x: Tensor, y: Tensor) -> Any:
    flat = y.detach().reshape(len(x), -1)
    bad = (~flat.isfinite()).any(dim=1).nonzero()
    return round(float(x.detach()[int(bad[0]), 0]), 4)
