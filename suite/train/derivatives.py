"""Derivatives of a network's outputs with respect to its inputs: one interface, several engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]


class Field(ABC):
    """One scalar output of a network at n points, with its derivatives on demand."""

    @property
    @abstractmethod
    def value(self) -> Tensor:
        """Values (n,)."""

    @abstractmethod
    def d(self, *axes: int) -> Tensor:
        """Partial derivative (n,): ``u.d(0)`` is u_x, ``u.d(0, 0)`` is u_xx, ``u.d(0, 1)`` is u_xy."""

    @abstractmethod
    def laplacian(self, axes: Sequence[int] | None = None) -> Tensor:
        """Sum (n,) of the pure second derivatives along `axes` (all axes when None)."""

    def rows(self, part: slice) -> Field:
        """The field at some of its points only."""
        return Rows(self, part)


class Rows(Field):
    """A field at a slice of its points; what is computed once serves every slice."""

    def __init__(self, field: Field, part: slice) -> None:
        self.field, self.part = field, part

    @property
    def value(self) -> Tensor:
        return self.field.value[self.part]

    def d(self, *axes: int) -> Tensor:
        return self.field.d(*axes)[self.part]

    def laplacian(self, axes: Sequence[int] | None = None) -> Tensor:
        return self.field.laplacian(axes)[self.part]


class Engine(Protocol):
    """Evaluates a network and its derivatives; stochastic engines draw from a stream of their own."""

    def __call__(self, network: Network, x: Tensor) -> tuple[Field, ...]:
        """One field for each of the network's outputs.

        Parameters
        ----------
        network : maps (n, d) points to (n, outputs) values, each point on its own.
        x : points; gradients flow to it when it requires them.
        """
        ...


class AutogradField(Field):
    """Nested reverse-mode derivatives, each computed at most once.

    Where the derivative's graph does not reach the inputs (the second
    derivative of a piecewise linear network), the derivative is zero.

    Parameters
    ----------
    x : points (n, d) that require gradients.
    value : values (n,) computed from `x` row by row.
    """

    def __init__(self, x: Tensor, value: Tensor) -> None:
        self.x = x
        self._known: dict[tuple[int, ...], Tensor] = {(): value}

    @property
    def value(self) -> Tensor:
        return self._known[()]

    def d(self, *axes: int) -> Tensor:
        axes = tuple(sorted(axes))
        if axes not in self._known:
            base = axes[:-1]
            for axis, column in enumerate(gradient(self.d(*base), self.x).unbind(1)):
                self._known.setdefault(tuple(sorted((*base, axis))), column)
        return self._known[axes]

    def laplacian(self, axes: Sequence[int] | None = None) -> Tensor:
        chosen = range(self.x.shape[1]) if axes is None else axes
        return torch.stack([self.d(axis, axis) for axis in chosen]).sum(0)


def gradient(value: Tensor, x: Tensor) -> Tensor:
    """Gradients (n, d) of the values (n,) of n independent points, differentiable again.

    Zero where `value` does not depend on `x`.
    """
    if not value.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(value, x, torch.ones_like(value), create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def autograd_fields(network: Network, x: Tensor) -> tuple[AutogradField, ...]:
    """The fields of `network` at `x` by nested automatic differentiation (an `Engine`)."""
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    return tuple(AutogradField(x, column) for column in columns(network(x)))


def columns(values: Tensor) -> tuple[Tensor, ...]:
    """The columns (n,) of values (n, outputs); one column is a view, which costs nothing to differentiate."""
    return (values.squeeze(1),) if values.shape[1] == 1 else values.unbind(1)


class EstimatedLaplacian(Field):
    """A field of which only the value and an estimate of the Laplacian over all coordinates are known.

    Parameters
    ----------
    value, estimate : (n,).
    """

    def __init__(self, value: Tensor, estimate: Tensor) -> None:
        self._value, self.estimate = value, estimate

    @property
    def value(self) -> Tensor:
        return self._value

    def d(self, *axes: int) -> Tensor:
        raise ValueError("this engine gives the Laplacian only")

    def laplacian(self, axes: Sequence[int] | None = None) -> Tensor:
        if axes is not None:
            raise ValueError("this engine gives the Laplacian over all coordinates")
        return self.estimate


def directional_by_products(network: Network, x: Tensor, directions: Tensor, factor: float) -> tuple[Field, ...]:
    """``factor`` times the sum of v^T H v over the `directions` (m, n, d), by backward Hessian-vector products."""
    fields = []
    for field in autograd_fields(network, x):
        slope = gradient(field.value, field.x)
        second = [(gradient((slope * v).sum(1), field.x) * v).sum(1) for v in directions]
        fields.append(EstimatedLaplacian(field.value, factor * torch.stack(second).sum(0)))
    return tuple(fields)
