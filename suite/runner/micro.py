"""Single methods on fixed inputs: what the micro-benchmarks time, and exact counts of it."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suite.registry import Method
from suite.runner.cost import operations, saved_bytes
from suite.train.build import loss_head, output_layer
from suite.train.objective import Rollouts
from suite.train.roles import UNDECAYED

ROWS, FEATURES, CLASSES = 256, 64, 16
PROMPTS, GROUP, TOKENS = 16, 8, 12
REASON = re.compile(r"\bcosts?\s+about\s+(\d+)\s+of\s+AdamW's")  # "a step costs about 4 of AdamW's", in a docstring
DEAR = 3.0  # times torch's AdamW above which an optimizer's step needs a reason
AGREES = 2.0  # factor within which the cost that a docstring states and the measured one are the same
WARM_UP = 3  # calls before counting, in which lazily made state comes to be
RATE = 1e-6  # learning rate at which fixed gradients leave the weights where they are

# The weights of hmm-gpt's quick model, 27,000 of them: (role, shape), and how many there are.
SHAPES = (
    ("matrix", (96, 32), 2), ("matrix", (32, 32), 2), ("matrix", (128, 32), 2), ("matrix", (32, 128), 2),
    ("embedding", (17, 32), 1), ("embedding", (32, 32), 1), ("head", (16, 32), 1), ("norm", (32,), 10),
    ("bias", (128,), 2), ("bias", (32,), 2),
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One method at work.

    Attributes
    ----------
    run : does its work once: forward and backward, or one update.
    forward : the half whose tensors are kept for the other; None for updates.
    state : tensors that the method keeps between calls.
    """

    run: Callable[[], Any]
    forward: Callable[[], Any] | None
    state: Callable[[], Iterable[Tensor]]


def counts(piece: Piece) -> dict[str, float]:
    """Exact counts of one call: the same on every machine.

    Returns
    -------
    flops, elementwise : operations, as `suite.runner.cost.operations` counts them.
    saved_bytes : kept by the forward half for the backward half, the method's own state left out.
    state_bytes : parameters, buffers and optimizer state that the method keeps between calls.
    """
    for _ in range(WARM_UP):
        piece.run()
    counted = operations(piece.run)
    state = list(piece.state())
    kept = saved_bytes(piece.forward, state) if piece.forward else 0
    return counted | {"saved_bytes": kept, "state_bytes": sum(t.numel() * t.element_size() for t in state)}


def _stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def activation(method: Method) -> Piece:
    """Forward and backward of (256, 64) inputs, in training mode, with the parameters of 64 channels."""
    taken = "features" in inspect.signature(method.factory).parameters
    module: Any = (method.make(features=FEATURES) if taken else method.make()).train()
    x = torch.randn(ROWS, FEATURES, generator=_stream()).requires_grad_()
    losses = torch.ones(ROWS)

    def forward() -> Tensor:
        y = module(x)
        return module.score_loss(losses) if hasattr(module, "score_loss") else y.sum()

    return Piece(lambda: _backward(forward()), forward, lambda: [*module.parameters(), *module.buffers()])


def _backward(value: Tensor) -> None:
    if value.requires_grad:
        value.backward()


def loss(method: Method) -> Piece:
    """Forward and backward of the loss of (256, 16) logits, through the output layer where it brings one."""
    targets = torch.randint(CLASSES, (ROWS,), generator=_stream())
    criterion = method.make()
    if not hasattr(method.factory, "head"):
        logits = torch.randn(ROWS, CLASSES, generator=_stream()).requires_grad_()
        return _differentiated(lambda: criterion(logits, targets), [])
    layer, classifier = output_layer(loss_head(method, method.defaults)(FEATURES, CLASSES, True))
    kept: dict[str, Tensor] = {}
    if "features" in inspect.signature(method.factory).parameters:
        classifier.register_forward_pre_hook(lambda module, args: kept.update(features=args[0]))
    x = torch.randn(ROWS, FEATURES, generator=_stream()).requires_grad_()
    return _differentiated(lambda: criterion(layer(x), targets, **kept), [*layer.parameters(), *layer.buffers()])


def objective(method: Method) -> Piece:
    """Forward and backward of the policy loss of 16 groups of 8 completions of up to 12 tokens."""
    made, stream = method.make(), _stream()
    rows = PROMPTS * GROUP
    rewards = (torch.rand(PROMPTS, GROUP, generator=stream) < 0.5).float()
    rewards[0], rewards[:, 0] = 1.0, 1.0  # one group all right, which a rehearsal may hold
    lengths = torch.randint(1, TOKENS + 1, (rows, 1), generator=stream)
    old, reference, logp, entropy = (-torch.rand(rows, TOKENS, generator=stream) for _ in range(4))
    batch = Rollouts(
        rewards=rewards,
        mask=torch.arange(TOKENS) < lengths,
        old_logp=old,
        reference_logp=reference if made.needs_reference else None,
        rehearsed=torch.arange(PROMPTS) < 1 if made.rehearsal_pool else None,
    )
    logp.requires_grad_()
    more = (-entropy,) if made.needs_entropy else ()
    return _differentiated(lambda: made.loss(batch, logp, *more), [])


