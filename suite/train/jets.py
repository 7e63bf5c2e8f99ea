"""Taylor-mode derivatives: a network evaluated on truncated series instead of points.

A `Jet` carries the directional derivatives of a row-wise function, up to order
4, along several directions at once. Layers map jets by Leibniz' and Faà di
Bruno's formulas (Griewank and Walther, "Evaluating Derivatives", 2008), so all
derivatives of a network come from one forward pass, and training needs a
single backward pass through it. Summing the second derivatives on the way
gives the forward Laplacian (Li et al., arXiv 2307.08214).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.train.derivatives import Engine, EstimatedLaplacian, Field, Network, autograd_fields, gradient

MAX_ORDER = 4
PROBE_TOLERANCE = 1e-2


class Jet:
    """Values and directional derivatives (n, columns) of a function of n points.

    Operators, `square`, `sum`, column indexing and linear layers act as on the
    tensor of values, so that the same code runs on points and on jets.

    Parameters
    ----------
    parts : ``parts[0]`` the values (n, columns); ``parts[k]`` the k-th derivatives
        (directions of order k, n or 1, columns), or None where they vanish. Directions
        of order k + 1 are the leading ones among those of order k.
    counts : number of directions at each order from 1 up.
    summed : True where ``parts[2]`` holds one row, the sum over all directions.
    """

    def __init__(self, parts: Sequence[Tensor | None], counts: Sequence[int], summed: bool = False) -> None:
        self.parts, self.counts, self.summed = tuple(parts), tuple(counts), summed

    @classmethod
    def along(cls, x: Tensor, directions: Tensor, counts: Sequence[int], summed: bool = False) -> Jet:
        """The points x (n, d) moving along `directions` (m, n or 1, d)."""
        return cls((x, directions, *[None] * (len(counts) - 1)), counts, summed)

    @classmethod
    def side_by_side(cls, jets: Sequence[Jet]) -> Jet:
        """Columns of several jets along the same directions."""
        found: list[Tensor | None] = []
        for parts in zip(*[jet.parts for jet in jets], strict=True):
            known = [p for p in parts if p is not None]
            if not known:
                found.append(None)
                continue
            rows = torch.broadcast_shapes(*[p.shape[:-1] for p in known])
            filled = [jet.value.new_zeros(1) if p is None else p for p, jet in zip(parts, jets, strict=True)]
            widths = [jet.value.shape[-1] for jet in jets]
            found.append(torch.cat([p.expand(*rows, w) for p, w in zip(filled, widths, strict=True)], dim=-1))
        return jets[0]._like(found)

    @property
    def value(self) -> Tensor:
        value = self.parts[0]
        assert value is not None
        return value

    @property
    def order(self) -> int:
        return len(self.counts)

    def _like(self, parts: Sequence[Tensor | None]) -> Jet:
        return Jet(parts, self.counts, self.summed)

    def _product(self, order: int, *factors: Tensor | None) -> Tensor | None:
        """Product of derivatives for a term of `order`: over that order's directions, summed where the jet is."""
        if any(f is None for f in factors):
            return None
        product: Tensor | None = None
        for factor in factors:
            assert factor is not None
            if factor.ndim == 3 and not self.summed:
                factor = factor[: self.counts[order - 1]]
            product = factor if product is None else product * factor
        assert product is not None
        return product.sum(0, keepdim=True) if self.summed and order == 2 and product.ndim == 3 else product

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let linear layers take jets; no other function of torch does."""
        if function is not functional.linear:
            raise TypeError(f"{getattr(function, '__name__', function)} has no rule for jets")
        return cls._linear(*args, **(kwargs or {}))

    @staticmethod
    def _linear(jet: Jet, weight: Tensor, bias: Tensor | None = None) -> Jet:
        derivatives = [None if p is None else functional.linear(p, weight) for p in jet.parts[1:]]
        return jet._like((functional.linear(jet.value, weight, bias), *derivatives))

    def compose(self, outer: Sequence[Tensor]) -> Jet:
        """Elementwise f of this jet, from f and its derivatives ``outer[k]`` (n, columns) at the values."""
        z = self.parts
        parts: list[Tensor | None] = [outer[0]]
        for k in range(1, self.order + 1):
            parts.append(
                _sum(_times(outer[len(f)], c, self._product(k, *[z[i] for i in f])) for c, f in _FAA_DI_BRUNO[k])
            )
        return self._like(parts)

    def __mul__(self, other: Any) -> Jet:
        if not isinstance(other, Jet):
            return self._like([None if p is None else p * other for p in self.parts])
        a, b = self.parts, other.parts
        parts: list[Tensor | None] = [self.value * other.value]
        for k in range(1, self.order + 1):
            terms = []
            for i in range(k + 1):
                left, right = a[k - i], b[i]
                inner = 0 < i < k
                product = self._product(k, left, right) if inner else _outer_product(left, right)
                terms.append(_times(None, _BINOMIAL[k][i], product))
            parts.append(_sum(terms))
        return self._like(parts)

    __rmul__ = __mul__

    def __add__(self, other: Any) -> Jet:
        if isinstance(other, Jet):
            return self._like([_sum(pair) for pair in zip(self.parts, other.parts, strict=True)])
        return self._like((self.value + other, *self.parts[1:]))

    __radd__ = __add__

    def __neg__(self) -> Jet:
        return self * -1.0

    def __sub__(self, other: Any) -> Jet:
        return self + (-other)

    def __rsub__(self, other: Any) -> Jet:
        return -self + other

    def __getitem__(self, index: Any) -> Jet:
        """Columns of the jet, indexed as ``x[:, columns]``."""
        match index:
            case slice(start=None, stop=None, step=None), slice() as columns:
                return self._like([None if p is None else p[..., columns] for p in self.parts])
        raise TypeError("a jet is indexed by columns only: x[:, start:stop]")

    def square(self) -> Jet:
        return self * self

    def sum(self, dim: int, keepdim: bool = False) -> Jet:
        """Sum over the columns; ``dim`` must be 1 and ``keepdim`` True."""
        if dim not in (1, -1) or not keepdim:
            raise TypeError("a jet is summed over its columns: x.sum(1, keepdim=True)")
        return self._like([None if p is None else p.sum(-1, keepdim=True) for p in self.parts])


# k-th derivative of f(z): terms (coefficient, orders of z's derivatives); f is differentiated once per factor
_FAA_DI_BRUNO: dict[int, tuple[tuple[int, tuple[int, ...]], ...]] = {
    1: ((1, (1,)),),
    2: ((1, (2,)), (1, (1, 1))),
    3: ((1, (3,)), (3, (1, 2)), (1, (1, 1, 1))),
    4: ((1, (4,)), (4, (1, 3)), (3, (2, 2)), (6, (1, 1, 2)), (1, (1, 1, 1, 1))),
}
_BINOMIAL = ((1,), (1, 1), (1, 2, 1), (1, 3, 3, 1), (1, 4, 6, 4, 1))


def _times(factor: Tensor | None, coefficient: int, product: Tensor | None) -> Tensor | None:
    if product is None:
        return None
    product = product if factor is None else factor * product
    return product if coefficient == 1 else coefficient * product


def _outer_product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    return None if left is None or right is None else left * right


def _sum(terms: Any) -> Tensor | None:
    total: Tensor | None = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def scalar_derivatives(function: Any, z: Tensor, order: int) -> list[Tensor]:
    """f(z) and its derivatives up to `order`, elementwise, by automatic differentiation."""
    with torch.enable_grad():
        if not z.requires_grad:
            z = z.detach().requires_grad_()
        found = [function(z)]
        for _ in range(order):
            found.append(gradient(found[-1], z))
    return found


class _ComposedTwice(torch.autograd.Function):
    """f of a jet of order 2, forward and backward by hand: fewer passes over memory than by autograd.

    f(z0), f1(z0) z1 and f1(z0) z2 + f2(z0) z1², where fk is the k-th derivative of f. The
    backward pass needs f3 as well: only functions with a rule, and without parameters, come here.
    """

    @staticmethod
    def forward(
        context: Any, rule: Any, leading: int, summed: bool, z0: Tensor, z1: Tensor, z2: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        f0, f1, f2, f3 = rule(z0, 3)
        context.rule, context.leading, context.summed = rule, leading, summed
        context.save_for_backward(z0, z1, z2, f1, f2, f3)
        if summed:
            y2 = (f2 * z1[0]).mul_(z1[0])
            for direction in z1[1:leading]:
                y2.addcmul_(f2 * direction, direction)
            y2 = y2[None]
        else:
            y2 = (f2 * z1[:leading]).mul_(z1[:leading])
        return f0, f1 * z1, y2 if z2 is None else y2.addcmul_(f1, z2)

    @staticmethod
    def backward(context: Any, g0: Tensor, g1: Tensor, g2: Tensor) -> Any:
        z0, z1, z2, f1, f2, f3 = context.saved_tensors
        if torch.is_grad_enabled():  # what was saved is cut off from z0
            _, f1, f2, f3 = context.rule(z0, 3)
        first = g1[0] * z1[0]
        for g, z in zip(g1[1:], z1[1:], strict=True):
            first.addcmul_(g, z)
        if z2 is not None:
            for g, z in zip(g2, z2, strict=True):
                first.addcmul_(g, z)
        d0, d1 = (g0 * f1).addcmul_(f2, first), g1 * f1
        for i, z in enumerate(z1[: context.leading]):
            along = g2[0 if context.summed else i] * z
            d1[i].addcmul_(f2, along, value=2)
            d0.addcmul_(f3, along * z)
        return None, None, None, d0, _fold(d1, z1), None if z2 is None else _fold(g2 * f1, z2)


def _fold(gradient: Tensor, of: Tensor) -> Tensor:
    """The gradient summed over the points where `of` is the same at all of them."""
    return gradient.sum(1, keepdim=True) if of.shape[1] == 1 < gradient.shape[1] else gradient


def _tanh(z: Tensor, order: int) -> list[Tensor]:
    y = torch.tanh(z)
    f1 = (y * y).neg_().add_(1)
    found = [y, f1]
    if order >= 2:
        found.append((y * f1).mul_(-2))
    if order >= 3:
        found.append((f1 * -6).add_(4) * f1)
    if order >= 4:
        found.append(y * f1 * (24 * f1 - 8))
    return found


def _sin(z: Tensor, order: int) -> list[Tensor]:
    s, c = torch.sin(z), torch.cos(z)
    return [s, c, -s, -c, s][: order + 1]


def _cos(z: Tensor, order: int) -> list[Tensor]:
    s, c = torch.sin(z), torch.cos(z)
    return [c, -s, -c, s, c][: order + 1]


def _exp(z: Tensor, order: int) -> list[Tensor]:
    return [torch.exp(z)] * (order + 1)


_RULES: dict[Any, Any] = {torch.exp: _exp, nn.Tanh: _tanh, torch.tanh: _tanh, torch.sin: _sin, torch.cos: _cos}


def through(function: Any, x: Any) -> Any:
    """``function(x)`` for tensors and jets alike; `function` is a module or function that acts elementwise."""
    if not isinstance(x, Jet):
        return function(x)
    rule = _RULES.get(type(function)) or _RULES.get(function)
    if rule and x.order == 2 and x.parts[1] is not None:
        return x._like(_ComposedTwice.apply(rule, x.counts[1], x.summed, *x.parts))
    outer = rule(x.value, x.order) if rule else scalar_derivatives(function, x.value, x.order)
    if outer[0].shape != x.value.shape:
        raise TypeError(f"{function} changes the number of columns and has no rule for jets")
    return x.compose(outer)


def concatenate(parts: Sequence[Any]) -> Any:
    """Columns of several tensors, or of several jets, side by side."""
    return Jet.side_by_side(parts) if isinstance(parts[0], Jet) else torch.cat(list(parts), dim=-1)


class JetField(Field):
    """One output of a network on a jet along coordinate axes.

    Parameters
    ----------
    parts : columns of the jet's parts, values (n,) and derivatives (directions, n) or None.
    axes : the axis of each direction.
    """

    def __init__(self, parts: Sequence[Tensor | None], axes: Sequence[int]) -> None:
        self.parts, self.axes = parts, axes

    @property
    def value(self) -> Tensor:
        value = self.parts[0]
        assert value is not None
        return value

    def d(self, *axes: int) -> Tensor:
        if len(set(axes)) != 1:
            raise ValueError(f"a jet along the axes holds pure derivatives, not {axes}")
        part, row = self.parts[len(axes)], self.axes.index(axes[0])
        return torch.zeros_like(self.value) if part is None else part[row].expand_as(self.value)

    def laplacian(self, axes: Sequence[int] | None = None) -> Tensor:
        return torch.stack([self.d(a, a) for a in (self.axes if axes is None else axes)]).sum(0)


class AxisJets:
    """Engine: pure derivatives along chosen axes, by one pass in Taylor mode.

    Parameters
    ----------
    orders : highest order wanted along each axis, such as ``{0: 2, 1: 1}`` for u_xx and u_t.
    """

    def __init__(self, orders: Mapping[int, int]) -> None:
        if max(orders.values()) > MAX_ORDER:
            raise ValueError(f"jets go up to order {MAX_ORDER}, not {max(orders.values())}")
        self.axes = sorted(orders, key=lambda axis: -orders[axis])
        self.counts = [sum(o >= k for o in orders.values()) for k in range(1, max(orders.values()) + 1)]

    def __call__(self, network: Network, x: Tensor) -> tuple[Field, ...]:
        directions = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[self.axes][:, None, :]
        jet: Any = network(Jet.along(x, directions, self.counts))  # type: ignore[arg-type]
        columns = [[None if p is None else p[..., i] for p in jet.parts] for i in range(jet.value.shape[-1])]
        return tuple(JetField(parts, self.axes) for parts in columns)


def forward_laplacian(network: Network, x: Tensor) -> tuple[Field, ...]:
    """Engine: values and the Laplacian over all coordinates, by one pass in Taylor mode."""
    directions = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[:, None, :]
    return directional_laplacian(network, x, directions)


def directional_laplacian(network: Network, x: Tensor, directions: Tensor, factor: float = 1.0) -> tuple[Field, ...]:
    """Values and ``factor`` times the sum of vᵀHv over the `directions` (m, n or 1, d) of each point."""
    counts = (len(directions), len(directions))
    jet: Any = network(Jet.along(x, directions, counts, summed=True))  # type: ignore[arg-type]
    value = jet.value
    second = torch.zeros_like(value) if jet.parts[2] is None else factor * jet.parts[2][0]
    return tuple(EstimatedLaplacian(*columns) for columns in zip(value.unbind(1), second.unbind(1), strict=True))


def agrees(engine: Engine, network: nn.Module, x: Tensor, residual: Any) -> bool:
    """Whether `network` can be run on jets and its residual is then that of nested differentiation.

    False for layers without a rule, which ask a jet for what only a tensor has, for
    activations that mix columns or rows, and for random ones.
    """
    found = []
    for candidate in (engine, autograd_fields):
        points = x.detach().requires_grad_()
        try:
            found.append(residual(points, *candidate(network, points)).detach())
        except (TypeError, AttributeError):
            return False
    jets, nested = found
    scale = PROBE_TOLERANCE * float(nested.abs().mean())
    return bool(((jets - nested).abs() <= scale + PROBE_TOLERANCE * nested.abs()).all())
