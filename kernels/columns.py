"""Launching what columns.cuh holds: sums over rows, in two steps and always in the same order."""

from __future__ import annotations

import numpy as np

from minitl.kernels.launch import Array, array_module
from minitl.kernels.program import Program

COLUMNS, ROWS_AT_ONCE, CHUNK_ROWS = 32, 8, 64  # as in columns.cuh
BLOCK = COLUMNS, ROWS_AT_ONCE


def chunks_of(rows: int, chunk_rows: int = CHUNK_ROWS) -> int:
    """Return how many chunks of rows there are, at least one."""
    return max(1, -(-rows // chunk_rows))


def sum_chunks(program: Program, partial: Array) -> Array:
    """Return the sums over the chunks of ``partial`` (chunks, columns), or of matrices (matrices, chunks, columns).

    Returns:
        (columns,), or (matrices, columns).
    """
    *matrices, chunks, columns = partial.shape
    sums = array_module(partial).empty((*matrices, columns), partial.dtype)
    if columns:
        grid = -(-columns // COLUMNS), *matrices
        program.launch("sum_chunks", partial, grid, BLOCK, partial, sums, np.int32(chunks), np.int32(columns))
    return sums
