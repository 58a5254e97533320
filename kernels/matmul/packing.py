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
from minitl.kernels.matmul.moving import (
    TILES_TOGETHER,
    copy_along,
    copy_panel,
    copy_tile,
    copy_tiles,
    copy_vector,
    transpose_operands,
)
from minitl.kernels.matmul.tile import ROWS, VECTOR_BYTES

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


def numbers_per_step(like: Any) -> Any:
    """Return how many neighbours in K an element of ``like`` holds (compiled functions only)."""
    raise NotImplementedError("only compiled functions call this")


@overload(numbers_per_step, strict=False)
def _numbers_per_step(like: Any) -> Callable[[Any], int]:
    return (lambda like: 2) if like.dtype == types.uint32 else (lambda like: 1)


@inner
def place(x: Any, row: Any, column: Any) -> Any:
    """Return the address of an element of a matrix, as a signed number."""
    return np.int64(x.ctypes.data) + (row * x.shape[1] + column) * x.itemsize


@inner
def pack_panel(b: Any, transposed: Any, panel: Any, number: Any) -> None:
    """Fill panel ``number`` from b (K, N), or (N, K) if transposed."""
    steps, width = panel.shape
    first = number * width
    exist = min(width, b.shape[0 if transposed else 1] - first)
    b_row, panel_row = b.shape[1] * b.itemsize, width * panel.itemsize
    per_step = numbers_per_step(panel)
    lanes = VECTOR_BYTES // panel.itemsize
    done, columns = b.shape[1 if transposed else 0] // per_step, exist // lanes * lanes
    if transposed:
        done = done // lanes * lanes
        for j in range(0, columns, lanes):
            for s in range(0, done, lanes):
                transpose_operands(panel, place(b, first + j, s * per_step), b_row, place(panel, s, j), panel_row)
    elif exist == width:
        copy_panel(panel, place(b, 0, first), b_row, place(panel, 0, 0), panel_row, VECTOR_BYTES, done)
    else:
        for j in range(0, columns, lanes):
            copy_vector(panel, place(b, 0, first + j), b_row, place(panel, 0, j), panel_row, VECTOR_BYTES, done)
    for s in range(done if columns == width else 0, steps):  # what fills no vector
        for j in range(columns if s < done else 0, width):
            if j >= exist:
                panel[s, j] = 0
            elif transposed:
                panel[s, j] = operand_along(panel, b, first + j, s)
            else:
                panel[s, j] = operand_down(panel, b, s, first + j)


@inner
def pack_tile_across(a: Any, flat: Any, number: Any) -> None:
    """Fill tile ``number`` from a (M, K); ``flat`` is (ROWS * steps,), row after row."""
    lanes = VECTOR_BYTES // flat.itemsize
    per_step = numbers_per_step(flat)
    steps = (a.shape[1] + per_step - 1) // per_step
    vectors = a.shape[1] // per_step // lanes
    for i in range(ROWS):
        row, begin = number * ROWS + i, i * steps
        exists = row < a.shape[0]
        if exists:
            target = np.int64(flat.ctypes.data) + begin * flat.itemsize
            copy_along(flat, place(a, row, 0), target, vectors)
        for s in range(vectors * lanes if exists else 0, steps):
            flat[begin + s] = operand_along(flat, a, row, s) if exists else 0


@inner
def pack_tiles_down(a: Any, tiles: Any, number: Any) -> None:
    """Fill tiles ``number`` to ``number + TILES_TOGETHER - 1``, as far as they exist, from a (K, M)."""
    steps = (a.shape[0] + numbers_per_step(tiles) - 1) // numbers_per_step(tiles)
    whole, row = a.shape[0] // numbers_per_step(tiles), a.shape[1] * a.itemsize
    tile_row, tile_size = ROWS * tiles.itemsize, tiles.shape[1] * tiles.itemsize
    last = min(number + TILES_TOGETHER, tiles.shape[0])
    filled = min(last, a.shape[1] // ROWS)  # tiles before this one have all their rows
    if filled == number + TILES_TOGETHER:
        copy_tiles(tiles, place(a, 0, number * ROWS), row, place(tiles, number, 0), tile_row, tile_size, whole)
    else:
        for t in range(number, filled):
            copy_tile(tiles, place(a, 0, t * ROWS), row, place(tiles, t, 0), tile_row, tile_size, whole)
    for t in range(number, last):
        for s in range(whole if t < filled else 0, steps):
            for i in range(ROWS):
                exists = t * ROWS + i < a.shape[1]
                tiles[t, s * ROWS + i] = operand_down(tiles, a, s, t * ROWS + i) if exists else 0
