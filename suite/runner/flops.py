"""Floating-point operations of what torch's own counter leaves out: linear algebra, Fourier transforms, CPU attention.

Counts are those of the usual dense algorithms, a multiplication and an
addition one operation each, lower-order terms left out, for m x n matrices
with m >= n (a wide matrix counts as its transpose): Golub and Van Loan,
Matrix Computations, 4th edition, quoted below as GVL. They do not depend on
the values, so that a count is the same on every machine; an iterative
algorithm counts as what GVL state for it. Under any counter torch computes
vectors beside eigenvalues and singular values, wanted or not, and they count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torch.utils.module_tracker import ModuleTracker

Shape = Sequence[int]

aten = torch.ops.aten


def _matrices(shape: Shape) -> tuple[int, int, int]:
    """(number of matrices, longer side, shorter side)."""
    *batch, rows, columns = shape
    return math.prod(batch), max(rows, columns), min(rows, columns)


def qr(shape: Shape, mode: str = "reduced", **_: Any) -> int:
    """Householder reflections (GVL 5.2) and their product: its first n columns, or all m of them ("complete")."""
    count, m, n = _matrices(shape)
    factor = 2 * n * n * (3 * m - n) / 3
    if mode == "r":
        return int(count * factor)
    if mode == "complete" and shape[-2] > shape[-1]:
        return int(count * (factor + 4 * (m * m * n - m * n * n + n**3 / 3)))
    if shape[-2] < shape[-1]:  # Q is square, of the shorter side
        return int(count * (factor + 4 * n**3 / 3))
    return int(count * 2 * factor)


def product_of_reflections(shape: Shape, *_: Any, **__: Any) -> int:
    """The first n columns of a product of n Householder reflections (GVL 5.1)."""
    count, m, n = _matrices(shape)
    return int(count * 2 * n * n * (3 * m - n) / 3)


def eigh(shape: Shape, uplo: str = "L", compute_v: bool = True, **_: Any) -> int:
    """The symmetric QR algorithm (GVL 8.3): 4/3 n^3 for the values, 9 n^3 with vectors."""
    count, n, _n = _matrices(shape)
    return int(count * (9 * n**3 if compute_v else 4 * n**3 / 3))


def eig(shape: Shape, *_: Any, **__: Any) -> int:
    """The QR algorithm for values and vectors (GVL 7.5): 25 n^3."""
    count, n, _n = _matrices(shape)
    return count * 25 * n**3


def eigvals(shape: Shape, *_: Any, **__: Any) -> int:
    """The QR algorithm for values alone (GVL 7.5): 10 n^3."""
    count, n, _n = _matrices(shape)
    return count * 10 * n**3


def svd(shape: Shape, full_matrices: bool = False, compute_uv: bool = True, **_: Any) -> int:
    """The better of Golub-Reinsch and R-SVD (GVL, table of section 8.6)."""
    count, m, n = _matrices(shape)
    if not compute_uv:
        return int(count * min(4 * m * n * n - 4 * n**3 / 3, 2 * m * n * n + 2 * n**3))
    if full_matrices:
        return count * min(4 * m * m * n + 8 * m * n * n + 9 * n**3, 4 * m * m * n + 22 * n**3)
    return count * min(14 * m * n * n + 8 * n**3, 6 * m * n * n + 20 * n**3)


def pinv(shape: Shape, *_: Any, **__: Any) -> int:
    """A singular value decomposition and the product of its parts."""
    count, m, n = _matrices(shape)
    return svd(shape) + count * 2 * m * n * n


def lu(shape: Shape, *_: Any, **__: Any) -> int:
    """Gaussian elimination (GVL 3.2); determinants come with it."""
    count, m, n = _matrices(shape)
    return int(count * (m * n * n - n**3 / 3))


def inverse(shape: Shape, *_: Any, **__: Any) -> int:
    """An LU factorization and n solutions with it, 2 n^3."""
    count, n, _n = _matrices(shape)
    return count * 2 * n**3


def solve(a_shape: Shape, b_shape: Shape, *_: Any, **__: Any) -> int:
    """An LU factorization, and two triangular solutions a right-hand side."""
    count, n, _n = _matrices(a_shape)
    return lu(a_shape) + 2 * n * n * count * _right_sides(a_shape, b_shape)


def solve_triangular(a_shape: Shape, b_shape: Shape, *_: Any, **__: Any) -> int:
    """Substitution, n^2 a right-hand side (GVL 3.1)."""
    count, n, _n = _matrices(a_shape)
    return n * n * count * _right_sides(a_shape, b_shape)


def cholesky(shape: Shape, *_: Any, **__: Any) -> int:
    """n^3 / 3 (GVL 4.2); LDL' costs the same."""
    count, n, _n = _matrices(shape)
    return int(count * n**3 / 3)


def cholesky_inverse(shape: Shape, *_: Any, **__: Any) -> int:
    """The inverse of the factor and its square: 2/3 n^3."""
    return 2 * cholesky(shape)


