"""The same numbers, lying in memory in other ways.

An operation sees an array's shape and values; how they lie in memory must not matter to it. NumPy and the tape take
care of most of that, so that the few places where it does matter (a compiled kernel reads memory, not arrays) are the
more easily forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Layout: TypeAlias = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def contiguous(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Row after row, without gaps: what most code expects."""
    return np.array(array, order="C")


def fortran(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Column after column: all axes in reversed order."""
    return np.array(array, order="F")


def transposed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The last axis in memory is the first of the array."""
    return np.moveaxis(np.moveaxis(array, 0, -1).copy(), -1, 0) if array.ndim else array.copy()


def sliced(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every second element of longer rows; the others are NaN, so that reading past the strides shows."""
    wide = _poisoned((*array.shape[:-1], 2 * array.shape[-1] + 1) if array.ndim else (2,), array.dtype)
    view = wide[..., 1::2] if array.ndim else wide[1:].reshape(())
    view[...] = array
    return view


def block(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The inner block of a larger array, NaN all around it."""
    large = _poisoned(tuple(length + 2 for length in array.shape), array.dtype)
    inner: tuple[Any, ...] = (..., *(slice(1, -1),) * array.ndim)
    view = large[inner]
    view[...] = array
    return view


def reversed_axes(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """From the last element to the first: negative strides."""
    return np.asarray(np.flip(np.flip(array).copy()))  # flipping no axes gives a scalar


def zero_stride(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The first entry along the first axis, repeated without being copied. The only layout that changes the values."""
    return np.broadcast_to(array[:1].copy(), array.shape) if array.ndim else np.broadcast_to(array.copy(), ())


def unaligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Contiguous, but one byte off every address that the processor prefers."""
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    view = np.ndarray(array.shape, array.dtype, memory)
    view[...] = array
    return view


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Contiguous, but writing raises."""
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy


#: All layouts by name.
LAYOUTS: dict[str, Layout] = {
    "contiguous": contiguous,
    "fortran": fortran,
    "transposed": transposed,
    "sliced": sliced,
    "block": block,
    "reversed": reversed_axes,
    "zero-stride": zero_stride,
    "unaligned": unaligned,
    "read-only": read_only,
}


def _poisoned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An array of NaN, or of the largest value where the dtype has no NaN."""
    if dtype.kind == "f":
        return np.full(shape, np.nan, dtype)
    return np.full(shape, True if dtype.kind == "b" else np.iinfo(dtype).max, dtype)
