from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.architecture.common import nearest_size
from suite import Paper, architecture
from suite.train.build import Build, Interface

MEMORY, RIDGE = 5, 1e-4  # iterates that Anderson's acceleration mixes, and its regularisation
PLACES = 8  # side of the map on which the fixed point is computed


def anderson(function: Callable[[Tensor], Tensor], start: Tensor, *, tolerance: float, iterations: int) -> Tensor:
    """A fixed point z = f(z) by Anderson's acceleration, each example with mixing weights of its own.

    The next iterate is Σ α_i f(z_i) over the last `MEMORY` iterates, α minimising
    ‖Σ α_i (f(z_i) - z_i)‖² + `RIDGE` ‖α‖² with Σ α_i = 1.

    Parameters
    ----------
    function : maps (n, ...) to the same shape, each example on its own.
    start : first iterate.
    tolerance : stops when ‖f(z) - z‖ is this share of ‖f(z)‖ over the whole batch.
    iterations : evaluations of `function` at most.
    """
    points, images = [start], [function(start)]
    for evaluation in range(1, iterations):
        if evaluation > 2 and float((images[-1] - points[-1]).norm()) <= tolerance * float(images[-1].norm()):
            break
        steps = torch.stack([(f - z).flatten(1) for f, z in zip(images, points, strict=True)], dim=1)
        steps = steps if steps.dtype == torch.float64 else steps.float()
        gram = steps @ steps.mT + RIDGE * torch.eye(len(points), dtype=steps.dtype, device=steps.device)
        weights = torch.linalg.solve(gram, torch.ones_like(gram[..., :1]))
        weights = (weights / weights.sum(1, keepdim=True)).to(start.dtype)
        mixed = (weights * torch.stack([f.flatten(1) for f in images], dim=1)).sum(1).view_as(start)
        points = [*points, mixed][-MEMORY:]
        images = [*images, function(mixed)][-MEMORY:]
    return points[-1]


class FixedPoint(nn.Module):
    """z = N(tanh(W_z * z) + ReLU(W_x * x + b) + s), N the division by the largest entry of each column.

    The gradient is that of the fixed point: the adjoint equation is solved as the
    equation itself is.

    Parameters
    ----------
    channels : of the images.
    features : of the fixed point.
    shift : s.
    tolerance, iterations : of the solver.
    """

    def __init__(self, channels: int, features: int, shift: float, tolerance: float, iterations: int) -> None:
        super().__init__()
        self.shift, self.tolerance, self.iterations = shift, tolerance, iterations
        self.inject = nn.Conv2d(channels, features, 3, padding=1)
        self.mix = nn.Conv2d(features, features, 3, padding=1, bias=False)

    def step(self, z: Tensor, injected: Tensor) -> Tensor:
        """The right-hand side, for ReLU(W_x * x + b) + s as computed before."""
        return F.normalize(torch.tanh(self.mix(z)) + injected, p=math.inf, dim=2)

    def solve(self, function: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        return anderson(function, start, tolerance=self.tolerance, iterations=self.iterations)

    def forward(self, x: Tensor) -> Tensor:
        injected = F.relu(self.inject(x)) + self.shift
        with torch.no_grad():
            z = self.solve(lambda z: self.step(z, injected), torch.ones_like(injected))
        z = self.step(z, injected)
        if z.requires_grad:
            at = z.detach().requires_grad_()
            image = self.step(at, injected.detach())

            def adjoint(gradient: Tensor) -> Tensor:
                def equation(g: Tensor) -> Tensor:
                    return torch.autograd.grad(image, at, g, retain_graph=True)[0] + gradient

                return self.solve(equation, gradient)

            z.register_hook(adjoint)
        return z


class SubDEQ(nn.Sequential):
    """Space to depth down to 8x8 places, `FixedPoint`, norm, mean over places, linear head.

    Parameters
    ----------
    build : makes norm and head.
    interface : of the task.
    features : channels of the fixed point.
    solver : shift, tolerance and iterations.
    """

    def __init__(self, build: Build, interface: Interface, features: int, **solver: float) -> None:
        channels, height, _ = interface.shape
        factor = max(1, height // PLACES)
        super().__init__(
            interface.first(),
            nn.PixelUnshuffle(factor),
            FixedPoint(channels * factor**2, features, **solver),  # type: ignore[arg-type]
            build.norm(features),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            build.head(features, interface.outputs),
        )


@architecture(
    "subdeq",
    paper=Paper("Subhomogeneous Deep Equilibrium Models", arxiv="2403.00720", year=2024),
    defaults={"shift": 1.603, "tolerance": 1e-3, "iterations": 30},
    families=("vision",),
    confidence="verified",
    vmap=False,
    compiles=False,
)
def subdeq(
    build: Build, interface: Interface, shift: float = 1.603, tolerance: float = 1e-3, iterations: int = 30
) -> nn.Module:
    """Deep equilibrium layer z = N(tanh(W_z * z) + ReLU(W_x * x + b) + s) and a linear head, at equal parameters.

    N divides by the largest entry along the image's height. Anderson's acceleration
    of the last 5 iterates starts at z = 1; the published code pools maps of 32x32
    places by 8. Here images larger than 8x8 are rearranged to 8x8 places first, which
    keeps the solver's cost in bounds, and the mean is over all places.

    Parameters
    ----------
    build, interface : as the slot gives them.
    shift : s.
    tolerance, iterations : of the solver, in either direction.
    """

    def make(features: int) -> nn.Module:
        return SubDEQ(build, interface, features, shift=shift, tolerance=tolerance, iterations=iterations)

    return make(nearest_size(build, interface, make))
