"""Matrix products in CUDA: plain, see matmul.cu."""

from __future__ import annotations

import numpy as np

from minitl.kernels.columns import COLUMNS, ROWS_AT_ONCE, chunks_of
from minitl.kernels.columns import sum_chunks as _sum_chunks
from minitl.kernels.launch import Array, array_module
from minitl.kernels.matmul.arguments import check_product, check_sums
from minitl.kernels.program import Program, per_type

TILE = 16  # as in matmul.cu
PROGRAM = Program(__file__, per_type("matmul", "column_sums", "sum_chunks"))


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
    c = array_module(a).empty((m, n), a.dtype) if out is None else out
    if c.size:
        grid = -(-m // TILE), -(-n // TILE)
        sizes = np.int64(m), np.int64(n), np.int64(k)
        choices = (np.bool_(choice) for choice in (transpose_a, transpose_b, accumulate, bfloat16))
        PROGRAM.launch("matmul", a, grid, (TILE, TILE), a, b, bias, c, *sizes, *choices)
    return c


def column_sums(x: Array) -> Array:
    check_sums(x)
    rows, columns = x.shape
    partial = array_module(x).zeros((chunks_of(rows), columns), x.dtype)
    if x.size:
        grid = len(partial), -(-columns // COLUMNS)
        PROGRAM.launch("column_sums", x, grid, (COLUMNS, ROWS_AT_ONCE), x, partial, np.int64(rows), np.int32(columns))
    return _sum_chunks(PROGRAM, partial)
