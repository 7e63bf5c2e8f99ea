"""Products and exponentials of square matrices, one in each row of a tensor or of a jet."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from suite.train.jets import Jet

DEGREE = 8
MOST_HALVINGS = 64
_ROOT = math.sqrt(177)


def matmul(a: Any, b: Any, side: int) -> Any:
    """Products of (side, side) matrices, by Leibniz' rule where they move.

    Parameters
    ----------
    a, b : tensors (..., side²) that broadcast, or jets of side² columns along the same
        directions; `a` may be a tensor, the same for all rows, beside a jet `b`.
    """
    if not isinstance(b, Jet):
        return _product("...ij,...jk->...ik", a, b, side)
    left = a.parts if isinstance(a, Jet) else (a, *[None] * b.order)
    parts: list[Tensor | None] = [matmul(left[0], b.value, side)]
    for order, directions in enumerate(b.counts, start=1):
        total: Tensor | None = None
        for i in range(order + 1):
            p, q = left[order - i], b.parts[i]
            if p is None or q is None:
                continue
            if i in (0, order):
                term = matmul(p, q, side)
            elif b.summed:
                term = math.comb(order, i) * _product("mnij,mnjk->nik", p, q, side)[None]
            else:
                term = math.comb(order, i) * matmul(p[:directions], q[:directions], side)
            total = term if total is None else total + term
        parts.append(total)
    return Jet(parts, b.counts, b.summed)


def _product(indices: str, a: Tensor, b: Tensor, side: int) -> Tensor:
    """By einsum: a matrix against several is one wide product there."""
    return torch.einsum(indices, a.unflatten(-1, (side, side)), b.unflatten(-1, (side, side))).flatten(-2)


def matrix_exp(x: Any, side: int) -> Any:
    """Exponentials of (side, side) matrices, in single precision at least.

    Each matrix is halved until its 1-norm lets Taylor's polynomial of degree 8 reach
    the precision of its type, and the result squared as often. Three products make
    the polynomial (Bader, Blanes and Casas, "Computing the matrix exponential with an
    optimized Taylor polynomial approximation", 2019), so that derivatives of
    derivatives cost far less than through `torch.linalg.matrix_exp`, which takes
    each of them from a matrix of twice the side.

    Parameters
    ----------
    x : tensor (..., side²) or jet of side² columns.
    """
    if isinstance(x, Tensor) and torch.finfo(x.dtype).bits < 32:
        return matrix_exp(x.float(), side).to(x.dtype)
    value = x.value if isinstance(x, Jet) else x
    norms = value.detach().unflatten(-1, (side, side)).abs().sum(-2).amax(-1, keepdim=True)
    reach = (math.factorial(DEGREE + 1) * torch.finfo(norms.dtype).eps / 2) ** (1 / DEGREE)
    halvings = (norms / reach).log2().ceil().nan_to_num(0).clamp(0, MOST_HALVINGS)
    y = _taylor(x * torch.exp2(-halvings), torch.eye(side).to(norms).flatten(), side)
    fewest, most = (int(v) for v in halvings.aminmax()) if halvings.numel() else (0, 0)
    for done in range(most):
        squared = matmul(y, y, side)
        y = squared if done < fewest else _where(halvings > done, squared, y)
    return y


def _taylor(a: Any, one: Tensor, side: int) -> Any:
    """Σ_k a^k/k! for k = 0..8, where a^0 is `one`."""
    a2 = matmul(a, a, side)
    a4 = matmul(a2, a * ((1 + _ROOT) / 132) + a2 * ((1 + _ROOT) / 528), side)
    a8 = matmul(
        a2 * (2 / 3) + a4,
        a * (11 * (_ROOT - 1) / 840)
        + a2 * (11 * (_ROOT - 9) / 3360)
        + a4 * ((89 - _ROOT) / 2240)
        + one * ((29 * _ROOT - 271) / 210),
        side,
    )
    return a8 + a2 * ((857 - 58 * _ROOT) / 630) + a + one


def _where(rows: Tensor, chosen: Any, other: Any) -> Any:
    """`chosen` in the marked rows (..., 1), `other` in the rest."""
    if not isinstance(chosen, Jet):
        return torch.where(rows, chosen, other)
    pairs = zip(chosen.parts, other.parts, strict=True)
    parts = [None if p is None else torch.where(rows, p, 0.0 if q is None else q) for p, q in pairs]
    return Jet(parts, chosen.counts, chosen.summed)
