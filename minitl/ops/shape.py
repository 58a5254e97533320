"""Shape and dtype: the values stay, their places change, and the gradient walks the way back.

y = reshape(x):    dx = dy in the old shape             y = concatenate(xs): dx_i = the part of dy that x_i became
y = transpose(x):  dx = dy with the axes put back       y = broadcast_to(x): dx = dy summed over the repeats
y = astype(x):     dx = dy in the old dtype
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from minitl.autograd import Function
from minitl.kernels.launch import Array, is_float
from minitl.ops.operands import normalise_axes, unbroadcast
from minitl.ops.registry import register
from minitl.tensor import DTYPES, Tensor

Shape = SupportsIndex | tuple[int, ...]


def _one_tuple(values: tuple[Shape, ...]) -> tuple[int, ...]:
    """Accept both ``f(2, 3)`` and ``f((2, 3))``."""
    if len(values) == 1 and isinstance(values[0], tuple | list):
        return tuple(values[0])
    return tuple(int(value) for value in values)  # type: ignore[arg-type]


def reshape(x: Tensor, *shape: Shape) -> Tensor:
    """Return the elements of ``x`` in another shape; one length may be -1."""
    return Reshape.apply(x, shape=_one_tuple(shape))


def transpose(x: Tensor, *axes: Shape) -> Tensor:
    """Return ``x`` with its axes in the given order, reversed by default."""
    order = _one_tuple(axes) or tuple(reversed(range(x.ndim)))
    return Transpose.apply(x, axes=order)


def broadcast_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return ``x`` repeated to ``shape``, without copying."""
    return BroadcastTo.apply(x, shape=shape)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return the tensors joined along an existing axis."""
    if not tensors:
        raise ValueError("concatenate needs at least one tensor")
    if len({x.dtype for x in tensors}) > 1:
        names = " and ".join(sorted({str(x.dtype) for x in tensors}))
        raise TypeError(f"concatenate: {names} mixed; convert one with .astype(), nothing is promoted silently")
    (axis,) = normalise_axes(axis, tensors[0].ndim)
    return Concatenate.apply(*tensors, axis=axis)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return the tensors joined along a new axis."""
    if not tensors:
        raise ValueError("stack needs at least one tensor")
    (position,) = normalise_axes(axis, tensors[0].ndim + 1)
    widened = [reshape(x, (*x.shape[:position], 1, *x.shape[position:])) for x in tensors]
    return concatenate(widened, axis=position)


def astype(x: Tensor, dtype: npt.DTypeLike) -> Tensor:
    """Return ``x`` converted to another dtype; a gradient flows between float dtypes only."""
    dtype = np.dtype(dtype)
    if dtype not in DTYPES:
        raise TypeError(f"a Tensor holds float32, float64, integers or bool, not {dtype}")
    if dtype.kind != "f" or not is_float(x.dtype):
        return Tensor(x.array.astype(dtype), device=x.device)
    return AsType.apply(x, dtype=dtype)


def as_rows(x: Tensor) -> Tensor:
    """Return ``x`` of shape (..., D) as rows (N, D): what the fused ops and their kernels work on."""
    if x.ndim == 2:
        return x
    width = x.shape[-1] if x.ndim else 1
    return reshape(x, (math.prod(x.shape[:-1]), width))


@register("reshape")
class Reshape(Function):
    def forward(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        self.x_shape = x.shape
        return x.reshape(shape)

    def backward(self, grad_y: Array) -> Array:
        return grad_y.reshape(self.x_shape)


@register("transpose")
class Transpose(Function):
    def forward(self, x: Array, *, axes: tuple[int, ...]) -> Array:
        y = x.transpose(axes)  # which refuses axes that are out of range, repeated or missing
        self.axes = [axis % x.ndim for axis in axes]
        return y

    def backward(self, grad_y: Array) -> Array:
        inverse = [self.axes.index(axis) for axis in range(len(self.axes))]
        return grad_y.transpose(inverse)


@register("broadcast_to")
class BroadcastTo(Function):
    def forward(self, x: Array, *, shape: tuple[int, ...]) -> Array:
        self.x_shape = x.shape
        return self.xp.broadcast_to(x, shape)

    def backward(self, grad_y: Array) -> Array:
        return unbroadcast(grad_y, self.x_shape)


@register("concatenate")
class Concatenate(Function):
    def forward(self, *xs: Array, axis: int) -> Array:
        self.axis, self.lengths = axis, [x.shape[axis] for x in xs]
        return self.xp.concatenate(xs, axis=axis)

    def backward(self, grad_y: Array) -> tuple[Array, ...]:
        grads, start = [], 0
        for length in self.lengths:
            part: list[Any] = [slice(None)] * grad_y.ndim
            part[self.axis] = slice(start, start + length)
            grads.append(grad_y[tuple(part)])
            start += length
        return tuple(grads)


@register("astype")
class AsType(Function):
    def forward(self, x: Array, *, dtype: np.dtype[Any]) -> Array:
        self.x_dtype = x.dtype
        return x.astype(dtype)

    def backward(self, grad_y: Array) -> Array:
        return grad_y.astype(self.x_dtype)
