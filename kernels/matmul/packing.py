"""Copying operands into the order in which a tile reads them.

    panel (steps, WIDTH) of b:  panel[s, j] = b[s, column + j]        the columns of one tile, beside each other
    tile  (steps, ROWS)  of a:  tile[s, i]  = a[row + i, s]           the rows of one tile, if a is transposed
    tile  (ROWS, steps)  of a:  tile[i, s]  = a[row + i, s]           if it is not

What lies beyond the edge of the operand is 0. A step is one k for floats. For bfloat16 a step is two: the numbers at
k = 2 s and 2 s + 1, rounded to 16 bits, are the lower and upper half of one 32-bit word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from minitl.kernels.compiled import inner
from minitl.kernels.matmul.tile import ROWS, VECTOR_BYTES, transpose_block

LAST_BITS, HALF_BELOW, SIXTEEN = np.uint32(1), np.uint32(0x7FFF), np.uint32(16)
INFINITY, WITHOUT_SIGN, QUIET = np.uint32(0x7F800000), np.uint32(0x7FFFFFFF), np.uint32(0x40)


@inner
def bfloat16_bits(x: Any) -> Any:
    """Return the 16 bits of the bfloat16 nearest to a float32, ties to even, as uint32; NaN stays NaN."""
    bits = np.float32(x).view(np.uint32)
    rounded = np.uint32(bits + HALF_BELOW + ((bits >> SIXTEEN) & LAST_BITS)) >> SIXTEEN
    is_nan = (bits & WITHOUT_SIGN) > INFINITY
    return np.uint32((bits >> SIXTEEN) | QUIET) if is_nan else np.uint32(rounded)


@inner
def _pair(low: Any, high: Any) -> Any:
    return np.uint32(bfloat16_bits(low) | np.uint32(bfloat16_bits(high) << SIXTEEN))


@inner
def _pair_down(x: Any, s: Any, j: Any) -> Any:
    return _pair(x[2 * s, j], x[2 * s + 1, j] if 2 * s + 1 < x.shape[0] else np.float32(0))


@inner
def _pair_along(x: Any, i: Any, s: Any) -> Any:
    return _pair(x[i, 2 * s], x[i, 2 * s + 1] if 2 * s + 1 < x.shape[1] else np.float32(0))


def operand_down(like: Any, x: Any, s: Any, j: Any) -> Any:
    """Return step ``s`` of column ``j`` of x, whose rows are K, as an element of ``like`` (compiled functions only)."""
    raise NotImplementedError("only compiled functions call this")


def operand_along(like: Any, x: Any, i: Any, s: Any) -> Any:
    """Return step ``s`` of row ``i`` of x, whose columns are K, as an element of ``like``."""
    raise NotImplementedError("only compiled functions call this")


@overload(operand_down, strict=False)
def _operand_down(like: Any, x: Any, s: Any, j: Any) -> Callable[..., Any]:
    if like.dtype == types.uint32:
        return lambda like, x, s, j: _pair_down(x, s, j)
    return lambda like, x, s, j: x[s, j]


@overload(operand_along, strict=False)
def _operand_along(like: Any, x: Any, i: Any, s: Any) -> Callable[..., Any]:
    if like.dtype == types.uint32:
        return lambda like, x, i, s: _pair_along(x, i, s)
    return lambda like, x, i, s: x[i, s]


@inner
def pack_panel(b: Any, transposed: Any, panel: Any, number: Any) -> None:
    """Fill panel ``number`` from b (K, N), or (N, K) if transposed."""
    steps, width = panel.shape
    first = number * width
    exist = min(width, b.shape[0 if transposed else 1] - first)
    if transposed:
        _pack_transposed(b, panel, first, exist)
    else:
        _copy_columns(b, panel, first, exist)
    for s in range(steps if exist < width else 0):
        for j in range(exist, width):
            panel[s, j] = 0


@inner
def _pack_transposed(b: Any, panel: Any, first: Any, exist: Any) -> None:
    """Turn ``exist`` rows of b into columns of the panel, in squares that fit the registers."""
    steps = panel.shape[0]
    lanes = VECTOR_BYTES // panel.itemsize
    square = np.empty((lanes, lanes), panel.dtype)
    whole_rows, whole_steps = exist // lanes * lanes, steps // lanes * lanes
    for j in range(0, whole_rows, lanes):
        for s in range(0, whole_steps, lanes):
            for i in range(lanes):
                for k in range(lanes):
                    square[i, k] = operand_along(panel, b, first + j + i, s + k)
            target = np.int64(panel.ctypes.data) + (s * panel.shape[1] + j) * panel.itemsize
            transpose_block(
                panel, np.int64(square.ctypes.data), lanes * panel.itemsize, target, panel.shape[1] * panel.itemsize
            )
    for j in range(exist):
        for s in range(whole_steps if j < whole_rows else 0, steps):
            panel[s, j] = operand_along(panel, b, first + j, s)


@inner
def pack_tile(a: Any, transposed: Any, flat: Any, number: Any) -> None:
    """Fill tile ``number`` from a (M, K), or (K, M) if transposed; ``flat`` is (steps * ROWS,)."""
    steps = flat.size // ROWS
    first = number * ROWS
    exist = min(ROWS, a.shape[1 if transposed else 0] - first)
    for place in range(flat.size if exist < ROWS else 0):
        flat[place] = 0
    if transposed:
        _copy_columns(a, flat.reshape((steps, ROWS)), first, exist)
        return
    for i in range(exist):
        for s in range(steps):
            flat[i * steps + s] = operand_along(flat, a, first + i, s)


@inner
def _copy_columns(x: Any, target: Any, first: Any, exist: Any) -> None:
    """Copy ``exist`` columns of x, from ``first`` on, into the first columns of ``target``."""
    if exist == target.shape[1] and exist == ROWS:
        for s in range(target.shape[0]):
            for i in range(ROWS):  # a known length: one vector is moved, without a loop
                target[s, i] = operand_down(target, x, s, first + i)
    else:
        for s in range(target.shape[0]):
            for j in range(exist):
                target[s, j] = operand_down(target, x, s, first + j)
