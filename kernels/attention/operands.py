"""What a head is computed with: its rows, blocks of them turned on their side, their products, and random words.

Rows of one head lie apart, one in each row of the (T, D) arrays. A tile of the matrix product (``matmul/tile.py``)
takes them as they are, by address and distance, where it may: it reads whole vectors of columns and ROWS rows at least,
and comes back to them several times, so there must not be so many that they drive each other out of the nearest cache.
Else they are copied together first, which costs little beside the products. Addresses and distances are in bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from minitl.kernels.compiled import compiled
from minitl.kernels.matmul.moving import transpose_elements
from minitl.kernels.matmul.packing import place
from minitl.kernels.matmul.tile import AVX512, ROWS, VECTOR_BYTES, make_tile, narrow_tile
from minitl.kernels.philox.cpu import fill_words
from minitl.kernels.scratch import CACHE_LINE

LANES = VECTOR_BYTES // 4  # of float32; twice the lanes of float64
BLOCK = 4 * LANES  # queries that are worked on together
STEPS = 64  # of a product; after so many, the rows of b begin to leave the nearest cache

# A product of 64 columns goes fastest in one tile of 4 rows, which loads a number for 4 vectors. AVX2 has fewer
# registers.
LOW, WIDE = (4, 4) if AVX512 else (ROWS, 2)
_wide_tile = make_tile(LOW, WIDE)
_middle_tile = make_tile(ROWS, 2)

# typed, since Numba compiles a function once more for each plain number that is written in a call
OVERWRITE, ADD = np.int64(0), np.int64(1)


@intrinsic
def whole_registers(typing):  # type: ignore[no-untyped-def]
    """Let the loops of the function around the call use vectors as wide as the registers.

    By itself LLVM takes half of AVX-512's, for the first processors that had them lowered their clock. The tiles use
    whole ones anyway, and ``exp`` is a third faster.
    """

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        # llvmlite knows no attributes with values, but writes what is in this set as it stands
        set.add(builder.function.attributes, f'"prefer-vector-width"="{8 * VECTOR_BYTES}"')
        return context.get_dummy_value()

    return types.void(), code


@compiled
def rounded_up(count: Any, multiple: Any) -> Any:
    return (count + multiple - 1) // multiple * multiple


@compiled
def address(x: Any) -> Any:
    """Return where an array begins, as a signed number: a signed and an unsigned one Numba would add as floats."""
    return np.int64(x.ctypes.data)


@compiled
def zeros(size: Any, like: Any) -> Any:
    """Return (size,) zeros that begin at a cache line."""
    memory = np.zeros(size + CACHE_LINE // like.itemsize, like.dtype)
    begin = -address(memory) % CACHE_LINE // like.itemsize
    return memory[begin : begin + size]


@compiled
def product(
    like: Any,
    a: Any,
    a_row: Any,
    a_step: Any,
    b: Any,
    b_row: Any,
    steps: Any,
    c: Any,
    c_row: Any,
    rows: Any,
    columns: Any,
    accumulate: Any,
) -> None:
    """Compute ``c (rows, columns) = a b``, or ``c += a b``; a, b and c are addresses, as for a tile.

    Whole vectors of columns are written, and whole tiles of rows, so there must be room for ROWS - 1 more. Only if
    there are no more than STEPS steps and at least ROWS rows, and nothing is added, the last tile begins so early that
    it ends with the last row, and computes some rows again.
    """
    end = columns * like.itemsize
    for step in range(0, max(steps, 1), STEPS):  # without steps, too, c is overwritten
        some, add = min(steps - step, STEPS), accumulate if step == 0 else ADD
        column, vectors = 0, 0
        while column < end:
            vectors = (end - column) // VECTOR_BYTES
            vectors = WIDE if vectors >= WIDE else min(vectors, 2)
            height = LOW if vectors == WIDE else ROWS
            last = rows - height if rows >= height and steps <= STEPS and accumulate == 0 else rows
            b_here = b + step * b_row + column
            for tile_row in range(0, rows, height):
                i = min(tile_row, last)
                a_here, c_here = a + i * a_row + step * a_step, c + i * c_row + column
                if vectors == WIDE:
                    _wide_tile(like, a_here, a_row, a_step, b_here, b_row, some, c_here, c_row, add, 0)
                elif vectors == 2:
                    _middle_tile(like, a_here, a_row, a_step, b_here, b_row, some, c_here, c_row, add, 0)
                else:
                    narrow_tile(like, a_here, a_row, a_step, b_here, b_row, some, c_here, c_row, add, 0)
            column += vectors * VECTOR_BYTES


@compiled
def transpose(like: Any, source: Any, source_row: Any, target: Any, target_row: Any, rows: Any, columns: Any) -> None:
    """Write ``target[j, i] = source[i, j]`` in squares; with enough rows the last square ends with the last row."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    for square in range(0, rows, lanes):
        i = min(square, max(rows - lanes, 0))
        for j in range(0, columns, lanes):
            from_here, to_here = source + i * source_row + j * size, target + j * target_row + i * size
            transpose_elements(like, from_here, source_row, to_here, target_row)


@compiled
def head_rows(x: Any, first: Any, count: Any, column: Any, width: Any, room: Any, in_place: Any) -> Any:
    """Return address and distance of one head's rows: where they are, or copied into a room."""
    if in_place:
        return place(x, first, column), x.shape[1] * x.itemsize
    room_row = rounded_up(width, LANES)
    for i in range(count):
        source, target = x[first + i][column : column + width], room[i * room_row : (i + 1) * room_row]
        for j in range(width):
            target[j] = source[j]
    return address(room), room_row * x.itemsize


@compiled
def write_rows(room: Any, y: Any, first: Any, count: Any, column: Any, width: Any) -> None:
    """Copy rows from a room to where they belong."""
    room_row = rounded_up(width, LANES)
    for i in range(count):
        source, target = room[i * room_row : (i + 1) * room_row], y[first + i][column : column + width]
        for j in range(width):
            target[j] = source[j]


@compiled
def draw(words: Any, in_order: Any, keys: Any, queries: Any, first: Any, seed: Any, call: Any) -> None:
    """Fill ``words`` (key, query) with the random words of a block, whose elements are numbered query by query."""
    fill_words(in_order[: queries * keys], first, seed, call)
    size = words.itemsize
    transpose(words, address(in_order), keys * size, address(words), BLOCK * size, queries, keys)
