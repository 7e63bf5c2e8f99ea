"""Reference solutions: exponential time differencing on Fourier modes, and splines through their grids.

Everything is float64 numpy; grids are cached on disk (see `suite.cache`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.interpolate import RectBivariateSpline

from suite import cache
from suite.fingerprint import source_hash

CONTOUR = 32  # points of the contour integral for the coefficients


@dataclass(frozen=True)
class Periodic:
    """A scalar evolution equation u_t = L u + N(u), periodic in x.

    Attributes
    ----------
    low, high : the interval of x.
    linear : symbol of L as a function of the wave number k (i k is d/dx).
    nonlinear : ``nonlinear(u, d)`` -> N(u) on the grid, `d` differentiating a grid function in x.
    initial : u(x, 0).
    time : final time.
    """

    low: float
    high: float
    linear: Callable[[np.ndarray], np.ndarray]
    nonlinear: Callable[[np.ndarray, Callable[[np.ndarray], np.ndarray]], np.ndarray]
    initial: Callable[[np.ndarray], np.ndarray]
    time: float = 1.0


def etdrk4(equation: Periodic, modes: int, steps: int, frames: int) -> np.ndarray:
    """Solve by fourth-order exponential time differencing (Cox and Matthews, 2002).

    The coefficients are contour integrals (Kassam and Trefethen, SIAM J. Sci.
    Comput. 26, 2005), so that small |h L| loses no digits.

    Parameters
    ----------
    modes : grid points in x.
    steps : time steps; `frames` - 1 divides it.
    frames : equidistant times that are returned, both ends included.

    Returns
    -------
    (frames, modes) values.
    """
    x, wave = grid(equation, modes), wave_numbers(equation, modes)
    h = equation.time / steps
    symbol = equation.linear(wave).astype(np.complex128)
    if modes % 2 == 0:
        wave[-1] = 0.0  # the highest mode is its own mirror image: it has no odd derivative
    half, full = np.exp(h * symbol / 2), np.exp(h * symbol)
    q, f1, f2, f3 = _coefficients(h, symbol)

    def differentiate(u: np.ndarray) -> np.ndarray:
        return np.fft.irfft(1j * wave * np.fft.rfft(u), modes)

    def right_side(v: np.ndarray) -> np.ndarray:
        return np.fft.rfft(equation.nonlinear(np.fft.irfft(v, modes), differentiate))

    u = equation.initial(x)
    v, found, every = np.fft.rfft(u), [u], steps // (frames - 1)
    for step in range(1, steps + 1):
        nv = right_side(v)
        a = half * v + q * nv
        na = right_side(a)
        b = half * v + q * na
        nb = right_side(b)
        c = half * a + q * (2 * nb - nv)
        v = full * v + f1 * nv + 2 * f2 * (na + nb) + f3 * right_side(c)
        if step % every == 0:
            found.append(np.fft.irfft(v, modes))
    return np.stack(found)


def _coefficients(h: float, symbol: np.ndarray) -> tuple[np.ndarray, ...]:
    roots = np.exp(1j * np.pi * (np.arange(1, CONTOUR + 1) - 0.5) / CONTOUR)
    roots = np.concatenate([roots, roots.conj()])
    z = h * symbol[:, None] + roots
    e = np.exp(z)
    integrands = (
        np.expm1(z / 2) / z,
        (-4 - z + e * (4 - 3 * z + z**2)) / z**3,
        (2 + z + e * (z - 2)) / z**3,
        (-4 - 3 * z - z**2 + e * (4 - z)) / z**3,
    )
    return tuple(h * f.mean(axis=1) for f in integrands)


def grid(equation: Periodic, modes: int) -> np.ndarray:
    """The grid's x, the left end included and the right one not."""
    return equation.low + (equation.high - equation.low) * np.arange(modes) / modes


def wave_numbers(equation: Periodic, modes: int) -> np.ndarray:
    """Wave numbers of `numpy.fft.rfft`."""
    return 2 * np.pi / (equation.high - equation.low) * np.arange(modes // 2 + 1)


class GridSolution:
    """A solution on a grid of times and places, interpolated by quintic splines in both.

    Parameters
    ----------
    x : places (columns of `values`), both ends of the period included.
    t : times (rows of `values`).
    values : (times, places).
    """

    def __init__(self, x: np.ndarray, t: np.ndarray, values: np.ndarray) -> None:
        self._spline = RectBivariateSpline(t, x, values, kx=5, ky=5)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values (n,) at points (n, 2) with columns x and t."""
        return self._spline.ev(points[:, 1], points[:, 0])


def solve(equation: Periodic, modes: int, steps: int, frames: int, keep: int, source: str = "") -> GridSolution:
    """The solution by `etdrk4` on `modes` points, splined through every ``modes / keep``-th of them.

    With `source`, the path of the file that states the equation, the grid is
    kept on disk under a hash of that file.
    """

    def make() -> dict[str, np.ndarray]:
        return {"values": etdrk4(equation, modes, steps, frames)[:, :: modes // keep]}

    if source:
        key = repr((source_hash(source), modes, steps, frames, keep))
        values = cache.arrays(Path(source).stem, key, make)["values"]
    else:
        values = make()["values"]
    closed = np.concatenate([values, values[:, :1]], axis=1)
    x = np.linspace(equation.low, equation.high, keep + 1)
    return GridSolution(x, np.linspace(0.0, equation.time, frames), closed)
