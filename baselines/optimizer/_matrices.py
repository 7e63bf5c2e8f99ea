"""Matrix functions of the optimizers that see a weight as a matrix.

Apart from `_common`, so that a change here leaves the runs of all other optimizers what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
CUBIC = (1.5, -0.5, 0.0)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix; NaN, not an error, where it isn't finite."""
    if not torch.isfinite(matrix).all():
        return torch.full_like(matrix[0], torch.nan), torch.full_like(matrix, torch.nan)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors


def newton_schulz(matrices: Tensor, steps: Iterable[tuple[float, float, float]], eps: float) -> Tensor:
    """Odd polynomial iteration X ← aX + (bA + cA²)X with A = XXᵀ, after division by ‖X‖_F + eps.

    Parameters
    ----------
    matrices : (batch, rows, columns), float32 or float64.
    steps : coefficients (a, b, c) of each iteration.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    x = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + eps)
    for a, b, c in steps:
        inner = torch.bmm(x, x.mT)
        if c:
            inner, b = torch.baddbmm(inner, inner, inner, beta=b, alpha=c), 1.0
        x = torch.baddbmm(x, inner, x, beta=a, alpha=b)
    return x.mT if tall else x


def muon_orthogonal(matrices: Tensor) -> Tensor:
    """Five quintic iterations: singular values come to lie in about [0.7, 1.2] (Muon)."""
    return newton_schulz(matrices, (QUINTIC,) * 5, 1e-7)


def polar_factor(matrices: Tensor) -> Tensor:
    """UVᵀ of UΣVᵀ by eight quintic and six cubic iterations X ← 1.5X − 0.5XXᵀX.

    Singular values above about 1e-4 of the Frobenius norm come to 1 within rounding; smaller ones
    end below 1, and zero stays zero, so that the null space of a low-rank gradient isn't filled with noise.
    """
    return newton_schulz(matrices, (QUINTIC,) * 8 + (CUBIC,) * 6, torch.finfo(matrices.dtype).tiny)


def as_matrix(tensor: Tensor) -> Tensor:
    """(first dimension, all others); a vector is a column, a scalar 1 × 1."""
    return tensor.reshape(-1, 1) if tensor.ndim < 2 else tensor.flatten(1)


def map_matrices(tensors: list[Tensor], function: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Apply a batched matrix function to each tensor seen as a matrix, one call for each matrix shape.

    It works in float32, or float64 for float64 tensors; results have the tensors' own shapes and dtypes.
    """
    shapes: dict[Any, list[int]] = {}
    for i, tensor in enumerate(tensors):
        shapes.setdefault((as_matrix(tensor).shape, tensor.dtype, tensor.device), []).append(i)
    results = list(tensors)
    for indices in shapes.values():
        stacked = torch.stack([as_matrix(tensors[i]) for i in indices])
        wide = stacked if stacked.dtype == torch.float64 else stacked.float()
        for i, result in zip(indices, function(wide), strict=True):
            results[i] = result.reshape(tensors[i].shape).to(tensors[i].dtype)
    return results
