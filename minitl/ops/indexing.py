"""Taking elements out, and putting rows in.

y = x[index]:               dx = zeros with dy added at ``index``; an element that was taken twice gets both gradients
y = take_rows(x, rows):     y = x[rows], rows without repeats;                  dx = zeros with dx[rows] = dy
y = scatter_rows(x, rows):  y = zeros with y[rows] = x, rows without repeats;   dx = dy[rows]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.autograd import Function
from minitl.device import move
from minitl.kernels.launch import Array
from minitl.ops.operands import check_ids
from minitl.ops.registry import register
from minitl.tensor import Tensor


def getitem(x: Tensor, index: Any) -> Tensor:
    """Return ``x[index]`` for any index NumPy takes: integers, slices, ..., None, integer or boolean arrays, or a
    tuple.

    Raises:
        IndexError: an integer is out of range; of one in an array, the message names the position.
    """
    parts = tuple(_index_part(part) for part in (index if isinstance(index, tuple) else (index,)))
    _check_arrays(parts, x.shape)
    return GetItem.apply(x, index=parts)


def _index_part(part: Any) -> Any:
    if isinstance(part, list | tuple | range):
        return np.asarray(part, dtype=None if len(part) else np.int64)
    if isinstance(part, Tensor):
        part = part.numpy()
    return part.copy() if isinstance(part, np.ndarray) else part  # backward needs it as it is now


def _check_arrays(parts: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    """Raise an IndexError for the first index in an array that is out of range: a GPU would wrap it around."""
    taken = [_axes_taken(part) for part in parts]
    axis = 0
    for part, count in zip(parts, taken, strict=True):
        if part is Ellipsis:
            axis += len(shape) - sum(taken)
        elif isinstance(part, np.ndarray) and part.dtype.kind in "iu" and axis < len(shape):
            wrong = (part < -shape[axis]) | (part >= shape[axis])
            if wrong.any():
                place = tuple(int(i) for i in np.argwhere(wrong)[0])
                raise IndexError(
                    f"index {part[place]} at position {place[0] if len(place) == 1 else place} is out of bounds: "
                    f"axis {axis} has length {shape[axis]}"
                )
        axis += count


def _axes_taken(part: Any) -> int:
    """How many axes a part of an index stands for; the dots take what is left."""
    if part is None or part is Ellipsis or isinstance(part, bool | np.bool_):
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype == bool else 1


def take_rows(x: Tensor, rows: np.ndarray) -> Tensor:
    """Return the rows ``x[rows]``, no two of them the same.

    Backward then writes every row once, which is many times faster than the adding up that ``x[rows]`` needs.

    Args:
        x: (N, ...).
        rows: (M,) integers in [0, N), no two equal.

    Returns:
        (M, ...).

    Raises:
        TypeError: the row numbers are no integers.
        ValueError: a row is out of range or named twice, or the numbers are not one-dimensional.
    """
    if x.ndim == 0 or np.ndim(rows) != 1:
        raise ValueError(f"take_rows needs x (N, ...) and rows (M,), got {x.shape} and {np.shape(rows)}")
    return TakeRows.apply(x, rows=_distinct_rows(rows, x.shape[0], name="take_rows"))


def _distinct_rows(rows: np.ndarray, count: int, *, name: str) -> np.ndarray:
    """Return a copy of the row numbers, since backward needs them as they are now; raise unless they are distinct."""
    rows = np.array(rows)
    if rows.dtype.kind not in "iu":
        raise TypeError(f"{name}: row numbers must be integers, not {rows.dtype}")
    check_ids(rows, count, name=f"{name}: row number")
    if np.unique(rows).size != rows.size:
        raise ValueError(f"{name}: a row number occurs twice; the values would overwrite each other")
    return rows


def scatter_rows(x: Tensor, rows: np.ndarray, count: int) -> Tensor:
    """Return ``count`` rows of zeros in which row ``rows[i]`` is ``x[i]``.

    Args:
        x: (N, ...).
        rows: (N,) integers in [0, count), no two equal.
        count: length of the result.

    Raises:
        TypeError: the row numbers are no integers.
        ValueError: a row is out of range or named twice.
    """
    if np.shape(rows) != x.shape[:1]:
        raise ValueError(f"scatter_rows: {x.shape[0]} rows of values for {np.shape(rows)} row numbers")
    return ScatterRows.apply(x, rows=_distinct_rows(rows, count, name="scatter_rows"), count=count)


@register("getitem")
class GetItem(Function):
    def forward(self, x: Array, *, index: tuple[Any, ...]) -> Array:
        self.x_shape = x.shape
        self.has_arrays = any(isinstance(part, np.ndarray) for part in index)
        self.index = tuple(move(part, self.device) if isinstance(part, np.ndarray) else part for part in index)
        return x[self.index]

    def backward(self, grad_y: Array) -> Array:
        grad_x = self.xp.zeros(self.x_shape, dtype=grad_y.dtype)
        if self.has_arrays:
            self.xp.add.at(grad_x, self.index, grad_y)
        else:
            grad_x[self.index] = grad_y  # slices and integers take each element once
        return grad_x


@register("take_rows")
class TakeRows(Function):
    def forward(self, x: Array, *, rows: np.ndarray) -> Array:
        self.x_shape = x.shape
        self.rows = move(rows, self.device)
        return x[self.rows]

    def backward(self, grad_y: Array) -> Array:
        grad_x = self.xp.zeros(self.x_shape, dtype=grad_y.dtype)
        grad_x[self.rows] = grad_y
        return grad_x


@register("scatter_rows")
class ScatterRows(Function):
    def forward(self, x: Array, *, rows: np.ndarray, count: int) -> Array:
        self.rows = move(rows, self.device)
        y = self.xp.zeros((count, *x.shape[1:]), dtype=x.dtype)
        y[self.rows] = x
        return y

    def backward(self, grad_y: Array) -> Array:
        return grad_y[self.rows]
