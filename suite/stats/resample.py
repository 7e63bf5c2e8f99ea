"""Random streams and resampling weights: pure functions of a seed and a scope.

Every stream is keyed by names (a task, a seed index), never by a position in a
table, so a row that comes or goes leaves the other streams as they were.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def stream(seed: int, *scope: str | int) -> np.random.Generator:
    """A generator that is a pure function of `seed` and `scope`."""
    text = "\x1f".join(map(str, (seed, *scope)))
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    return np.random.Generator(np.random.Philox(key=key))


def chi_square(uniform: FloatArray, df: int) -> FloatArray:
    """Chi-square quantiles with `df` degrees of freedom at the given probabilities (same shape)."""
    return np.asarray(2.0 * gammaincinv(0.5 * df, uniform), dtype=np.float64)


@lru_cache(maxsize=256)
def resample_counts(rounds: int, n: int, draws: int, seed: int, *scope: str | int) -> FloatArray:
    """How often each of `n` units is drawn: (rounds, n), each row sums to `draws`; read-only.

    Drawing n - 1 of n with replacement makes the variance of a resampled mean
    equal to s^2 / n without bias; drawing n of n gives (n - 1) / n of it (Rao
    and Wu 1988, "Resampling inference with complex survey data").
    """
    picks = stream(seed, *scope).integers(0, n, size=(rounds, draws))
    flat = picks + n * np.arange(rounds)[:, None]
    counts = np.bincount(flat.ravel(), minlength=rounds * n).reshape(rounds, n).astype(np.float64)
    counts.flags.writeable = False
    return counts


def check_rounds(rounds: int) -> None:
    """An error where `rounds` is no number of mirrored draws."""
    if rounds < 2 or rounds % 2:
        raise ValueError(f"rounds must be even and at least 2, got {rounds}")


class StudentMultipliers:
    """Bootstrap multipliers that turn a seed's deviations into Student-t draws of the mean.

    With x_1..x_n the finished runs of an arm and d_i = x_i - mean, a draw is

        mean* = mean + sqrt(n / chi2) * (1 / n) * sum_i w_i d_i,

    w_i standard normal and chi2 chi-square with n - 1 degrees of freedom, so
    that (mean* - mean) sqrt(n) / s is Student-t with n - 1 degrees: for normal
    scores a percentile interval of the draws *is* the t-interval, at any n >= 2.
    w_i belongs to the seed index and is shared by every arm of a task, so what
    two arms have in common cancels in the draws as it does in the data; any
    linear contrast of arms over the same seeds is again exactly Student-t.
    It is a multiplier bootstrap (van der Vaart and Wellner 1996, section 3.6)
    with the weights studentised for small n.

    Parameters
    ----------
    rounds : number of draws R, even; the second half mirrors the first (antithetic).
    seed, scope : key of the streams.
    """

    def __init__(self, rounds: int, seed: int, *scope: str | int) -> None:
        check_rounds(rounds)
        self.rounds, self.seed, self.scope = rounds, seed, scope
        self._uniform = stream(seed, "scale", *scope).random(rounds // 2)
        self._weights: dict[int, FloatArray] = {}
        self._scales: dict[int, FloatArray] = {}

    def weights(self, seeds: IntArray) -> FloatArray:
        """Normal weights of the given seed indices, (R, n)."""
        for index in map(int, seeds):
            if index not in self._weights:
                half = stream(self.seed, "weight", *self.scope, index).standard_normal(self.rounds // 2)
                self._weights[index] = np.concatenate([half, -half])
        return np.stack([self._weights[int(index)] for index in seeds], axis=1)

    def scale(self, n: int) -> FloatArray:
        """sqrt(n / chi2) / n of every draw for an arm of `n` >= 2 runs, (R,)."""
        if n not in self._scales:
            half = 1.0 / np.sqrt(n * chi_square(self._uniform, n - 1))
            self._scales[n] = np.concatenate([half, half])
        return self._scales[n]

    def means(self, values: FloatArray, seeds: IntArray) -> FloatArray:
        """Draws (R,) of the mean of `values` (n,), n >= 2, whose seed indices are `seeds` (n,)."""
        mean = float(np.mean(values))
        return mean + self.scale(len(values)) * (self.weights(seeds) @ (values - mean))
