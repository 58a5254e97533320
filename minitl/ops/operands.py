"""What operators accept, and how broadcasting is undone."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from minitl.kernels.launch import Array
from minitl.tensor import Operand, Tensor


def as_tensor(value: Operand, like: Tensor) -> Tensor:
    """Return ``value`` as a tensor on the device of ``like``.

    Python and NumPy numbers, and lists of them, take the dtype of ``like`` (a fractional number beside an integer
    tensor becomes float32, a whole number beside a bool tensor int64); integer arrays and tensors take it too where
    ``like`` is a float tensor.
    """
    if isinstance(value, Tensor):
        tensor = value
    elif isinstance(value, numbers.Number | np.generic):
        dtype = like.dtype
        if dtype.kind != "f" and isinstance(value, float | np.floating):
            dtype = np.dtype(np.float32)
        elif dtype.kind == "b" and not isinstance(value, bool | np.bool_):
            dtype = np.dtype(np.int64)  # True + 1 is 2
        tensor = Tensor(np.asarray(value, dtype=dtype), device=like.device)
    elif isinstance(value, list | tuple):
        tensor = Tensor(np.asarray(value, dtype=like.dtype if like.dtype.kind == "f" else None), device=like.device)
    elif isinstance(value, np.ndarray):
        tensor = Tensor(value, device=like.device)
    else:
        raise TypeError(
            f"a tensor cannot be combined with {type(value).__name__}; use a Tensor, a NumPy array or a number"
        )
    if like.dtype.kind == "f" and tensor.dtype.kind in "iub":
        return Tensor._wrap(tensor.array.astype(like.dtype), like.device)
    return tensor


def pair(a: Operand, b: Operand) -> tuple[Tensor, Tensor]:
    """Return two operands, at least one of them a Tensor, as two tensors."""
    if isinstance(a, Tensor):
        b = as_tensor(b, a)
        return as_tensor(a, b), b
    if isinstance(b, Tensor):
        return as_tensor(a, b), b
    raise TypeError("at least one operand must be a Tensor")


def check_float(name: str, x: Tensor) -> Tensor:
    """Return ``x`` if it holds floats; NumPy would turn integers into float64 without a word.

    Raises:
        TypeError: it does not.
    """
    if x.dtype.kind != "f":
        raise TypeError(f"{name} needs a float tensor, not {x.dtype}; convert it with .astype('float32')")
    return x


def check_ids(ids: np.ndarray, count: int, *, name: str) -> None:
    """Raise a ValueError that names the first value outside [0, count) and its position.

    This is done on the host, before any kernel runs: a GPU would wrap around or stop the process.
    """
    wrong = (ids < 0) | (ids >= count)
    if wrong.any():
        position = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = position[0] if len(position) == 1 else position
        raise ValueError(
            f"{name} {ids[position]} at position {place} is out of range: there are {count}, 0 to {count - 1}"
        )


def unbroadcast(grad: Array, shape: tuple[int, ...]) -> Array:
    """Sum ``grad`` over the axes along which an operand of ``shape`` was repeated to reach ``grad.shape``.

    Broadcasting copies one number to many places; each place sends a gradient back, and the number's own is their sum.

    >>> unbroadcast(np.ones((2, 3)), (3,))
    array([2., 2., 2.])
    """
    if grad.shape == shape:
        return grad
    added = grad.ndim - len(shape)
    stretched = tuple(
        added + axis for axis, length in enumerate(shape) if length == 1 and grad.shape[added + axis] != 1
    )
    return grad.sum(axis=(*range(added), *stretched)).reshape(shape)


def normalise_axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """Return ``axis`` as a sorted tuple of non-negative axes; None means all."""
    axes: tuple[Any, ...] = tuple(range(ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for one in axes:
        if not -ndim <= one < ndim:
            raise ValueError(f"axis {one} is out of range for a tensor with {ndim} dimensions")
    positive = sorted({one % ndim for one in axes})
    if len(positive) != len(axes):
        raise ValueError(f"an axis is named twice in {axis}")
    return tuple(positive)
