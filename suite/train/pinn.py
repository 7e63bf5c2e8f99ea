"""Physics-informed fits: a network trained on a differential equation's residual and conditions."""

from __future__ import annotations

import copy
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.facts import Tier
from suite.train.build import Build, Interface
from suite.train.derivatives import AutogradField, Engine, Field, autograd_fields, columns
from suite.train.jets import agrees, through
from suite.train.workload import Context, DoesNotApply, Predictions, Task, Workload

EVAL_ROWS = 8192  # points of one forward pass at evaluation
MAP_SIDE = 40  # points a side of the maps that a run exhibits
PROBE_POINTS = 8  # points at which the Taylor-mode engine is compared with nested differentiation


@dataclass(frozen=True)
class Domain:
    """A box of coordinates, time among them where the equation evolves.

    Attributes
    ----------
    names : coordinate names in column order, such as ("x", "t").
    lows, highs : the box, one bound a coordinate.
    time : column of the time coordinate, or None.
    periodic : columns along which the solution repeats.
    """

    names: tuple[str, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    time: int | None = None
    periodic: tuple[int, ...] = ()

    @property
    def dims(self) -> int:
        return len(self.lows)

    @property
    def space(self) -> tuple[int, ...]:
        """Columns other than time."""
        return tuple(axis for axis in range(self.dims) if axis != self.time)

    def uniform(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, d) points drawn uniformly, float32, on the generator's device."""
        low, span = _box(self.lows, self.highs, generator.device)
        draws = torch.rand(count, self.dims, generator=generator, device=generator.device)
        return torch.addcmul(low, span, draws)

    def contains(self, points: np.ndarray, slack: float = 1e-6) -> np.ndarray:
        """(n,) truth of lying in the closed box, up to `slack` of its width."""
        low, high = np.array(self.lows), np.array(self.highs)
        margin = slack * (high - low)
        return ((points >= low - margin) & (points <= high + margin)).all(axis=1)

    def grid(self, *counts: int) -> np.ndarray:
        """(prod(counts), d) float64 points of the grid with `counts` equidistant values a column, ends included.

        A count of 1 stands for the column's middle.
        """
        points = np.empty((math.prod(counts), self.dims))
        repeats, tiles = len(points), 1
        for column, (low, high, n) in enumerate(zip(self.lows, self.highs, counts, strict=True)):
            repeats //= n
            values = np.linspace(low, high, n) if n > 1 else np.array([(low + high) / 2])
            points[:, column] = np.tile(np.repeat(values, repeats), tiles)
            tiles *= n
        return points

    def face(self, axis: int, at: float, counts: Sequence[int] | int) -> np.ndarray:
        """Grid points with coordinate `axis` held at `at`; `counts` values along each other column."""
        others = [counts] * (self.dims - 1) if isinstance(counts, int) else list(counts)
        points = self.grid(*others[:axis], 1, *others[axis:])
        points[:, axis] = at
        return points


@functools.cache
def _box(lows: tuple[float, ...], highs: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    low = torch.tensor(lows, device=device)
    return low, torch.tensor(highs, device=device) - low


@dataclass(frozen=True)
class Condition:
    """An initial or boundary condition, taken at fixed points.

    Attributes
    ----------
    name : what it states ("initial", "boundary", "velocity", ...).
    points : (m, d) float32.
    quantity : ``quantity(points, *fields)`` -> (k,) or (k, equations), of one field for each unknown function.
    values : what the quantity is there, broadcast against it; None stands for 0.
    weight : factor of the mean square of their difference in the training loss.
    """

    name: str
    points: Tensor
    quantity: Callable[..., Tensor]
    values: Tensor | None = None
    weight: float = 1.0

    def to(self, device: torch.device) -> Condition:
        values = None if self.values is None else self.values.to(device)
        return replace(self, points=self.points.to(device), values=values)

    def residual(self, *fields: Field) -> Tensor:
        """Quantity minus values, (k,) or (k, equations)."""
        quantity = self.quantity(self.points, *fields)
        return quantity if self.values is None else quantity - self.values


def condition(
    name: str,
    points: np.ndarray,
    quantity: Callable[..., Tensor],
    values: np.ndarray | None = None,
    weight: float = 1.0,
) -> Condition:
    """A condition from float64 points (m, d) and values."""
    goal = None if values is None else torch.as_tensor(values, dtype=torch.float32)
    return Condition(name, torch.as_tensor(points, dtype=torch.float32), quantity, goal, weight)


def value(points: Tensor, *fields: Field) -> Tensor:
    """The quantity of Dirichlet conditions: the first unknown function itself."""
    return fields[0].value


def seam(*orders: tuple[int, ...]) -> Callable[..., Tensor]:
    """The quantity of periodic conditions: jumps from the points' first half to their second.

    It is (m/2,) for one order and one unknown function, else (m/2, jumps).

    ``seam((), (0,))`` compares u and u_x.
    """

    def jumps(points: Tensor, *fields: Field) -> Tensor:
        half = len(points) // 2
        compared = [u.d(*order) if order else u.value for u in fields for order in orders]
        found = [c[:half] - c[half:] for c in compared]
        return found[0] if len(found) == 1 else torch.stack(found, dim=1)

    return jumps


class Sampler(ABC):
    """Where the residual is taken; the base class of every method of slot ``sampler``.

    Parameters
    ----------
    domain : where points may lie.
    count : points a step, never exceeded.
    generator : the run's stream of collocation points.

    Attributes
    ----------
    magnitude : ``magnitude(points)`` -> (n,) detached |residual| of the current network at any points;
        set by the workload, charged to the budget at one gradient evaluation per `count` points.
    """

    magnitude: Callable[[Tensor], Tensor]

    def __init__(self, domain: Domain, count: int, generator: torch.Generator) -> None:
        self.domain, self.count, self.generator = domain, count, generator

    @abstractmethod
    def points(self) -> Tensor:
        """The next step's points (at most `count`, d)."""

    def update(self, points: Tensor, residual: Tensor) -> None:  # noqa: B027 an optional hook
        """Learn the |residual| (n,), detached, that the last step's points had (at its last evaluation)."""

    def weights(self, points: Tensor) -> Tensor | None:
        """Factors (n,) on the residual inside the loss, or None for ones."""
        return None

    def fresh(self, count: int | None = None) -> Tensor:
        """Uniform points of the domain, `count` or as many as a step takes."""
        return self.domain.uniform(self.count if count is None else count, self.generator)


class Problem:
    """What a pde-method works on: the equation, its conditions and a derivative engine.

    Attributes
    ----------
    task : the equation; replaced by `stage` while a curriculum runs.
    domain : its domain.
    conditions : conditions in force, their points on the run's device.
    engine : derivative engine of the residual: the task's Taylor-mode engine where the network
        can be run on jets, else nested differentiation.
    taylor : True where the network can be run on jets.
    generator : the run's stream for a method's own random numbers.
    charged : gradient evaluations that a method spent beside the loop's own.
    """

    def __init__(self, task: PdeTask, context: Context) -> None:
        self.task = self.target = task
        self.domain = task.domain
        self.device = context.device
        self.require_conditions([c.to(context.device) for c in task.conditions(context.tier)])
        self.engine: Engine = autograd_fields
        self.taylor = False
        self.generator = context.generator("pde-method")
        self.charged = 0

    def require_conditions(self, conditions: Sequence[Condition]) -> None:
        """Put these conditions, and no others, in force."""
        self.conditions = tuple(conditions)
        points = torch.cat([c.points for c in conditions]) if conditions else None
        self._stacked = (points, any(_differentiates(c, self.target.outputs) for c in conditions))

    def __deepcopy__(self, memo: dict[int, Any]) -> Problem:
        return self  # shared by copies of the model: random streams and counters are the run's

    def stage(self, fraction: float) -> None:
        """Put the equation at `fraction` of its difficulty, 1 being the task itself."""
        self.task = self.target if fraction >= 1 else self.target.curriculum(fraction)

    def choose_engine(self, network: nn.Module) -> None:
        """Take the task's Taylor-mode engine if `network` gives the same residual through it."""
        jets, probe = self.target.jets, torch.Generator().manual_seed(0)
        points = self.domain.uniform(PROBE_POINTS, probe).to(self.device)
        self.taylor = jets is not None and agrees(jets, network, points, self.target.residual)
        if self.taylor and jets is not None:
            self.engine = jets

    def residual(self, fields: tuple[Field, ...], points: Tensor) -> Tensor:
        """Equation residuals (n, equations) of the `fields` at `points`."""
        return _as_matrix(self.task.residual(points, *fields))

    def condition_residuals(self, network: nn.Module) -> list[Tensor]:
        """Residuals, (k,) or (k, equations), of each condition, from one evaluation of the network."""
        points, differentiated = self._stacked
        if points is None:
            return []
        if differentiated:
            fields = autograd_fields(network, points)
        else:
            fields = tuple(AutogradField(points, column) for column in columns(network(points)))
        found, start = [], 0
        for stated in self.conditions:
            part = slice(start, start + len(stated.points))
            found.append(stated.residual(*(field.rows(part) for field in fields)))
            start = part.stop
        return found

    def require(self, holds: bool, what: str) -> None:
        """Raise `DoesNotApply` unless `holds`."""
        if not holds:
            raise DoesNotApply(f"task {self.target.name!r} has no {what}")


class PdeMethod(nn.Module):
    """Mean squared residual plus weighted mean squared conditions; base class of slot ``pde-method``.

    Raissi, Perdikaris and Karniadakis, "Physics-informed neural networks" (2019).
    A method overrides the hooks it changes: `embed` (coordinates to network
    inputs), `network` (the function in between), `ansatz` (its outputs to the
    solution), `prepare` (the initialised network), `fields` (derivatives),
    `penalty` (what is averaged), `terms` or the whole `loss`.
    `set_progress(fraction)` is called before each step when a method defines it.

    Parameters
    ----------
    problem : the equation and its conditions.

    Attributes
    ----------
    pointwise : |residual| (n,) of the last loss's points, detached: what samplers learn from.
    """

    pointwise: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        low, high = torch.tensor(problem.domain.lows), torch.tensor(problem.domain.highs)
        self.register_buffer("centre", (low + high) / 2, persistent=False)
        self.register_buffer("scale", 2 / (high - low), persistent=False)

    @property
    def features(self) -> int:
        """Columns that `embed` gives."""
        return self.problem.domain.dims

    def embed(self, x: Tensor) -> Tensor:
        """Network inputs (n, features) of points (n, d): the domain scaled to [-1, 1]."""
        return (x - self.centre) * self.scale

    def network(self, build: Build, tier: Tier) -> nn.Module:
        """What maps the embedded points to outputs: the task's network unless overridden."""
        return self.problem.target.network(build, self.features, tier)

    def ansatz(self, x: Tensor, out: Tensor) -> Tensor:
        """The solution (n, outputs) from the network's outputs at `x`; the task's own form unless overridden."""
        return self.problem.target.ansatz(x, out)

    def prepare(self, network: nn.Module) -> None:
        """Change the initialised network in place, before the optimizer is made."""

    def fields(self, network: nn.Module, points: Tensor) -> tuple[Field, ...]:
        """The solution's unknown functions at `points`, with derivatives."""
        return self.problem.engine(network, points)

    def residual(self, network: nn.Module, points: Tensor) -> Tensor:
        """Equation residuals (n, equations)."""
        return self.problem.residual(self.fields(network, points), points)

    def penalty(self, residual: Tensor) -> Tensor:
        """What is averaged over points, of the same shape as `residual`: its square."""
        return residual.square()

    def terms(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        """Loss terms: the equation's, then each condition's with the task's weight in it."""
        residual = self.residual(network, points)
        self.pointwise = magnitude(residual)
        if weights is not None:
            residual = residual * weights[:, None]
        return [self.mean_penalty(residual), *self.condition_terms(network)]

    def mean_penalty(self, residual: Tensor) -> Tensor:
        """Mean over points of the penalty of residuals (n,) or (n, equations), summed over equations."""
        mean, equations = self.penalty(residual).mean(), residual.numel() // len(residual)
        return mean if equations == 1 else equations * mean

    def condition_terms(self, network: nn.Module) -> list[Tensor]:
        """Weighted mean penalty of each condition."""
        found = self.problem.condition_residuals(network)
        means = [self.mean_penalty(residual) for residual in found]
        return [m if c.weight == 1 else c.weight * m for c, m in zip(self.problem.conditions, means, strict=True)]

    def loss(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> Tensor:
        """Training loss.

        Parameters
        ----------
        network : maps (n, d) points to (n, outputs) values of the solution.
        points : collocation points (n, d).
        weights : factors (n,) on the residual, from the sampler, or None.
        """
        terms = self.terms(network, points, weights)
        return functools.reduce(torch.add, terms)


class Surrogate(nn.Module):
    """The approximate solution: a method's embedding, the task's network, a method's ansatz."""

    def __init__(self, method: PdeMethod, core: nn.Module) -> None:
        super().__init__()
        self.method, self.core = method, core

    def forward(self, x: Tensor) -> Tensor:
        """Values (n, outputs) at points (n, d)."""
        return self.method.ansatz(x, self.core(self.method.embed(x)))


class Site(nn.Module):
    """An activation site that takes jets as well: the activation is used through its values and derivatives."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.width_factor = getattr(activation, "width_factor", 1)

    def forward(self, x: Tensor) -> Tensor:
        return through(self.activation, x)


class PinnBuild(Build):
    """Makes the parts of a network that may be run on jets where its task has a use for them."""

    def __init__(self, context: Context, jets: bool) -> None:
        super().__init__(context)
        self.jets = jets

    def activation(self, features: int) -> nn.Module:
        activation = super().activation(features)
        return Site(activation) if self.jets else activation

    def block(self, features: int, hidden: int) -> nn.Module:
        """The recipe's block as one link of a chain: nothing in it ends a residual branch."""
        block = super().block(features, hidden)
        for part in block.modules():
            if hasattr(part, "levelfield_residual"):
                del part.levelfield_residual
        return block


class Mlp(nn.Module):
    """Fully connected network: a linear layer, then blocks, the recipe's activation after each, and a linear head.

    With the block ``ffn`` (linear, activation, linear) this is the plain MLP of
    1 + 2 * `blocks` hidden layers.

    Parameters
    ----------
    build : makes activations, blocks and the head.
    inputs, outputs : columns in and out.
    width : units a layer.
    blocks : blocks after the first layer.
    """

    def __init__(self, build: Build, inputs: int, outputs: int, width: int, blocks: int) -> None:
        super().__init__()
        first = build.activation(width)
        layers: list[nn.Module] = [nn.Linear(inputs, width), first]
        features = build.width(width, first)
        for _ in range(blocks):
            activation = build.activation(features)
            layers += [build.block(features, width), activation]
            features = build.width(features, activation)
        self.layers = nn.ModuleList(layers)
        self.head = build.head(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class PdeTask(Task):
    """A differential equation with its conditions and a reference solution.

    A tier's sizes hold ``points`` (residual points a step), ``width`` and
    ``blocks`` of the network, and whatever a task's `conditions` read.

    Attributes
    ----------
    domain : coordinates.
    functions : names of the unknown functions that `reference` gives and the score counts.
    unscored : names of further unknown functions, after those.
    success : relative L2 error below which a run counts as solved.
    reference_error : estimated relative L2 error of the reference itself.
    jets : Taylor-mode engine to use where the network allows it, for tasks on which it was
        measured to be faster than nested differentiation; None for the others.
    laplacian : True where derivatives enter through the field's ``laplacian()`` only.
    hard_names : conditions that `hard` builds in.
    """

    domain: Domain
    functions: tuple[str, ...] = ("u",)
    unscored: tuple[str, ...] = ()
    success = 0.1
    reference_error = 1e-15
    laplacian = False
    hard_names: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of unknown functions, the network's outputs."""
        return len(self.functions) + len(self.unscored)

    @property
    def jets(self) -> Engine | None:
        return None

    @abstractmethod
    def residual(self, x: Tensor, *fields: Field) -> Tensor:
        """Equation residual (n,) or (n, equations) at points `x` (n, d) of one field for each unknown function."""

    @abstractmethod
    def conditions(self, tier: Tier) -> Sequence[Condition]:
        """Initial and boundary conditions that the training loss contains."""

    @abstractmethod
    def reference(self, points: np.ndarray) -> np.ndarray:
        """Reference values (n,) or (n, functions), float64, at points (n, d) of the domain."""

    def ansatz(self, x: Tensor, out: Tensor) -> Tensor:
        """The solution from the network's outputs; a task with conditions built in overrides it."""
        return out

    def hard(self, x: Tensor, out: Tensor) -> Tensor:
        """The solution from the network's outputs such that the conditions of `hard_names` hold exactly.

        Raises
        ------
        DoesNotApply : the task states no such form.
        """
        raise DoesNotApply(f"task {self.name!r} states no ansatz that holds its conditions")

    def energy(self, x: Tensor, *fields: Field) -> Tensor:
        """Density (n,) of the energy that the solution minimises among functions that hold the conditions.

        Raises
        ------
        DoesNotApply : the equation is not stated as a minimum.
        """
        raise DoesNotApply(f"task {self.name!r} states no energy")

    def curriculum(self, fraction: float) -> PdeTask:
        """The equation at `fraction` (0 to 1) of its difficulty.

        Raises
        ------
        DoesNotApply : the equation has no coefficient that grows.
        """
        raise DoesNotApply(f"task {self.name!r} has no coefficient to grow")

    def with_values(self, **values: Any) -> PdeTask:
        """A copy of the task with some attributes changed."""
        other = copy.copy(self)
        vars(other).update(values)
        return other

    def network(self, build: Build, inputs: int, tier: Tier) -> nn.Module:
        """The network from `inputs` columns to `outputs`: the recipe's architecture, a plain MLP where it has none."""
        width, blocks = int(tier.sizes["width"]), int(tier.sizes["blocks"])
        own = functools.partial(Mlp, build, inputs, self.outputs, width, blocks)
        return build.network(Interface("points", (inputs,), self.outputs, own))

    def test_points(self, tier: Tier) -> np.ndarray:
        """Points (m, d) at which the error is scored: a grid of 101 values a column in one or two dimensions."""
        return self.domain.grid(*[101] * self.domain.dims)

    def validation_points(self, tier: Tier) -> np.ndarray:
        """Fixed uniform points (m, d) for the curve, apart from the test points."""
        return self.domain.uniform(1000, torch.Generator().manual_seed(1)).double().numpy()

    def map_points(self) -> tuple[np.ndarray, tuple[int, int]]:
        """Points (rows * columns, d) of the exhibited map and its shape: the first two coordinates, others midway."""
        shape = (MAP_SIDE, MAP_SIDE if self.domain.dims > 1 else 1)
        return self.domain.grid(*shape[: self.domain.dims], *[1] * (self.domain.dims - 2)), shape

    def solution(self, points: np.ndarray) -> np.ndarray:
        """Reference values at points of the domain.

        Parameters
        ----------
        points : (n, d), columns in the order of ``domain.names``.

        Returns
        -------
        (n,) for one function, (n, functions) for several; float64.

        Raises
        ------
        ValueError : wrong number of columns, or points outside the domain.
        """
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.domain.dims:
            raise ValueError(f"points must be (n, {self.domain.dims}) for {self.name!r}, got {points.shape}")
        if not self.domain.contains(points).all():
            raise ValueError(f"points lie outside the domain of {self.name!r}: {self.domain}")
        return self.reference(points)

    def workload(self, context: Context) -> Workload:
        return PinnWorkload(self, context)

    def answers(self, tier: Tier) -> np.ndarray:
        return self.solution(self.test_points(tier))

    def score(self, predictions: Predictions, answers: np.ndarray) -> dict[str, float]:
        """Errors of ``u`` (m,) or (m, functions) against the reference; see `error_metrics`."""
        metrics = error_metrics(predictions["u"], answers, self.success)
        return {**metrics, "reference_error": self.reference_error}


class PinnWorkload(Workload):
    """Collocation points from a sampler, a loss from a pde-method; one gradient evaluation a closure call."""

    def __init__(self, task: PdeTask, context: Context) -> None:
        self.task, self.context = task, context
        recipe, tier = context.recipe, context.tier
        self.problem = Problem(task, context)
        self.method: PdeMethod = recipe["pde-method"].make(self.problem)
        build = PinnBuild(context, jets=task.jets is not None)
        surrogate = Surrogate(self.method, self.method.network(build, tier))
        count, calibration = int(tier.sizes["points"]), context.generator("calibration")
        self.model = build.finish(surrogate, lambda: task.domain.uniform(count, calibration))
        self.passes += build.passes
        self.method.prepare(self.model)
        self.problem.choose_engine(self.model)
        self.count = count
        self.sampler: Sampler = recipe["sampler"].make(task.domain, self.count, context.generator("points"))
        self.sampler.magnitude = self.magnitude
        self.sites = build.sites
        self.sites.update(("pde-method", "sampler"))
        self.points: Tensor | None = None
        self.weights: Tensor | None = None
        points = task.validation_points(tier)
        self.validation = (points, task.solution(points))

    @property
    def spent(self) -> float:
        """Gradient evaluations: every closure call, and what samplers and methods evaluated on top."""
        return self.passes + self.problem.charged

    def next(self) -> None:
        if self.points is not None:
            self.sampler.update(self.points, self.method.pointwise)
        self.points = self.sampler.points().to(self.context.device, non_blocking=True)
        self.weights = self.sampler.weights(self.points)
        self.examples += len(self.points)

    def loss(self) -> Tensor:
        assert self.points is not None
        return self.method.loss(self.model, self.points, self.weights)

    def parts(self) -> dict[str, Any]:
        return {"sampler": self.sampler, "method": self.method, "problem": self.problem}

    def magnitude(self, points: Tensor) -> Tensor:
        """|residual| (n,) of the current network at `points`, detached and charged to the budget."""
        self.problem.charged += math.ceil(len(points) / self.count)
        with torch.enable_grad():
            parts = points.to(self.context.device).split(self.count)
            return torch.cat([magnitude(self.method.residual(self.model, part)) for part in parts])

    def validate(self) -> dict[str, float]:
        points, truth = self.validation
        return self.task.score({"u": self._values(points)}, truth)

    def predict(self) -> dict[str, np.ndarray]:
        return {"u": self._values(self.task.test_points(self.context.tier))}

    def exhibits(self) -> dict[str, Any]:
        """Maps of the reference, the prediction and its error over the first two coordinates, 4 digits."""
        points, shape = self.task.map_points()
        truth, guess = self.task.solution(points), self._values(points)
        names = self.task.domain.names[:2]
        box = points[:, : len(names)]
        maps = {"solution": truth, "prediction": guess, "error": guess - truth}
        return {
            "kind": "pde-map",
            "function": self.task.functions[0],
            "axes": list(names),
            "lows": box.min(axis=0).tolist(),
            "highs": box.max(axis=0).tolist(),
            **{name: rounded(values.reshape(len(points), -1)[:, 0].reshape(shape)) for name, values in maps.items()},
        }

    @torch.no_grad()
    def _values(self, points: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(points, dtype=torch.float32, device=self.context.device)
        values = torch.cat([self.model(part) for part in x.split(EVAL_ROWS)]).double().cpu().numpy()
        return values[:, 0] if self.task.outputs == 1 else values[:, : len(self.task.functions)]


class _Recorder(Field):
    """Zeros that note whether a derivative was asked for."""

    def __init__(self, count: int) -> None:
        self.zeros, self.differentiated = torch.zeros(count), False

    @property
    def value(self) -> Tensor:
        return self.zeros

    def d(self, *axes: int) -> Tensor:
        self.differentiated = True
        return self.zeros

    def laplacian(self, axes: Sequence[int] | None = None) -> Tensor:
        return self.d()


def _differentiates(stated: Condition, outputs: int) -> bool:
    """Whether a condition's quantity contains derivatives."""
    recorders = [_Recorder(len(stated.points)) for _ in range(outputs)]
    stated.quantity(stated.points.cpu(), *recorders)
    return any(recorder.differentiated for recorder in recorders)


def _as_matrix(residual: Tensor) -> Tensor:
    return residual[:, None] if residual.ndim == 1 else residual


def magnitude(residual: Tensor) -> Tensor:
    """Norm (n,) over the equations of residuals (n, equations), detached."""
    residual = residual.detach()
    return residual[:, 0].abs() if residual.shape[1] == 1 else residual.norm(dim=1)


def error_metrics(values: np.ndarray, truth: np.ndarray, success: float) -> dict[str, float]:
    """Relative errors of predicted values; an error that is no number is NaN, and no success.

    Parameters
    ----------
    values, truth : (m,) or (m, functions); all functions count in one norm.
    success : relative L2 error below which the equation counts as solved.

    Returns
    -------
    l2re : ||values - truth||_2 / ||truth||_2.
    log10_l2re : its decimal logarithm, at least -16.
    linf : max |values - truth| / max |truth|.
    success : 1.0 or 0.0.

    Raises
    ------
    ValueError : the shapes differ.
    """
    if values.shape != truth.shape:
        raise ValueError(f"predictions of shape {values.shape} do not fit answers of shape {truth.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        error = values.astype(np.float64) - truth
        l2re = float(np.linalg.norm(error) / np.linalg.norm(truth))
        linf = float(np.abs(error).max() / np.abs(truth).max())
    if not math.isfinite(l2re):
        return {"log10_l2re": math.nan, "l2re": math.nan, "linf": math.nan, "success": 0.0}
    return {
        "log10_l2re": math.log10(max(l2re, 1e-16)),
        "l2re": l2re,
        "linf": linf,
        "success": float(l2re < success),
    }


def rounded(values: np.ndarray) -> list[list[float | None]]:
    """A map (rows, columns) as nested lists of 4 significant digits, None where it is no finite number."""
    return [[float(f"{v:.4g}") if math.isfinite(v) else None for v in row] for row in values]
