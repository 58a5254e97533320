"""Comparisons and argmax: results of kind bool or integer, which have no derivative and no history."""

from __future__ import annotations

from minitl.device import module_of
from minitl.ops.operands import normalise_axes, pair
from minitl.tensor import Operand, Tensor


def equal(a: Operand, b: Operand) -> Tensor:
    """Return ``a == b``, elementwise."""
    left, right = pair(a, b)
    return Tensor._wrap(module_of(left.device).equal(left.array, right.array), left.device)


def not_equal(a: Operand, b: Operand) -> Tensor:
    """Return ``a != b``, elementwise."""
    left, right = pair(a, b)
    return Tensor._wrap(module_of(left.device).not_equal(left.array, right.array), left.device)


def less(a: Operand, b: Operand) -> Tensor:
    """Return ``a < b``, elementwise."""
    left, right = pair(a, b)
    return Tensor._wrap(module_of(left.device).less(left.array, right.array), left.device)


def less_equal(a: Operand, b: Operand) -> Tensor:
    """Return ``a <= b``, elementwise."""
    left, right = pair(a, b)
    return Tensor._wrap(module_of(left.device).less_equal(left.array, right.array), left.device)


def greater(a: Operand, b: Operand) -> Tensor:
    """Return ``a > b``, elementwise."""
    return less(b, a)


def greater_equal(a: Operand, b: Operand) -> Tensor:
    """Return ``a >= b``, elementwise."""
    return less_equal(b, a)


def argmax(x: Tensor, axis: int | None = None) -> Tensor:
    """Return the position of the largest element along ``axis`` (of the flattened tensor by default); the first of
    ties."""
    if axis is not None:
        (axis,) = normalise_axes(axis, x.ndim)
    return Tensor._wrap(module_of(x.device).asarray(x.array.argmax(axis=axis)), x.device)
