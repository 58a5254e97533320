"""Matrix product compiled: how it reaches the peak of a CPU.

    c (M, N) = op(a) (M, K) @ op(b) (K, N)

All the arithmetic happens in a tile (``tile.py``): a few rows of c times a few vectors of columns, the sums in
registers, one loop over the whole of K. What is left is to feed it.

1. ``b`` is copied into panels of as many columns as a tile has, (K, WIDTH) each, so that a tile reads it from front to
   back. A panel of BERT's is 74 to 600 kB: it stays in the second cache while all rows of ``a`` pass by. The copy reads
   b once, and every element is then used M times.
2. ``a`` is read where it is: a tile takes one number from each of its rows, and the next turn the one beside it. Only
   a transposed ``a`` (in weight gradients), whose neighbours in K lie far apart, is copied into tiles (K, ROWS) first.
3. c is cut into tasks, one panel times 16 tiles of rows, which the threads share. Neighbouring tasks have their panel
   in common. A thread copies a panel when it first needs it, into memory of its own that the next panel overwrites:
   that memory never leaves its cache. Copying waits for the memory, and multiplying does not: it helps that not all
   threads copy at once. A task owns its part of c and K is never shared out, so every element is the same sum in the
   same order, for any number of threads.
4. A task goes through K in blocks of 128: 25 kB of a panel, which stay in the first cache (or near it) while the 16
   tiles of rows use them. The sums of each block are added to c. That also halves the error: 1,000 numbers added one by
   one into a float32 are rounded 1,000 times, on the way to an ever larger sum.
5. At the edges the tile is larger than what is left of c: it computes into a small array beside it, and the part that
   exists is copied.

The same code serves bfloat16: operands are rounded to it while they are copied, two neighbours in K become one 32-bit
word, and the tile does twice the work in a turn. Then ``a`` is copied always.

Other processors than x86-64 with AVX2 get the product from the BLAS, on rows in chunks of fixed size (``blas.py``).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange

from minitl.kernels.compiled import compiled, inner, parallel
from minitl.kernels.launch import Array
from minitl.kernels.matmul import blas
from minitl.kernels.matmul.arguments import check_product, check_sums
from minitl.kernels.matmul.moving import TILES_TOGETHER
from minitl.kernels.matmul.packing import pack_panel, pack_tile_across, pack_tiles_down
from minitl.kernels.matmul.tile import ROWS, VECTOR_BYTES, VECTORS, tile
from minitl.kernels.processor import processor
from minitl.kernels.scratch import scratch

COPY, MULTIPLY = 0, 1  # the two jobs of a product, one after the other
TILES_PER_TASK = 16
BLOCK = 128  # steps of K
APART = 2  # steps left free between tiles, which else would lie so that the nearest cache has one place for all of them
FEW_PRODUCTS = 2**17  # multiplications that one thread does in less time than starting the others takes
SUM_ROWS = 64  # rows that one chunk of ``column_sums`` adds up
HAS_TILE = processor().vector_bytes > 0


def matmul(
    a: Array,
    b: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    out: Array | None = None,
    accumulate: bool = False,
    bias: Array | None = None,
    bfloat16: bool = False,
) -> Array:
    m, n, k = check_product(a, b, transpose_a, transpose_b, out, accumulate, bias, bfloat16)
    if not HAS_TILE:
        return blas.matmul(a, b, transpose_a, transpose_b, out, accumulate, bias, bfloat16)
    c = np.empty((m, n), a.dtype) if out is None else out
    if c.size == 0:
        return c
    operand = np.dtype(np.uint32) if bfloat16 else a.dtype
    steps = (k + 1) // 2 if bfloat16 else k
    width = VECTORS * VECTOR_BYTES // operand.itemsize
    tiles, panels = -(-m // ROWS), -(-n // width)
    in_place = not transpose_a and not bfloat16
    # where a is read in place, only the last tile is copied, whose rows may not all exist
    copied = scratch.take("matmul tiles", (1 if in_place else tiles, (steps + APART) * ROWS), operand)
    row = np.empty(0, c.dtype) if bias is None else bias
    few = m * n * k <= FEW_PRODUCTS
    threads = 1 if few else numba.config.NUMBA_NUM_THREADS
    own = scratch.take("matmul panels", (threads, steps, width), operand)
    held = np.full(threads, -1)
    operands = (a, b, c, transpose_a, transpose_b, in_place, accumulate, row, own, held, copied)
    (_few if few or in_place else _many)(COPY, -(-len(copied) // (TILES_TOGETHER if transpose_a else 1)), *operands)
    (_few if few else _many)(MULTIPLY, panels * -(-tiles // TILES_PER_TASK), *operands)
    return c


def column_sums(x: Array) -> Array:
    check_sums(x)
    if x.size == 0:
        return np.zeros(x.shape[1], x.dtype)
    partial = np.zeros((-(-x.shape[0] // SUM_ROWS), x.shape[1]), x.dtype)
    (_sum_few if x.size <= FEW_PRODUCTS // 8 else _sum_many)(x, partial)
    total = partial[0]
    for chunk in partial[1:]:
        total += chunk
    return total


@inner
def _multiply(
    a: Any, c: Any, transposed: Any, in_place: Any, accumulate: Any, bias: Any, panel: Any, copied: Any,
    p: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Compute the tiles ``first`` to ``last - 1`` of rows, in the columns of panel ``p``."""
    rows, columns = c.shape
    steps, width, size = panel.shape[0], panel.shape[1], panel.itemsize
    a_row, a_step = (size, ROWS * size) if transposed else (steps * size, size)
    column = p * width
    width_here = min(width, columns - column)
    bias_row, edge = np.empty(width, c.dtype), np.empty((ROWS, width), c.dtype)
    for j in range(width if bias.size > 0 else 0):
        bias_row[j] = bias[min(column + j, columns - 1)]  # beyond the edge any number will do
    for begin in range(0, max(steps, 1), BLOCK):  # once without any step, too: c is then 0, or the bias
        block = min(BLOCK, steps - begin)
        add = accumulate or begin > 0
        b_here = np.int64(panel.ctypes.data) + begin * width * size
        # asked for here and not outside: an array whose last use is its address would be freed there and then
        bias_here = np.int64(bias_row.ctypes.data) if bias.size > 0 and begin == 0 else 0
        for t in range(first, last):
            row = t * ROWS
            rows_here = min(ROWS, rows - row)
            if in_place and rows_here == ROWS:
                a_here = np.int64(a.ctypes.data) + row * a_row
            else:
                a_here = np.int64(copied.ctypes.data) + (0 if in_place else t * copied.shape[1] * size)
            a_here += begin * a_step
            if rows_here == ROWS and width_here == width:
                c_here, c_row = np.int64(c.ctypes.data) + (row * columns + column) * c.itemsize, columns * c.itemsize
                tile(panel, a_here, a_row, a_step, b_here, width * size, block, c_here, c_row, int(add), bias_here)
                continue
            c_here, c_row = np.int64(edge.ctypes.data), width * c.itemsize
            tile(panel, a_here, a_row, a_step, b_here, width * size, block, c_here, c_row, 0, bias_here)
            for i in range(rows_here):
                for j in range(width_here):
                    before = c[row + i, column + j] if add else c.dtype.type(0)
                    c[row + i, column + j] = before + edge[i, j]


