from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from suite import IntUniform, Paper, gradient
from suite.train.step import Closure, Stepper
from suite.train.workload import DoesNotApply

PAPER = Paper(
    "Accelerated Training through Iterative Gradient Propagation Along the Residual Path",
    arxiv="2501.17086",
    year=2025,
)


@gradient(
    "highway-bp-k0",
    paper=PAPER,
    defaults={"iterations": 0},
    families=("vision", "language"),
    system="highway-bp",
    confidence="known",
)
@gradient(
    "highway-bp-k",
    paper=PAPER,
    defaults={"iterations": 2},
    space={"iterations": IntUniform(1, 8)},
    families=("vision", "language"),
    system="highway-bp",
    passes=3.0,
    confidence="known",
)
class HighwayBackprop(Stepper):
    """Highway-BP: gradients through the residual stream first, through the branches one at a time by iteration.

    For blocks x_{l+1} = x_l + f_l(x_l) and the gradient g_L at the top of the stream, g_l = g_L at
    first; then `iterations` times v_l = J_l' g_{l+1} for all l at once and g_l = g_L + the sum of v_j over j >= l.
    Parameters take their gradients from the last estimates. 0 iterations know the skip path
    alone; as many as there are branches give exact backpropagation. All else
    (embeddings, norms of the stream, shortcuts, head) is backpropagated through as usual.

    What the method gains is parallel work over the blocks. Here the iterations are done one
    after the other, each a pass of its own, so that it shows the quality at k iterations, not the speed. A branch
    begins at the module that takes the stream in and ends at its marked last layer; a model
    without one is not for this method.

    Parameters
    ----------
    iterations : k.
    """

    def __init__(self, optimizer: Optimizer, *, iterations: int) -> None:
        super().__init__(optimizer)
        self.iterations = iterations
        self.untraced = False
        self.gates: list[Gate] = []

    def set_model(self, model: nn.Module) -> None:
        """Look for the branches of `model` in its next forward pass."""
        if not any(ends_branch(part) for part in model.modules()):
            raise DoesNotApply("the model has no residual branches for highway backpropagation to cut")
        self.untraced = True
        Tracer(model, self.place_gates)

    def place_gates(self, entries: list[nn.Module]) -> None:
        """Put a gate before each module that takes the stream into a branch."""
        self.gates = [Gate(module) for module in entries]
        self.untraced = False

    def gradients(self, closure: Closure) -> Tensor:
        """Pass after pass on the same batch, the last of which leaves its gradients; one more at the very first."""
        if self.untraced:
            closure()
        for gate in self.gates:
            gate.open()
        losses = [closure() for _ in range(self.iterations + 1)]
        for gate in self.gates:
            gate.close()
        return losses[0]


class Gate:
    """Passes on, in place of the gradient that comes back through it, the one that came in the previous pass.

    In the first pass after `open` it passes on zero; after `close` it changes nothing.
    """

    def __init__(self, module: nn.Module) -> None:
        self.last: Tensor | None = None
        self.active = False
        module.register_forward_pre_hook(self.before)

    def open(self) -> None:
        self.last, self.active = None, True

    def close(self) -> None:
        self.last, self.active = None, False

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """A forward pre-hook: watch the gradient of the first argument."""
        if not self.active or not args[0].requires_grad:
            return None
        stream = args[0].view_as(args[0])
        stream.register_hook(self.exchange)
        return (stream, *args[1:])

    def exchange(self, gradient: Tensor) -> Tensor:
        """Keep the gradient; return the previous pass's."""
        last, self.last = self.last, gradient.detach()
        return torch.zeros_like(gradient) if last is None else last


class Tracer:
    """Finds, in the next forward pass of a model with a graph, the modules at which residual branches begin.

    A branch is what leads to the output through the branch's last layer only; its
    entries are the modules whose input is outside of it and whose output is inside, the
    outermost ones where modules are nested.

    Parameters
    ----------
    model : has branches whose last layers are marked.
    found : is called with the entries, in the order of their calls.
    """

    def __init__(self, model: nn.Module, found: Any) -> None:
        self.found = found
        self.calls: list[tuple[nn.Module, Any, Any]] = []
        self.handles = [part.register_forward_hook(self.note) for part in model.modules() if part is not model]
        self.handles.append(model.register_forward_hook(self.finish))

    def note(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and all(isinstance(t, Tensor) and t.requires_grad for t in (args[0], output)):
            self.calls.append((module, args[0].grad_fn, output.grad_fn))

    def finish(self, model: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if output.grad_fn is None:
            return
        for handle in self.handles:
            handle.remove()
        entries: dict[nn.Module, None] = {}
        for end in [after for module, _, after in self.calls if ends_branch(module)]:
            around = reachable(output.grad_fn, without=end)
            inside = reachable(end) - around
            entries |= {m: None for m, before, after in self.calls if before in around and after in inside}
        self.found([m for m in entries if not any(m in nested(other) for other in entries)])


def ends_branch(module: nn.Module) -> bool:
    """Whether the module is the marked last layer of a residual branch."""
    return bool(getattr(module, "levelfield_residual", False))


def nested(module: nn.Module) -> Iterator[nn.Module]:
    """The modules inside `module`, itself left out."""
    return (part for part in module.modules() if part is not module)


def reachable(node: Any, without: Any = None) -> set[Any]:
    """Nodes of the graph from which `node` was computed, itself included, along ways that avoid `without`."""
    found: set[Any] = set()
    todo = [node]
    while todo:
        current = todo.pop()
        if current is not None and current is not without and current not in found:
            found.add(current)
            todo.extend(source for source, _ in current.next_functions)
    return found