def _differentiated(forward: Callable[[], Tensor], state: Sequence[Tensor]) -> Piece:
    return Piece(lambda: forward().backward(), forward, lambda: state)


def optimizer(method: Method) -> Piece:
    """One update of the weights of a small GPT, with gradients in place (or a cheap closure where it needs one)."""
    closure = bool(getattr(method.factory, "needs_closure", False))
    return update(lambda groups: method.make(groups) if closure else method.make(groups, lr=RATE))


def foreach_adamw() -> Piece:
    """The update that every optimizer's time is compared with: torch's AdamW on lists of tensors."""
    return update(lambda groups: torch.optim.AdamW(groups, lr=RATE, foreach=True))


def stated_cost(method: Method) -> int | None:
    """AdamW steps that one step costs by the docstring ("costs about 4 of AdamW's"); None where it says nothing."""
    found = REASON.search(method.doc)
    return int(found[1]) if found else None


def complaint(method: Method, low: float, high: float) -> str:
    """What is wrong with the docstring of an optimizer whose step costs `low` to `high` of AdamW's; "" if nothing."""
    stated, measured = stated_cost(method), f"a step of {method.name} costs {low:.2f} to {high:.2f} of AdamW's"
    if stated is None and low > DEAR:
        say = f"makes a step cost about {round(math.sqrt(low * high))} of AdamW's"
        return f'{measured}: make it faster, or let the docstring say what it is that "{say}"'
    if stated is not None and (low > AGREES * stated or high < stated / AGREES):
        return f"{measured}: its docstring says {stated}"
    return ""


def update(make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]) -> Piece:
    """One step of an optimizer on the weights of `SHAPES`, in groups by role as the engine makes them.

    Gradients are fixed. An optimizer that evaluates a closure gets a strongly convex loss
    whose linear term changes its sign at every step, as batches change, so that a line
    search has work however long it runs. One that has phases is in the middle of its run.
    """
    stream = _stream()
    groups: dict[str, dict[str, Any]] = {}
    for role, shape, count in SHAPES:
        group = groups.setdefault(role, {"params": [], "role": role})
        group["params"] += [torch.randn(shape, generator=stream).requires_grad_() for _ in range(count)]
        if role in UNDECAYED:
            group["weight_decay"] = 0.0
    weights: list[Tensor] = [p for group in groups.values() for p in group["params"]]
    slopes = [torch.randn(p.shape, generator=stream) for p in weights]
    made: Any = make(list(groups.values()))
    for hook, value in (("set_horizon", 1e6), ("set_progress", 0.5), ("set_hessian_vector", _curvature)):
        if hasattr(made, hook):
            getattr(made, hook)(value)
    for p, slope in zip(weights, slopes, strict=True):
        p.grad = slope

    def step_on_the_next_batch() -> None:
        torch._foreach_neg_(slopes)
        made.step(functools.partial(_loss, weights, slopes))

    run = step_on_the_next_batch if getattr(made, "needs_closure", False) else made.step
    return Piece(run, None, lambda: list(_tensors(made.state.values())))


@torch.no_grad()
def _loss(weights: list[Tensor], slopes: list[Tensor]) -> Tensor:
    """Σ w⁴/4 + w²/2 + ⟨slope, w⟩ with its gradient in place, in few operations."""
    squares = torch._foreach_mul(weights, weights)
    gradients = torch._foreach_mul(torch._foreach_add(squares, 1.0), weights)
    torch._foreach_add_(gradients, slopes)
    value = torch.stack(
        [(w * (g + w + 3 * s)).sum() / 4 for w, g, s in zip(weights, gradients, slopes, strict=True)]
    ).sum()  # g = w³ + w + s
    for p, gradient in zip(weights, gradients, strict=True):
        p.grad = gradient
    return value


@torch.no_grad()
def _curvature(parameters: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
    """Hessian-vector products of the same function."""
    squares = torch._foreach_mul(list(parameters), list(parameters))
    torch._foreach_mul_(squares, 3.0)
    torch._foreach_add_(squares, 1.0)
    return list(torch._foreach_mul(squares, list(vectors)))


def _tensors(values: Any) -> Iterable[Tensor]:
    """Tensors in nested lists and mappings, each once."""
    found: dict[int, Tensor] = {}
    todo = [values]
    while todo:
        value = todo.pop()
        if isinstance(value, Tensor):
            found[id(value)] = value
        elif isinstance(value, dict):
            todo.extend(value.values())
        elif not isinstance(value, str | bytes) and isinstance(value, Iterable):
            todo.extend(value)
    return found.values()


PIECES: dict[str, Callable[[Method], Piece]] = {
    "activation": activation,
    "optimizer": optimizer,
    "loss": loss,
    "objective": objective,
}
