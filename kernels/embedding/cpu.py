"""Rows of tables compiled: one pass over the result forward, and backward sums that do not depend on the threads.

Forward cuts the tokens into chunks; each row of the result is written once, with the sum of its rows of one, two or
three tables. Backward may add several tokens to one row, and two threads must not do that at once, nor in an order
that changes from run to run. So it cuts the columns into strips: a thread takes a strip of all tokens, in their order,
and no other thread has a part in it. Every element is summed in the order of the tokens, as in the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import prange

from minitl.kernels.compiled import SMALL, compiled, parallel
from minitl.kernels.launch import Array, check_floats, check_integers, check_ranges, check_shapes

CHUNK = 2**13  # elements of the result in one turn of forward
STRIP = 64  # columns in one turn of backward: four cache lines of float32
TOGETHER = 3  # tables that are summed in one pass


@compiled
def _sum_rows(begin: Any, end: Any, y: Any, count: Any, a: Any, i: Any, b: Any, j: Any, c: Any, k: Any) -> None:
    """Write rows ``begin`` to ``end`` of y: the sum of those of the first ``count`` tables a, b, c by their indices."""
    for token in range(begin, end):
        out, row_a, row_b, row_c = y[token], a[i[token]], b[j[token]], c[k[token]]
        for column in range(out.size):
            out[column] = row_a[column]
        if count > 1:
            for column in range(out.size):
                out[column] += row_b[column]
        if count > 2:
            for column in range(out.size):
                out[column] += row_c[column]


@parallel
def _sum_all_rows(rows: Any, y: Any, count: Any, a: Any, i: Any, b: Any, j: Any, c: Any, k: Any) -> None:
    for chunk in prange((len(y) + rows - 1) // rows):
        _sum_rows(chunk * rows, min((chunk + 1) * rows, len(y)), y, count, a, i, b, j, c, k)


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
    tokens, columns = len(indices[0]), tables[0].shape[1]
    y: Array = np.empty((tokens, columns), dtype=tables[0].dtype)
    some = [(table, index.astype(np.int64, copy=False)) for table, index in zip(tables, indices, strict=True)]
    count = min(len(some), TOGETHER)
    three = [array for pair in (some[:TOGETHER] + some[:1] * (TOGETHER - count)) for array in pair]
    if y.size <= SMALL:
        _sum_rows(0, tokens, y, count, *three)
    else:
        _sum_all_rows(max(1, CHUNK // columns), y, count, *three)
    if len(some) > TOGETHER:  # the sum so far is a table of which every token has its own row
        rest = some[TOGETHER:]
        return forward([y, *(table for table, _ in rest)], [np.arange(tokens), *(index for _, index in rest)])
    return y


@compiled
def _add_strip(begin: Any, end: Any, grad_y: Any, index: Any, out: Any, padding_index: Any) -> None:
    for token in range(index.size):
        if index[token] != padding_index:
            row, gradient = out[index[token], begin:end], grad_y[token, begin:end]
            for column in range(row.size):
                row[column] += gradient[column]


@parallel
def _add_strips(grad_y: Any, index: Any, out: Any, padding_index: Any) -> None:
    for strip in prange((out.shape[1] + STRIP - 1) // STRIP):
        _add_strip(strip * STRIP, min((strip + 1) * STRIP, out.shape[1]), grad_y, index, out, padding_index)


def backward(grad_y: Array, index: Array, *, out: Array, padding_index: int | None = None) -> Array:
    check_floats(grad_y=grad_y, out=out)
    check_integers(index=index)
    check_shapes(grad_y=(grad_y, "T D"), index=(index, "T"), out=(out, "V D"))
    check_ranges(padding_index=(padding_index, 0, out.shape[0]))
    whole = index.astype(np.int64, copy=False)
    skipped = -1 if padding_index is None else padding_index
    if grad_y.size <= SMALL:
        _add_strip(0, out.shape[1], grad_y, whole, out, skipped)
    else:
        _add_strips(grad_y, whole, out, skipped)
    return out
