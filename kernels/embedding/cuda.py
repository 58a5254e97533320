"""Rows of tables by number in CUDA; see embedding.cu."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minitl.kernels.launch import (
    Array,
    array_module,
    bfloat16,
    check_floats,
    check_integers,
    check_ranges,
    check_shapes,
)
from minitl.kernels.program import Program, per_type

THREADS = 128
NO_INDEX = -1
PROGRAM = Program(__file__, per_type("embedding_forward", "embedding_backward"))


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
    xp = array_module(tables[0])
    tokens, columns = len(indices[0]), tables[0].shape[1]
    y = xp.empty((tokens, columns), tables[0].dtype)
    if y.size:
        for number, (table, index) in enumerate(zip(tables, indices, strict=True)):
            arrays = table, xp.ascontiguousarray(index, dtype=np.int64), y
            PROGRAM.launch("embedding_forward", y, tokens, THREADS, *arrays, np.int64(columns), np.bool_(number > 0))
    return y


def forward_in_bfloat16(tables: Sequence[Array], indices: Sequence[Array]) -> Array:
    """Return what ``forward`` does for float32 tables, rounded once to bfloat16."""
    return forward(tables, indices).astype(bfloat16())


def backward(grad_y: Array, index: Array, *, out: Array, padding_index: int | None = None) -> Array:
    check_floats(grad_y=grad_y, out=out)
    check_integers(index=index)
    check_shapes(grad_y=(grad_y, "T D"), index=(index, "T"), out=(out, "V D"))
    check_ranges(padding_index=(padding_index, 0, out.shape[0]))
    if grad_y.size == 0:
        return out
    xp = array_module(grad_y)
    rows = xp.ascontiguousarray(index, dtype=np.int64)
    tokens = xp.argsort(rows, kind="stable").astype(np.int64)
    in_order = rows[tokens]
    begins = xp.flatnonzero(in_order[1:] != in_order[:-1]) + 1
    starts = xp.concatenate([xp.zeros(1, np.int64), begins, xp.full(1, len(rows), np.int64)]).astype(np.int64)
    skipped = NO_INDEX if padding_index is None else padding_index
    arrays = grad_y, rows, tokens, starts, out
    sizes = np.int64(grad_y.shape[1]), np.int64(skipped)
    PROGRAM.launch("embedding_backward", grad_y, len(starts) - 1, THREADS, *arrays, *sizes)
    return out
