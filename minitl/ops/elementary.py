"""Functions of one number, elementwise.

y = exp(x):   dx = dy * y                        y = tanh(x): dx = dy * (1 - y^2)
y = log(x):   dx = dy / x                        y = erf(x):  dx = dy * 2 / sqrt(pi) * exp(-x^2)
y = sqrt(x):  dx = dy / (2 y)                    y = relu(x): dx = dy where x > 0, else 0
"""

from __future__ import annotations

import math

from minitl.autograd import Function
from minitl.kernels import special
from minitl.kernels.launch import Array
from minitl.ops.operands import check_float
from minitl.ops.registry import register
from minitl.tensor import Tensor


def exp(x: Tensor) -> Tensor:
    """Return e to the power of ``x``."""
    return Exp.apply(check_float("exp", x))


def log(x: Tensor) -> Tensor:
    """Return the natural logarithm of ``x``."""
    return Log.apply(check_float("log", x))


def sqrt(x: Tensor) -> Tensor:
    """Return the square root of ``x``; its slope at 0 is infinite."""
    return Sqrt.apply(check_float("sqrt", x))


def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent of ``x``."""
    return Tanh.apply(check_float("tanh", x))


def erf(x: Tensor) -> Tensor:
    """Return the error function of ``x``; see ``kernels/special.py`` for how it is computed."""
    return Erf.apply(check_float("erf", x))


def relu(x: Tensor) -> Tensor:
    """Return ``max(x, 0)``, with gradient 0 at 0 as in PyTorch."""
    return Relu.apply(x)


@register("exp")
class Exp(Function):
    def forward(self, x: Array) -> Array:
        self.y = self.xp.exp(x)
        return self.y

    def backward(self, grad_y: Array) -> Array:
        return grad_y * self.y


@register("log")
class Log(Function):
    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.log(x)

    def backward(self, grad_y: Array) -> Array:
        return grad_y / self.x


@register("sqrt")
class Sqrt(Function):
    def forward(self, x: Array) -> Array:
        self.y = self.xp.sqrt(x)
        return self.y

    def backward(self, grad_y: Array) -> Array:
        return grad_y / (2 * self.y)


@register("tanh")
class Tanh(Function):
    def forward(self, x: Array) -> Array:
        self.y = self.xp.tanh(x)
        return self.y

    def backward(self, grad_y: Array) -> Array:
        return grad_y * (1 - self.y * self.y)


@register("erf")
class Erf(Function):
    def forward(self, x: Array) -> Array:
        self.x = x
        return special.erf(x)

    def backward(self, grad_y: Array) -> Array:
        return grad_y * (2 / math.sqrt(math.pi)) * self.xp.exp(-self.x * self.x)


@register("relu")
class Relu(Function):
    def forward(self, x: Array) -> Array:
        self.x = x
        return self.xp.maximum(x, 0)

    def backward(self, grad_y: Array) -> Array:
        return self.xp.where(self.x > 0, grad_y, 0)
