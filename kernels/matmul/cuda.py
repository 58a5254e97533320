"""Matrix products: by cuBLASLt on a GPU, see cublas.py; by a plain kernel on the simulator, see matmul.cu."""

from __future__ import annotations

import numpy as np

from minitl.kernels.columns import BLOCK, COLUMNS, chunks_of, sum_chunks_into
from minitl.kernels.columns import sum_chunks as _sum_chunks
from minitl.kernels.launch import Array, array_module, check_floats, check_shapes, on_gpu, wide
from minitl.kernels.launch import bfloat16 as rounded
from minitl.kernels.matmul import cublas
from minitl.kernels.matmul.arguments import check_product, check_sums
from minitl.kernels.program import C_TYPES, EIGHT, SHORT_TYPES, TYPES, Program, packs_fit, per_short_type, per_type

TILE = 16  # as in matmul.cu
PROGRAM = Program(
    __file__,
    [
        *(f"matmul<{kind},{kind}>" for kind in (*TYPES.values(), *SHORT_TYPES.values())),
        *(f"matmul<{kind},float>" for kind in SHORT_TYPES.values()),
        *per_type("column_sums", "column_sums_single", "sum_chunks"),
        *per_short_type("column_sums", "column_sums_single"),
    ],
)


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
    if c.size == 0:
        return c
    if on_gpu(a):
        if bfloat16:
            a, b = a.astype(rounded()), b.astype(rounded())
        _product(a, b, c, transpose_a, transpose_b, accumulate, bias)
    else:
        grid = -(-m // TILE), -(-n // TILE)
        sizes = np.int64(m), np.int64(n), np.int64(k)
        choices = (np.bool_(choice) for choice in (transpose_a, transpose_b, accumulate, bfloat16))
        PROGRAM.launch(f"matmul<,{C_TYPES[c.dtype.name]}>", a, grid, (TILE, TILE), a, b, bias, c, *sizes, *choices)
    return c


def _product(
    a: Array, b: Array, c: Array, transpose_a: bool, transpose_b: bool, accumulate: bool, bias: Array | None
) -> None:
    if a.size:
        kinds = {"transpose_a": transpose_a, "transpose_b": transpose_b, "accumulate": accumulate}
        cublas.product(a, b, c, **kinds, bias=bias)
    elif not accumulate:  # sums of nothing
        c[...] = 0 if bias is None else bias


def column_sums(x: Array) -> Array:
    return _sum_chunks(PROGRAM, _partial_sums(x))


def column_sums_into(x: Array, out: Array, accumulate: bool) -> None:
    """Write the sums over the rows of x (N, D) into ``out`` (D,), or add them to it; float32 for x of 16 bits."""
    check_sums(x)
    check_floats(out=out)
    check_shapes(x=(x, "N D"), out=(out, "D"))
    sum_chunks_into(PROGRAM, _partial_sums(x), [out], accumulate)


def _partial_sums(x: Array) -> Array:
    check_sums(x)
    rows, columns = x.shape
    xp = array_module(x)
    partial = (xp.empty if x.size else xp.zeros)((chunks_of(rows), columns), wide(x.dtype))
    if x.size:
        eights = packs_fit(x)
        name = "column_sums" if eights else "column_sums_single"
        grid = len(partial), -(-columns // (COLUMNS * EIGHT if eights else COLUMNS))
        PROGRAM.launch(name, x, grid, BLOCK, x, partial, np.int64(rows), np.int32(columns))
    return partial
