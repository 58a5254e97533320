"""Arithmetic with broadcasting: sums, products, powers. A gradient is summed where an operand was repeated.

y = a + b:  da = dy,      db = dy                 y = a / b:  da = dy / b,   db = -dy * y / b
y = a - b:  da = dy,      db = -dy                y = -x:     dx = -dy
y = a * b:  da = dy * b,  db = dy * a             y = x^n:    dx = dy * n * x^(n-1), n a constant
y = |x|:    dx = dy * sign(x), 0 at the kink
"""

from __future__ import annotations

import numpy as np

from minitl.autograd import Function
from minitl.kernels.launch import Array
from minitl.ops.operands import check_float, pair, unbroadcast
from minitl.ops.registry import register
from minitl.tensor import Operand, Tensor


def add(a: Operand, b: Operand) -> Tensor:
    """Return ``a + b``."""
    return Add.apply(*pair(a, b))


def subtract(a: Operand, b: Operand) -> Tensor:
    """Return ``a - b``."""
    return Subtract.apply(*pair(a, b))


def multiply(a: Operand, b: Operand) -> Tensor:
    """Return ``a * b``, elementwise."""
    return Multiply.apply(*pair(a, b))


def divide(a: Operand, b: Operand) -> Tensor:
    """Return ``a / b``, elementwise."""
    numerator, denominator = pair(a, b)
    return Divide.apply(check_float("divide", numerator), denominator)


def negative(x: Tensor) -> Tensor:
    """Return ``-x``."""
    return Negative.apply(x)


def absolute(x: Tensor) -> Tensor:
    """Return ``|x|``, with gradient 0 at 0."""
    return Absolute.apply(x)


def power(x: Tensor, exponent: float) -> Tensor:
    """Return ``x ** exponent`` for a constant exponent.

    Raises:
        TypeError: the exponent is a tensor; write ``ops.exp(exponent * ops.log(x))`` for that.
    """
    if isinstance(exponent, np.generic):
        exponent = exponent.item()  # a NumPy number would impose its dtype
    if not isinstance(exponent, int | float):
        raise TypeError("the exponent is a constant number; for a tensor write exp(exponent * log(x))")
    if not (isinstance(exponent, int) and exponent >= 0):
        check_float("power", x)
    return Power.apply(x, exponent=exponent)


@register("add")
class Add(Function):
    def forward(self, a: Array, b: Array) -> Array:
        self.a_shape, self.b_shape = a.shape, b.shape
        return a + b

    def backward(self, grad_y: Array) -> tuple[Array, Array]:
        return unbroadcast(grad_y, self.a_shape), unbroadcast(grad_y, self.b_shape)


@register("subtract")
class Subtract(Function):
    def forward(self, a: Array, b: Array) -> Array:
        self.a_shape, self.b_shape = a.shape, b.shape
        return a - b

    def backward(self, grad_y: Array) -> tuple[Array, Array]:
        return unbroadcast(grad_y, self.a_shape), unbroadcast(-grad_y, self.b_shape)


@register("multiply")
class Multiply(Function):
    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return a * b

    def backward(self, grad_y: Array) -> tuple[Array | None, Array | None]:
        a_needs, b_needs = self.needs_gradient
        grad_a = unbroadcast(grad_y * self.b, self.a.shape) if a_needs else None
        grad_b = unbroadcast(grad_y * self.a, self.b.shape) if b_needs else None
        return grad_a, grad_b


@register("divide")
class Divide(Function):
    def forward(self, a: Array, b: Array) -> Array:
        self.a_shape, self.b = a.shape, b
        self.y = a / b
        return self.y

    def backward(self, grad_y: Array) -> tuple[Array, Array]:
        grad_a = grad_y / self.b
        grad_b = -grad_a * self.y
        return unbroadcast(grad_a, self.a_shape), unbroadcast(grad_b, self.b.shape)


@register("negative")
class Negative(Function):
    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, grad_y: Array) -> Array:
        return -grad_y


@register("absolute")
class Absolute(Function):
    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.abs(x)

    def backward(self, grad_y: Array) -> Array:
        return grad_y * self.xp.sign(self.x)


@register("power")
class Power(Function):
    def forward(self, x: Array, *, exponent: float) -> Array:
        self.x, self.exponent = x, exponent
        return x**exponent

    def backward(self, grad_y: Array) -> Array:
        if self.exponent == 0:  # x ** -1 is infinite at 0, and 0 * inf is NaN
            return self.xp.zeros_like(grad_y)
        return grad_y * self.exponent * self.x ** (self.exponent - 1)
