from __future__ import annotations

import functools
import itertools
import math
from abc import abstractmethod

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

from suite import IntUniform, Paper, sampler
from suite.train.pinn import DoesNotApply, Domain, Sampler

PAPER = Paper(
    "Weighted least-squares approximation with determinantal point processes and generalized volume sampling",
    arxiv="2312.14057",
    year=2023,
)
MOST = 128  # basis functions
CELLS = 4096  # of the tabulated distribution functions
BATCH = 256  # proposals at a time


class LegendreBasis:
    """Products of Legendre polynomials of bounded total degree, orthonormal for the uniform distribution on [-1, 1]^d.

    Parameters
    ----------
    dims : d.
    degree : largest total degree, lowered to 1 at the least until there are at most `most` functions.
    most : largest number of functions.
    """

    def __init__(self, dims: int, degree: int, most: int) -> None:
        while degree > 1 and math.comb(dims + degree, degree) > most:
            degree -= 1
        found = []
        for total in range(degree + 1):
            for axes in itertools.combinations_with_replacement(range(dims), total):
                found.append([axes.count(axis) for axis in range(dims)])
        self.degrees = np.array(found[:most])  # (functions, d)

    def __len__(self) -> int:
        return len(self.degrees)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Values (n, functions) at points (n, d) of [-1, 1]^d."""
        top = int(self.degrees.max())
        single = legendre.legvander(x, top) * np.sqrt(2 * np.arange(top + 1) + 1)  # (n, d, degrees)
        values = np.ones((len(x), len(self)))
        for axis in range(x.shape[1]):
            if self.degrees[:, axis].any():
                values *= single[:, axis, self.degrees[:, axis]]
        return values

    def draw(self, count: int, stream: np.random.Generator) -> np.ndarray:
        """Points (count, d) with density Σφ²/functions: from φ² of a random φ, axis by axis."""
        degrees = self.degrees[stream.integers(len(self), size=count)]
        shares = stream.random(degrees.shape)
        x = 2 * shares - 1  # degree 0
        for degree in np.unique(degrees[degrees > 0]):
            at = degrees == degree
            x[at] = np.interp(shares[at], *distribution(int(degree)))
        return x


@functools.cache
def distribution(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """The distribution function of density φ²/2 on [-1, 1], φ the Legendre polynomial, and its arguments, tabulated."""
    places = -np.cos(np.pi * np.arange(CELLS + 1) / CELLS)
    series = np.zeros(degree + 1)
    series[degree] = math.sqrt(2 * degree + 1)
    integral = legendre.legint(legendre.legmul(series, series) / 2, lbnd=-1)
    return legendre.legval(places, integral), places


class OptimalSampler(Sampler):
    """Points for weighted least squares in the span of polynomials: density k(x)/m, weight m/k(x), k = Σφ_j².

    The weight multiplies the squared residual. New points are drawn every `period`
    steps. Polynomials of total degree up to `degree` are taken, fewer where they would
    be more than 128 or than the points.

    Parameters
    ----------
    domain, count, generator : as for every sampler.
    degree : total degree of the polynomials.
    period : steps between draws.
    """

    def __init__(self, domain: Domain, count: int, generator: torch.Generator, *, degree: int, period: int) -> None:
        super().__init__(domain, count, generator)
        if type(domain) is not Domain:
            raise DoesNotApply("polynomials orthonormal on a box do not fit this domain")
        self.basis = LegendreBasis(domain.dims, degree, min(MOST, count))
        self.period = period
        self.steps = 0
        self.held = torch.empty(0)
        self.held_weights = torch.empty(0)

    def points(self) -> Tensor:
        if self.steps % self.period == 0:
            self.draw()
        self.steps += 1
        return self.held

    def draw(self) -> None:
        """Draw the points and their weights."""
        seed = int(torch.randint(2**62, (), generator=self.generator, device=self.generator.device))
        x = self.located(np.random.default_rng(seed))
        low, high = np.array(self.domain.lows), np.array(self.domain.highs)
        device = self.generator.device
        self.held = torch.tensor(low + (x + 1) / 2 * (high - low), dtype=torch.float32, device=device)
        weights = len(self.basis) / np.square(self.basis(x)).sum(axis=1)
        self.held_weights = torch.tensor(np.sqrt(weights), dtype=torch.float32, device=device)

    @abstractmethod
    def located(self, stream: np.random.Generator) -> np.ndarray:
        """Points (count, d) of [-1, 1]^d."""

    def weights(self, points: Tensor) -> Tensor:
        return self.held_weights.to(points)


@sampler(
    "christoffel-iid",
    paper=PAPER,
    defaults={"degree": 8, "period": 1},
    space={"degree": IntUniform(1, 12), "period": IntUniform(1, 200)},
    families=("pde",),
    system="christoffel",
    confidence="partly",
)
class Christoffel(OptimalSampler):
    """Independent points with the Christoffel density Σφ_j²/m of Legendre polynomials, the squared residual weighted.

    Its use for collocation is an adaptation: the paper approximates functions.
    """

    def located(self, stream: np.random.Generator) -> np.ndarray:
        return self.basis.draw(self.count, stream)


@sampler(
    "dpp-volume",
    paper=PAPER,
    defaults={"degree": 8, "period": 50},
    space={"degree": IntUniform(1, 12), "period": IntUniform(1, 200)},
    families=("pde",),
    system="christoffel",
    confidence="partly",
)
class VolumeSampling(OptimalSampler):
    """Volume-rescaled sampling: m points of the projection DPP of kernel Σφ_j(x)φ_j(y), the rest as `christoffel-iid`.

    Its use for collocation is an adaptation: the paper approximates functions.
    """

    def located(self, stream: np.random.Generator) -> np.ndarray:
        rest = self.basis.draw(self.count - len(self.basis), stream)
        return np.concatenate([projection_dpp(self.basis, stream), rest])


def projection_dpp(basis: LegendreBasis, stream: np.random.Generator) -> np.ndarray:
    """One draw (functions, d) of the projection DPP of an orthonormal basis.

    Point by point (Hough et al., Probability Surveys 3, 2006): with φ(x) the vector of
    the basis at x and Q an orthonormal basis of the φ of the points so far, the next has
    density proportional to ‖φ(x)‖² - ‖Qᵀφ(x)‖²; proposals are Christoffel points.
    """
    m = len(basis)
    points, frame = np.empty((m, basis.degrees.shape[1])), np.zeros((m, 0))
    while frame.shape[1] < m:
        x = basis.draw(BATCH, stream)
        values, shares = basis(x), stream.random(BATCH)
        norms = np.square(values).sum(axis=1)
        for place, value, norm, share in zip(x, values, norms, shares, strict=True):
            rest = value - frame @ (frame.T @ value)
            if share * norm < rest @ rest:
                points[frame.shape[1]] = place
                frame = np.column_stack([frame, rest / math.sqrt(rest @ rest)])
                if frame.shape[1] == m:
                    break
    return points
