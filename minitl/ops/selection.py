"""Choosing between two values, elementwise: the gradient goes to the one that was chosen.

y = where(condition, a, b):  da = dy where the condition holds, db = dy elsewhere
y = maximum(a, b):           da = dy where a > b, db = dy where a < b, half each where they are equal; minimum likewise
"""

from __future__ import annotations

import numpy as np

from minitl.autograd import Function
from minitl.kernels.launch import Array
from minitl.ops.operands import pair, unbroadcast
from minitl.ops.registry import register
from minitl.tensor import Operand, Tensor


def where(condition: Tensor | np.ndarray, a: Operand, b: Operand) -> Tensor:
    """Return ``a`` where ``condition`` (bool) is True, else ``b``; the three broadcast together."""
    left, right = pair(a, b)
    chosen = condition if isinstance(condition, Tensor) else Tensor(np.asarray(condition), device=left.device)
    if chosen.dtype != bool:
        raise TypeError(f"where: the condition must be bool, not {chosen.dtype}; compare first, as in x > 0")
    return Where.apply(chosen, left, right)


def maximum(a: Operand, b: Operand) -> Tensor:
    """Return the larger of ``a`` and ``b``, elementwise; NaN if either is."""
    return Maximum.apply(*pair(a, b))


def minimum(a: Operand, b: Operand) -> Tensor:
    """Return the smaller of ``a`` and ``b``, elementwise; NaN if either is."""
    return Minimum.apply(*pair(a, b))


@register("where")
class Where(Function):
    def forward(self, condition: Array, a: Array, b: Array) -> Array:
        self.condition, self.a_shape, self.b_shape = condition, a.shape, b.shape
        return self.xp.where(condition, a, b)

    def backward(self, grad_y: Array) -> tuple[None, Array, Array]:
        grad_a = unbroadcast(self.xp.where(self.condition, grad_y, 0), self.a_shape)
        grad_b = unbroadcast(self.xp.where(self.condition, 0, grad_y), self.b_shape)
        return None, grad_a, grad_b


class _Extreme(Function):
    """The rule maximum and minimum share: the winner gets the gradient, equals share it."""

    a: Array
    b: Array

    def share(self, grad_y: Array, winner: Array) -> tuple[Array, Array]:
        to_a = self.xp.where(self.a == self.b, 0.5 * grad_y, self.xp.where(winner, grad_y, 0))
        return unbroadcast(to_a, self.a.shape), unbroadcast(grad_y - to_a, self.b.shape)


@register("maximum")
class Maximum(_Extreme):
    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return self.xp.maximum(a, b)

    def backward(self, grad_y: Array) -> tuple[Array, Array]:
        return self.share(grad_y, self.a > self.b)


@register("minimum")
class Minimum(_Extreme):
    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return self.xp.minimum(a, b)

    def backward(self, grad_y: Array) -> tuple[Array, Array]:
        return self.share(grad_y, self.a < self.b)
