"""Rows of tables by number in CUDA; see embedding.cu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minitl.kernels.columns import BLOCK, COLUMNS, chunks_of, sum_chunks
from minitl.kernels.launch import (
    Array,
    array_module,
    check_activations,
    check_floats,
    check_integers,
    check_ranges,
    check_shapes,
    wide,
)
from minitl.kernels.program import C_TYPES, SHORT_TYPES, TYPES, Program, per_short_type, per_type

WIDTH, BLOCK_THREADS, FEW_ROWS = 64, 256, 8  # as in embedding.cu
TABLES_AT_ONCE = 3
NO_INDEX = -1
_BACKWARD = ("embedding_backward", "embedding_backward_few")
PROGRAM = Program(
    __file__,
    [
        *(f"embedding_forward<{kind},{kind}>" for kind in TYPES.values()),
        *(f"embedding_forward<float,{kind}>" for kind in SHORT_TYPES.values()),
        *per_type(*_BACKWARD, "sum_chunks"),
        *per_short_type(*_BACKWARD),
    ],
)


def forward(tables: Sequence[Array], indices: Sequence[Array]) -> Array:
    if not tables or len(tables) != len(indices):
        raise ValueError(f"embedding needs tables, and indices for each; got {len(tables)} and {len(indices)}")
    named_tables = {f"tables[{i}]": table for i, table in enumerate(tables)}
    named_indices = {f"indices[{i}]": index for i, index in enumerate(indices)}
    check_floats(**named_tables)
    check_integers(**named_indices)
    check_shapes(
        **{name: (table, f"V{i} D") for i, (name, table) in enumerate(named_tables.items())},
        **{name: (index, "T") for name, index in named_indices.items()},
    )
    return _forward(tables, indices, tables[0].dtype)


def forward_rounded(tables: Sequence[Array], indices: Sequence[Array], *, dtype: np.dtype[Any]) -> Array:
    """Return what ``forward`` does for at most three float32 tables, rounded once to a dtype of 16 bits."""
    return _forward(tables, indices, dtype)


def _forward(tables: Sequence[Array], indices: Sequence[Array], dtype: Any) -> Array:
    xp = array_module(tables[0])
    tokens, columns = len(indices[0]), tables[0].shape[1]
    y = xp.empty((tokens, columns), dtype)
    if y.size == 0:
        return y
    name = f"embedding_forward<,{C_TYPES[y.dtype.name]}>"
    pairs = [(table, xp.ascontiguousarray(index, dtype=np.int64)) for table, index in zip(tables, indices, strict=True)]
    for begin in range(0, len(pairs), TABLES_AT_ONCE):
        group = pairs[begin : begin + TABLES_AT_ONCE]
        arrays = [array for pair in group for array in pair] + [None, None] * (TABLES_AT_ONCE - len(group))
        PROGRAM.launch(name, tables[0], tokens, WIDTH, *arrays, y, np.int64(columns), np.bool_(begin > 0))
    return y


def backward(grad_y: Array, index: Array, *, out: Array, padding_index: int | None = None) -> Array:
    check_activations({"out": out}, grad_y=grad_y)
    check_integers(index=index)
    check_shapes(grad_y=(grad_y, "T D"), index=(index, "T"), out=(out, "V D"))
    check_ranges(padding_index=(padding_index, 0, out.shape[0]))
    if grad_y.size == 0:
        return out
    xp = array_module(grad_y)
    numbers = xp.ascontiguousarray(index, dtype=np.int64)
    tokens, columns = grad_y.shape
    skipped = np.int64(NO_INDEX if padding_index is None else padding_index)
    rows = len(out)
    if rows > FEW_ROWS:
        arguments = grad_y, numbers, out, np.int64(tokens), np.int64(columns), skipped
        PROGRAM.launch("embedding_backward", grad_y, tokens, BLOCK_THREADS, *arguments)
        return out
    partial = xp.empty((chunks_of(tokens), rows * columns), wide(grad_y.dtype))
    grid = len(partial), -(-columns // COLUMNS)
    sizes = np.int64(tokens), np.int32(columns), np.int32(rows), skipped
    PROGRAM.launch("embedding_backward_few", grad_y, grid, BLOCK, grad_y, numbers, partial, *sizes)
    out += sum_chunks(PROGRAM, partial).reshape(out.shape)
    return out