@inner
def _do(
    job: Any, number: Any, thread: Any, a: Any, b: Any, c: Any, transpose_a: Any, transpose_b: Any, in_place: Any,
    accumulate: Any, bias: Any, own: Any, held: Any, copied: Any,
) -> None:  # fmt: skip
    """Do task ``number`` of a job: copy some tiles of a, or multiply some of them with one panel."""
    tiles = (c.shape[0] + ROWS - 1) // ROWS
    if job == COPY:
        if transpose_a:
            pack_tiles_down(a, copied, number * TILES_TOGETHER)
        else:
            pack_tile_across(a, copied[number], tiles - 1 if in_place else number)
        return
    stretches = (tiles + TILES_PER_TASK - 1) // TILES_PER_TASK
    p, first = number // stretches, number % stretches * TILES_PER_TASK  # neighbours in number share a panel
    if held[thread] != p:
        pack_panel(b, transpose_b, own[thread], p)
        held[thread] = p
    last = min(first + TILES_PER_TASK, tiles)
    _multiply(a, c, transpose_a, in_place, accumulate, bias, own[thread], copied, p, first, last)


@compiled
def _few(
    job: Any, tasks: Any, a: Any, b: Any, c: Any, transpose_a: Any, transpose_b: Any, in_place: Any,
    accumulate: Any, bias: Any, own: Any, held: Any, copied: Any,
) -> None:  # fmt: skip
    for number in range(tasks):
        _do(job, number, 0, a, b, c, transpose_a, transpose_b, in_place, accumulate, bias, own, held, copied)


@parallel
def _many(
    job: Any, tasks: Any, a: Any, b: Any, c: Any, transpose_a: Any, transpose_b: Any, in_place: Any,
    accumulate: Any, bias: Any, own: Any, held: Any, copied: Any,
) -> None:  # fmt: skip
    for number in prange(tasks):
        task, thread = np.int64(number), np.int64(numba.get_thread_id())
        _do(job, task, thread, a, b, c, transpose_a, transpose_b, in_place, accumulate, bias, own, held, copied)


@inner
def _sum_rows(x: Any, partial: Any, chunk: Any) -> None:
    total = partial[chunk]
    for i in range(chunk * SUM_ROWS, min((chunk + 1) * SUM_ROWS, x.shape[0])):
        for j in range(x.shape[1]):
            total[j] += x[i, j]


@compiled
def _sum_few(x: Any, partial: Any) -> None:
    for chunk in range(partial.shape[0]):
        _sum_rows(x, partial, chunk)


@parallel
def _sum_many(x: Any, partial: Any) -> None:
    for chunk in prange(partial.shape[0]):
        _sum_rows(x, partial, np.int64(chunk))
