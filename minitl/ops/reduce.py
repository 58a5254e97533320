"""Reductions over axes: a sum repeats its gradient, a mean divides it, a maximum sends it to where the maximum was.

y = sum(x):   dx = dy repeated            y = max(x), min(x): dx = dy where x equals y, shared evenly between ties
y = mean(x):  dx = dy / count, repeated
"""

from __future__ import annotations

import math

from minitl.autograd import Function
from minitl.kernels.launch import Array
from minitl.ops.operands import check_float, normalise_axes
from minitl.ops.registry import register
from minitl.tensor import Tensor

Axis = int | tuple[int, ...] | None


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the sum over ``axis`` (all axes by default)."""
    return Sum.apply(x, axes=normalise_axes(axis, x.ndim), keepdims=keepdims)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the mean over ``axis`` (all axes by default)."""
    return Mean.apply(check_float("mean", x), axes=normalise_axes(axis, x.ndim), keepdims=keepdims)


def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the largest element over ``axis`` (all axes by default); ties share the gradient evenly."""
    return Max.apply(x, axes=normalise_axes(axis, x.ndim), keepdims=keepdims)


def min(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the smallest element over ``axis`` (all axes by default); ties share the gradient evenly."""
    return Min.apply(x, axes=normalise_axes(axis, x.ndim), keepdims=keepdims)


class _Reduction(Function):
    """What the reductions share: the axes, and bringing a result back to the shape it was reduced from."""

    axes: tuple[int, ...]
    x_shape: tuple[int, ...]

    def remember(self, x: Array, axes: tuple[int, ...]) -> None:
        self.axes, self.x_shape = axes, x.shape

    def keep(self, reduced: Array) -> Array:
        """Give a reduced array its axes back, with length 1."""
        kept = tuple(1 if axis in self.axes else length for axis, length in enumerate(self.x_shape))
        return reduced.reshape(kept)

    def repeat(self, reduced: Array) -> Array:
        """Repeat a reduced array along the axes it was reduced over."""
        return self.xp.broadcast_to(self.keep(reduced), self.x_shape)


@register("sum")
class Sum(_Reduction):
    def forward(self, x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        self.remember(x, axes)
        # whole numbers are counted in int64 (NumPy would make uint64 of uint8), floats keep their dtype
        return x.sum(axis=axes, keepdims=keepdims, dtype=x.dtype if x.dtype.kind == "f" else self.xp.int64)

    def backward(self, grad_y: Array) -> Array:
        return self.repeat(grad_y)


@register("mean")
class Mean(_Reduction):
    def forward(self, x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        self.remember(x, axes)
        self.count = math.prod(x.shape[axis] for axis in axes)
        if self.count == 0:
            raise ValueError(f"the mean over axes {axes} of shape {x.shape} has nothing to average")
        return x.mean(axis=axes, keepdims=keepdims)

    def backward(self, grad_y: Array) -> Array:
        return self.repeat(grad_y / self.count)


class _Extremum(_Reduction):
    x: Array
    y: Array

    def backward(self, grad_y: Array) -> Array:
        chosen = (self.x == self.keep(self.y)).astype(self.x.dtype)
        ties = chosen.sum(axis=self.axes, keepdims=True)
        return chosen * (self.keep(grad_y) / ties)


@register("max")
class Max(_Extremum):
    def forward(self, x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        self.remember(x, axes)
        self.x, self.y = x, x.max(axis=axes, keepdims=keepdims)
        return self.y


@register("min")
class Min(_Extremum):
    def forward(self, x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        self.remember(x, axes)
        self.x, self.y = x, x.min(axis=axes, keepdims=keepdims)
        return self.y
