"""Launching what columns.cuh holds: sums over rows, in two steps and always in the same order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.kernels.launch import Array, array_module
from minitl.kernels.program import Program

COLUMNS, ROWS_AT_ONCE, CHUNK_ROWS = 32, 8, 64  # as in columns.cuh
BLOCK = COLUMNS, ROWS_AT_ONCE


def chunks_of(rows: int, chunk_rows: int = CHUNK_ROWS) -> int:
    """Return how many chunks of rows there are, at least one."""
    return max(1, -(-rows // chunk_rows))


def sum_chunks(program: Program, partial: Array) -> Array:
    """Return the sums over the chunks of ``partial`` (chunks, columns), or of two matrices (2, chunks, columns).

    Returns:
        (columns,), or (2, columns).
    """
    *matrices, _, columns = partial.shape
    sums = array_module(partial).empty((*matrices, columns), partial.dtype)
    sum_chunks_into(program, partial, list(sums) if matrices else [sums])
    return sums


def sum_chunks_into(program: Program, partial: Array, outs: Sequence[Array], accumulate: bool = False) -> None:
    """Write these sums, or add them to what is there.

    Args:
        program: of a file that includes columns.cuh.
        partial: (chunks, columns), or (2, chunks, columns).
        outs: one (columns,), or two, of its dtype.
        accumulate: whether to add.
    """
    chunks, columns = partial.shape[-2:]
    if columns:
        grid = -(-columns // COLUMNS), len(outs)
        arrays = partial, outs[0], outs[1] if len(outs) > 1 else None
        sizes = np.int32(chunks), np.int32(columns)
        program.launch("sum_chunks", partial, grid, BLOCK, *arrays, *sizes, np.bool_(accumulate))
