"""Comparisons and argmax: results of kind bool or integer, which have no derivative and no history."""

from __future__ import annotations

from minitl.device import module_of
from minitl.ops.operands import normalise_axes, pair
from minitl.tensor import Operand, Tensor


def _compare(name: str, a: Operand, b: Operand) -> Tensor:
    """Apply the array module's comparison called ``name``."""
    left, right = pair(a, b)
    return Tensor._wrap(getattr(module_of(left.device), name)(left.array, right.array), left.device)


def equal(a: Operand, b: Operand) -> Tensor:
    """Return ``a == b``, elementwise."""
    return _compare("equal", a, b)


def not_equal(a: Operand, b: Operand) -> Tensor:
    """Return ``a != b``, elementwise."""
    return _compare("not_equal", a, b)


def less(a: Operand, b: Operand) -> Tensor:
    """Return ``a < b``, elementwise."""
    return _compare("less", a, b)


def less_equal(a: Operand, b: Operand) -> Tensor:
    """Return ``a <= b``, elementwise."""
    return _compare("less_equal", a, b)


def greater(a: Operand, b: Operand) -> Tensor:
    """Return ``a > b``, elementwise."""
    return _compare("greater", a, b)


def greater_equal(a: Operand, b: Operand) -> Tensor:
    """Return ``a >= b``, elementwise."""
    return _compare("greater_equal", a, b)


def argmax(x: Tensor, axis: int | None = None) -> Tensor:
    """Return the position of the first largest element along ``axis``; of the flattened tensor by default."""
    if axis is not None:
        (axis,) = normalise_axes(axis, x.ndim)
    return Tensor._wrap(module_of(x.device).asarray(x.array.argmax(axis=axis)), x.device)
