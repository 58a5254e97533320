"""Launching what columns.cuh holds: sums over rows, in two steps and always in the same order."""

from __future__ import annotations

import numpy as np

from minitl.kernels.launch import Array, array_module
from minitl.kernels.program import THREADS, Program, blocks_for

COLUMNS, ROWS_AT_ONCE, CHUNK_ROWS = 32, 8, 64  # as in columns.cuh


def chunks_of(rows: int) -> int:
    """Return how many chunks of rows there are, at least one."""
    return max(1, -(-rows // CHUNK_ROWS))


def sum_chunks(program: Program, partial: Array) -> Array:
    """Return the sums over the chunks, (columns,), of ``partial`` (chunks, columns)."""
    chunks, columns = partial.shape
    sums = array_module(partial).empty(columns, partial.dtype)
    if columns:
        sizes = np.int32(chunks), np.int32(columns)
        program.launch("sum_chunks", partial, blocks_for(columns), THREADS, partial, sums, *sizes)
    return sums
