import math

import torch
from torch import Tensor, nn

from suite import IntUniform, LogUniform, Paper, pde_method
from suite.train.pinn import PdeMethod, Problem, magnitude


@pde_method(
    "neg-sobolev",
    paper=Paper(
        "Spectral-Refiner: Fine-Tuning of Accurate Spatiotemporal Neural Operator for Turbulent Flows",
        arxiv="2405.17211",
        year=2024,
    ),
    defaults={"alpha": 0.1, "grid": 32},
    space={"alpha": LogUniform(0.01, 10.0), "grid": IntUniform(8, 64)},
    families=("pde",),
    confidence="verified",
)
class NegativeSobolev(PdeMethod):
    """The residual's negative Sobolev norm: modes along the periodic coordinate count by 1/(alpha + (2 pi k)^2).

    k is in cycles per unit length. The residual is taken on grids of equidistant points along the periodic
    coordinate, at the other coordinates of as many of the sampler's points as make no more points
    than a step has; which of them, and the grids' offset, are drawn anew for each step. Squared norms,
    averaged over the grids; conditions as in `pinn`. With a factor of 1 for every mode it would be the mean
    square. A sampler is shown, for each of its points, the root mean square residual of the grid nearest to it in
    the other coordinates.

    Parameters
    ----------
    alpha : keeps the mean's factor finite; the paper's is 0.1.
    grid : points along the periodic coordinate.
    """

    def __init__(self, problem: Problem, *, alpha: float, grid: int) -> None:
        super().__init__(problem)
        problem.require(len(problem.domain.periodic) == 1, "single periodic coordinate")
        self.alpha, self.grid = alpha, grid
        self.offset, self.place = 0.0, 0.0

    def set_progress(self, fraction: float) -> None:
        self.offset, self.place = torch.rand(2, generator=self.problem.generator).tolist()

    def chosen(self, count: int) -> Tensor:
        """Indices of the points, of `count`, through which there is a grid: evenly spread, from a drawn place."""
        grids = count // min(self.grid, count)
        return (torch.arange(grids) * (count // grids) + int(self.place * count)) % count

    def grids(self, points: Tensor) -> Tensor:
        """(grids, n, d): the grids through the chosen points."""
        (axis,), domain = self.problem.domain.periodic, self.problem.domain
        low, length = domain.lows[axis], domain.highs[axis] - domain.lows[axis]
        size = min(self.grid, len(points))
        rows = points[self.chosen(len(points)), None].repeat(1, size, 1)
        rows[:, :, axis] = low + length * ((torch.arange(size).to(points) + self.offset) / size)
        return rows

    def squared_norms(self, residual: Tensor) -> Tensor:
        """(grids,) squared norms of residuals (grids, n, equations), summed over equations."""
        (axis,), domain = self.problem.domain.periodic, self.problem.domain
        size = residual.shape[1]
        spacing = (domain.highs[axis] - domain.lows[axis]) / size
        frequencies = 2 * math.pi * torch.fft.fftfreq(size, spacing, device=residual.device)
        factors = 1 / (self.alpha + frequencies.square())
        power = torch.fft.fft(residual, dim=1, norm="forward").abs().square()
        return (power.sum(2) * factors).sum(1)

    def terms(self, network: nn.Module, points: Tensor, weights: Tensor | None = None) -> list[Tensor]:
        grids = self.grids(points)
        residual = self.residual(network, grids.flatten(0, 1)).unflatten(0, grids.shape[:2])
        self.pointwise = self.nearest(points, grids, residual)
        if weights is not None:
            residual = residual * weights[self.chosen(len(points)), None, None]
        return [self.squared_norms(residual).mean(), *self.condition_terms(network)]

    def nearest(self, points: Tensor, grids: Tensor, residual: Tensor) -> Tensor:
        """(n,) root mean square residual of the grid nearest to each point in the coordinates that are not periodic."""
        (axis,) = self.problem.domain.periodic
        others = [column for column in range(points.shape[1]) if column != axis]
        sizes = magnitude(residual.flatten(0, 1)).unflatten(0, grids.shape[:2]).square().mean(1).sqrt()
        if not others:
            return sizes.expand(len(points))
        return sizes[torch.cdist(points[:, others], grids[:, 0, others]).argmin(1)]
