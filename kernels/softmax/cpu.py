"""Scale, mask, softmax and dropout compiled: row after row, while a row is in the nearest cache.

The rows are cut into chunks of fixed size, for the threads, and a chunk into blocks that stay in the nearest cache
while five loops pass over them. What does not ask where a row ends (scale and mask, exponential, dropout) is done for
all elements of a block alike: rows may be as short as a sentence, and a loop over less than a vector register is slow.
So arrays come here flat, and ``begin``, ``end`` and ``start`` are elements at which rows begin.

A NaN in a row needs no care: its exponential is NaN, so is the sum, and so is every quotient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from minitl.kernels.compiled import compiled, inner, parallel
from minitl.kernels.dropout.cpu import Drawing, drop
from minitl.kernels.launch import Array, check_dropout, check_floats, check_masks, check_shapes
from minitl.kernels.vector_math import exp, fill_registers, largest, total

CHUNK = 2**14  # elements
BLOCK = 2**12
TILE = 2**10  # random words


@inner
def _scaled(scores: Any, x: Any, mask: Any, scale: Any) -> None:
    """``mask`` is empty if all columns take part."""
    fill_registers()
    if mask.size:
        for i in range(x.size):
            scores[i] = x[i] * scale if mask[i] else x.dtype.type(-np.inf)
    else:
        for i in range(x.size):
            scores[i] = x[i] * scale


@inner
def _any(mask: Any) -> Any:
    found = mask.size == 0  # no mask
    for j in range(mask.size):
        found = found or mask[j]
    return found


@inner
def _clear_masked(row: Any, mask: Any) -> None:
    for j in range(mask.size):
        row[j] = row[j] if mask[j] else row.dtype.type(0)


@inner
def _subtract_largest(scores: Any, mask: Any, columns: Any) -> None:
    fill_registers()
    for i in range(0, scores.size, columns):
        row = scores[i : i + columns]
        top = largest(row)
        if top == -np.inf and not _any(mask[i : i + columns]):
            continue  # exp(-inf) is 0, but exp(-inf - -inf) would be NaN
        for j in range(columns):
            row[j] -= top


@inner
def _exponentiate(x: Any) -> None:
    fill_registers()
    for i in range(x.size):
        x[i] = exp(x[i])


@inner
def _normalise(p: Any, mask: Any, columns: Any) -> None:
    fill_registers()
    for i in range(0, p.size, columns):
        row = p[i : i + columns]
        whole = total(row)
        factor = p.dtype.type(1) / whole if whole != 0 else p.dtype.type(0)
        for j in range(columns):
            row[j] *= factor
        if whole != whole:  # in a row with NaN, the masked columns are 0 still
            _clear_masked(row, mask[i : i + columns])


@compiled
def _forward_rows(
    y: Any, p: Any, x: Any, mask: Any, columns: Any, scale: Any, dropping: Any, drawing: Any, begin: Any, end: Any
) -> None:
    words = np.empty(TILE, np.uint32)
    step = max(1, BLOCK // columns) * columns
    for start in range(begin, end, step):
        stop = min(start + step, end)
        block = p[start:stop]
        _scaled(block, x[start:stop], mask[start:stop], scale)
        _subtract_largest(block, mask[start:stop], columns)
        _exponentiate(block)
        _normalise(block, mask[start:stop], columns)
        if dropping:
            drop(y[start:stop], block, words, np.uint64(start), drawing)


@parallel
def _forward_all(
    y: Any, p: Any, x: Any, mask: Any, columns: Any, scale: Any, dropping: Any, drawing: Any, size: Any
) -> None:
    for chunk in prange((x.size + size - 1) // size):
        begin, end = chunk * size, min((chunk + 1) * size, x.size)
        _forward_rows(y, p, x, mask, columns, scale, dropping, drawing, begin, end)


@inner
def _rows_gradient(grad_x: Any, grad_p: Any, p: Any, products: Any, columns: Any, scale: Any) -> None:
    """``grad_x = p * (g - sum of g * p) * scale``, with ``g`` 0 where ``p`` is 0: a gradient times 0 may be NaN."""
    fill_registers()
    zero = p.dtype.type(0)
    for i in range(p.size):
        products[i] = p[i] * (grad_p[i] if p[i] != zero else zero)
    for i in range(0, p.size, columns):
        row, grad_row, grad_x_row = p[i : i + columns], grad_p[i : i + columns], grad_x[i : i + columns]
        mean = total(products[i : i + columns])
        for j in range(columns):
            g = grad_row[j] if row[j] != zero else zero
            grad_x_row[j] = row[j] * (g - mean) * scale


@compiled
def _backward_rows(
    grad_x: Any, grad_y: Any, p: Any, columns: Any, scale: Any, dropping: Any, drawing: Any, begin: Any, end: Any
) -> None:
    words = np.empty(TILE, np.uint32)
    step = max(1, BLOCK // columns) * columns
    products = np.empty(step, p.dtype)
    dropped = np.empty(step if dropping else 0, p.dtype)
    for start in range(begin, end, step):
        stop = min(start + step, end)
        grad_p = grad_y[start:stop]
        if dropping:
            drop(dropped[: stop - start], grad_p, words, np.uint64(start), drawing)
            grad_p = dropped
        _rows_gradient(grad_x[start:stop], grad_p, p[start:stop], products, columns, scale)


@parallel
def _backward_all(
    grad_x: Any, grad_y: Any, p: Any, columns: Any, scale: Any, dropping: Any, drawing: Any, size: Any
) -> None:
    for chunk in prange((p.size + size - 1) // size):
        begin, end = chunk * size, min((chunk + 1) * size, p.size)
        _backward_rows(grad_x, grad_y, p, columns, scale, dropping, drawing, begin, end)


def forward(
    x: Array,
    mask: Array | None,
    *,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
    first: int = 0,
) -> tuple[Array, Array]:
    check_floats(x=x)
    check_masks(mask=mask)
    check_shapes(x=(x, "N C"), mask=(mask, "N C"))
    check_dropout(dropout, seed=seed, call=call, first=first)
    if x.shape[1] == 0:
        raise ValueError(f"softmax needs at least one column; the shape of x is {x.shape}")
    probabilities = np.empty_like(x)
    y = np.empty_like(x) if dropout > 0 else probabilities
    flat_mask = np.empty(0, np.bool_) if mask is None else mask.reshape(-1)
    arrays = y.reshape(-1), probabilities.reshape(-1), x.reshape(-1), flat_mask
    options = _options(x, scale, dropout, seed, call, first)
    size = _size_of_a_chunk(x)
    if x.size <= size:
        _forward_rows(*arrays, *options, 0, x.size)
    else:
        _forward_all(*arrays, *options, size)
    return y, probabilities


def backward(
    grad_y: Array,
    probabilities: Array,
    *,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
    first: int = 0,
) -> Array:
    check_floats(grad_y=grad_y, probabilities=probabilities)
    check_shapes(grad_y=(grad_y, "N C"), probabilities=(probabilities, "N C"))
    check_dropout(dropout, seed=seed, call=call, first=first)
    grad_x = np.empty_like(grad_y)
    arrays = grad_x.reshape(-1), grad_y.reshape(-1), probabilities.reshape(-1)
    options = _options(grad_y, scale, dropout, seed, call, first)
    size = _size_of_a_chunk(grad_y)
    if grad_y.size <= size:
        _backward_rows(*arrays, *options, 0, grad_y.size)
    else:
        _backward_all(*arrays, *options, size)
    return grad_x


def _size_of_a_chunk(x: Array) -> int:
    """Whole rows, at least one."""
    columns = max(1, x.shape[1])
    return max(1, CHUNK // columns) * columns


def _options(x: Array, scale: float, dropout: float, seed: int, call: int, first: int) -> tuple[Any, ...]:
    """Return columns, scale, whether to drop and how, in the types that are compiled for."""
    drawing = Drawing.of(x.dtype, dropout, seed=seed, call=call, first=first)
    return max(1, x.shape[1]), x.dtype.type(scale), dropout > 0, drawing