def cholesky_solve(b_shape: Shape, a_shape: Shape, *_: Any, **__: Any) -> int:
    """Two triangular solutions a right-hand side."""
    return 2 * solve_triangular(a_shape, b_shape)


def lstsq(a_shape: Shape, b_shape: Shape, *_: Any, **__: Any) -> int:
    """Householder QR (GVL 5.3), its reflections applied to each right-hand side, and a substitution."""
    count, m, n = _matrices(a_shape)
    sides = _right_sides(a_shape, b_shape)
    return qr(a_shape, "r") + count * sides * (4 * m * n - 2 * n * n + n * n)


def matrix_exp(shape: Shape, *_: Any, **__: Any) -> int:
    """Scaling and squaring with a Taylor polynomial of degree 18: five products (Bader et al. 2019), one squaring."""
    count, n, _n = _matrices(shape)
    return count * 6 * 2 * n**3


def matrix_vector(a_shape: Shape, b_shape: Shape, *_: Any, **__: Any) -> int:
    """2 m n; of two vectors 2 n."""
    return 2 * math.prod(a_shape)


def added_matrix_vector(_self: Shape, a_shape: Shape, *_: Any, **__: Any) -> int:
    """2 m n."""
    return 2 * math.prod(a_shape)


def summed_products(_self: Shape, a_shape: Shape, b_shape: Shape, *_: Any, **__: Any) -> int:
    """2 m n k a matrix."""
    return 2 * math.prod(a_shape) * b_shape[-1]


def distances(a_shape: Shape, b_shape: Shape, *_: Any, **__: Any) -> int:
    """A difference, a power and an addition a coordinate of each pair."""
    return 3 * math.prod(a_shape) * b_shape[-2]


def fourier(real: bool) -> Callable[..., int]:
    """5 N log2 N of a complex transform of N points, half of it for real ones (Cooley and Tukey's radix 2)."""

    def count(shape: Shape, dim: Sequence[int], *_: Any, out_shape: Shape = (), **__: Any) -> int:
        whole = shape if math.prod(shape) >= math.prod(out_shape) else out_shape
        points = math.prod(whole[d] for d in dim)
        transforms = math.prod(whole) // max(points, 1)
        return int(transforms * (2.5 if real else 5.0) * points * math.log2(max(points, 2)))

    return count


def attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Scores and their product with the values, as torch counts the other kernels (masks are not counted off)."""
    *batch, rows, width = query
    return 2 * math.prod(batch) * rows * key[-2] * (width + value[-1])


def attention_backward(_grad: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """The scores again, and four products for the three gradients."""
    *batch, rows, width = query
    return 2 * math.prod(batch) * rows * key[-2] * (3 * width + 2 * value[-1])


def _right_sides(a_shape: Shape, b_shape: Shape) -> int:
    """Columns of b a matrix of a; a vector is one."""
    *batch, n = a_shape[:-1]
    return max(1, math.prod(b_shape) // max(1, math.prod(batch) * n))


_FORMULAS: dict[str, Callable[..., int]] = {
    "linalg_qr": qr,
    "linalg_householder_product": product_of_reflections,
    "_linalg_eigh": eigh,
    "linalg_eig": eig,
    "linalg_eigvals": eigvals,
    "_linalg_eigvals": eigvals,
    "_linalg_svd": svd,
    "linalg_pinv": pinv,
    "linalg_lu": lu,
    "linalg_lu_factor_ex": lu,
    "_linalg_det": lu,
    "_linalg_slogdet": lu,
    "linalg_inv_ex": inverse,
    "_linalg_solve_ex": solve,
    "linalg_solve_triangular": solve_triangular,
    "triangular_solve": lambda b, a, *rest, **named: solve_triangular(a, b),
    "linalg_cholesky_ex": cholesky,
    "linalg_ldl_factor_ex": cholesky,
    "cholesky": cholesky,
    "cholesky_inverse": cholesky_inverse,
    "cholesky_solve": cholesky_solve,
    "linalg_lstsq": lstsq,
    "linalg_matrix_exp": matrix_exp,
    "mv": matrix_vector,
    "dot": matrix_vector,
    "vdot": matrix_vector,
    "addmv": added_matrix_vector,
    "addbmm": summed_products,
    "_cdist_forward": distances,
    "_fft_c2c": fourier(real=False),
    "_fft_r2c": fourier(real=True),
    "_fft_c2r": fourier(real=True),
    "_scaled_dot_product_flash_attention_for_cpu": attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": attention_backward,
}


class _NoModules(ModuleTracker):
    """Without torch's hooks on modules, which fail where a backward pass calls `autograd.grad`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def counter() -> FlopCounterMode:
    """A context that counts floating-point operations, as torch does where torch does; modules are not told apart."""
    packets = {getattr(aten, name): formula for name, formula in _FORMULAS.items() if hasattr(aten, name)}
    own = {k: v for k, v in packets.items() if k not in flop_registry}
    found = FlopCounterMode(display=False, custom_mapping=own)
    found.mod_tracker = _NoModules()
    return found
