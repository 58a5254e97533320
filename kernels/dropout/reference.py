"""Dropout by counter: element ``i`` is kept iff its Philox word is at least ``floor(probability * 2^32)``.

The mask is never stored: backward computes the same bits again. Kept values are scaled by ``1 / (1 - probability)``, so
that the expected output is the input (Srivastava et al. 2014, the "inverted" form).
"""

from __future__ import annotations

import math
from types import ModuleType

from minitl.kernels.launch import Array, array_module, check_dropout, check_floats, check_rows
from minitl.kernels.philox.reference import CHUNK, MASK, philox4x32, words


def keep_mask(
    shape: tuple[int, ...], *, probability: float, seed: int, call: int, first: int = 0, xp: ModuleType
) -> Array:
    """Return the boolean mask of kept elements; elements are numbered in C order from ``first``."""
    check_dropout(probability, seed=seed, call=call, first=first)
    threshold = math.floor(probability * 2**32)
    return (words(math.prod(shape), seed=seed, call=call, first=first, xp=xp) >= threshold).reshape(shape)


def forward(x: Array, *, probability: float, seed: int, call: int, first: int = 0, rows: Array | None = None) -> Array:
    """Return ``x`` with dropped elements set to 0 and the others divided by ``1 - probability``.

    Args:
        x: any shape, C-contiguous; with ``rows`` (N, D).
        probability: chance of dropping, 0 <= probability < 1.
        seed, call: key and use number of the generator, see ``philox``.
        first: element numbers count from it, in C order.
        rows: (N,) integers, or None for 0 to N - 1: ``x`` is these rows of a larger array. The number of an element is
            its number there, ``rows[n] * D + column``; so a row has the same mask alone as in company.
    """
    check_floats(x=x)
    check_rows(rows, first=first, x=x)
    return _drop(x, probability, seed, call, first, rows)


def backward(
    grad_y: Array, *, probability: float, seed: int, call: int, first: int = 0, rows: Array | None = None
) -> Array:
    """Return the gradient of ``x``: the same elements dropped, the same scale."""
    check_floats(grad_y=grad_y)
    check_rows(rows, first=first, grad_y=grad_y)
    return _drop(grad_y, probability, seed, call, first, rows)


def _drop(x: Array, probability: float, seed: int, call: int, first: int, rows: Array | None) -> Array:
    check_dropout(probability, seed=seed, call=call, first=first)
    if probability == 0:
        return x
    xp = array_module(x)
    if rows is None:
        keep = keep_mask(x.shape, probability=probability, seed=seed, call=call, first=first, xp=xp)
    else:
        keep = _words_of_rows(rows, x.shape[1], seed, call, xp) >= math.floor(probability * 2**32)
    # where, not x * keep: a dropped Inf must become 0, not NaN
    return xp.where(keep, x * (1 / (1 - probability)), 0)


def _words_of_rows(rows: Array, columns: int, seed: int, call: int, xp: ModuleType) -> Array:
    """Return the random words of elements ``rows[n] * columns + column``, uint32 (N, columns)."""
    first = rows.astype(xp.uint64) * columns  # (N,) element numbers of the first column
    # A row of D elements may begin inside a block of four words, and then ends in the block after D / 4 others.
    blocks = xp.arange(columns // 4 + 2, dtype=xp.uint64)
    place = ((first & 3)[:, None] + xp.arange(columns, dtype=xp.uint64)).astype(xp.int64)
    output = xp.empty((len(rows), columns), dtype=xp.uint32)
    step = max(1, CHUNK // len(blocks))
    for start in range(0, len(rows), step):
        chunk = slice(start, start + step)
        block = (first[chunk] >> 2)[:, None] + blocks
        constant = xp.zeros_like(block)
        counter = (block & MASK, block >> 32, constant + (call & MASK), constant + (call >> 32))
        four_each = xp.stack(philox4x32(counter, (seed & MASK, seed >> 32)), axis=-1)  # (rows of the chunk, blocks, 4)
        output[chunk] = xp.take_along_axis(four_each.reshape(len(block), 4 * len(blocks)), place[chunk], axis=1)
    return output
