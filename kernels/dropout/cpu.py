"""Dropout compiled: random words for a tile of elements, which stay in the nearest cache, and the choice they make.

The elements are cut into chunks of fixed size, one for each turn of a thread. An element's number does not depend on
where the cuts are, so no bit does.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from minitl.kernels.compiled import SMALL, compiled, inner, parallel
from minitl.kernels.launch import Array, check_dropout, check_floats, check_rows
from minitl.kernels.philox.cpu import fill_words, words

CHUNK = 2**14  # elements
TILE = 2**10  # random words made at a time


class Drawing(NamedTuple):
    """What compiled functions are told about a dropout, in the types they are compiled for."""

    first: Any  # uint64, number of the first element
    threshold: Any  # uint32, floor(probability * 2^32): words from it on are kept
    scale: Any  # 1 / (1 - probability), in the dtype of the elements
    seed: Any  # uint64
    call: Any  # uint64

    @classmethod
    def of(cls, dtype: Any, probability: float, *, seed: int, call: int, first: int = 0) -> Drawing:
        threshold, scale = np.uint32(math.floor(probability * 2**32)), dtype.type(1 / (1 - probability))
        return cls(np.uint64(first), threshold, scale, np.uint64(seed), np.uint64(call))


@inner
def keep_scales(out: Any, words: Any, first: Any, threshold: Any, scale: Any, seed: Any, call: Any) -> None:
    """Fill ``out`` (count,) with ``scale`` for kept elements and 0 for dropped ones; for other kernels.

    Args:
        out: (count,) floats.
        words: (at least count,) uint32, scratch.
        first: uint64, number of the first element.
        threshold, scale, seed, call: see ``Drawing``.
    """
    words = words[: out.size]
    fill_words(words, first, seed, call)
    for i in range(out.size):
        out[i] = scale if words[i] >= threshold else out.dtype.type(0)


@inner
def drop(y: Any, x: Any, words: Any, number: Any, drawing: Any) -> None:
    """Write to ``y`` (count,) the elements of ``x`` (count,), dropped or scaled.

    Args:
        y, x: different memory.
        words: (any length,) uint32, scratch.
        number: uint64, of the first element here, counted from ``drawing.first``.
        drawing: see ``Drawing``.
    """
    for begin in range(0, x.size, words.size):
        # Parts of the arrays, not sums of indices: Numba would ask of every sum whether it is negative.
        some_x, some_y = x[begin : begin + words.size], y[begin : begin + words.size]
        some_words = words[: some_x.size]
        fill_words(some_words, drawing.first + number + np.uint64(begin), drawing.seed, drawing.call)
        for i in range(some_x.size):
            # a choice, not a product with 0: a dropped Inf must become 0, not NaN
            some_y[i] = some_x[i] * drawing.scale if some_words[i] >= drawing.threshold else x.dtype.type(0)


@compiled
def _drop_range(y: Any, x: Any, columns: Any, rows: Any, drawing: Any, begin: Any, end: Any) -> None:
    """Do elements ``begin`` to ``end - 1`` of rows of ``columns`` elements; ``rows`` has their numbers."""
    words = np.empty(TILE, np.uint32)
    while begin < end:
        row, column = begin // columns, begin % columns
        stop = min(begin + columns - column, end)  # as far as the numbers are consecutive
        number = rows[row] * np.uint64(columns) + np.uint64(column)
        drop(y[begin:stop], x[begin:stop], words, number, drawing)
        begin = stop


@parallel
def _drop_all(y: Any, x: Any, columns: Any, rows: Any, drawing: Any) -> None:
    for chunk in prange((x.size + CHUNK - 1) // CHUNK):
        begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, x.size)
        _drop_range(y, x, columns, rows, drawing, begin, end)


def keep_mask(
    shape: tuple[int, ...], *, probability: float, seed: int, call: int, first: int = 0, xp: ModuleType
) -> Array:
    check_dropout(probability, seed=seed, call=call, first=first)
    threshold = math.floor(probability * 2**32)
    return (words(math.prod(shape), seed=seed, call=call, first=first, xp=xp) >= threshold).reshape(shape)


def forward(x: Array, *, probability: float, seed: int, call: int, first: int = 0, rows: Array | None = None) -> Array:
    check_floats(x=x)
    check_rows(rows, first=first, x=x)
    return _drop(x, probability, seed, call, first, rows)


def backward(
    grad_y: Array, *, probability: float, seed: int, call: int, first: int = 0, rows: Array | None = None
) -> Array:
    check_floats(grad_y=grad_y)
    check_rows(rows, first=first, grad_y=grad_y)
    return _drop(grad_y, probability, seed, call, first, rows)


def _drop(x: Array, probability: float, seed: int, call: int, first: int, rows: Array | None) -> Array:
    check_dropout(probability, seed=seed, call=call, first=first)
    if probability == 0:
        return x
    # Without rows, all of x is one row, number 0 of the larger array.
    columns = x.size if rows is None else x.shape[1]
    numbers = np.zeros(1, np.uint64) if rows is None else rows.astype(np.uint64)
    drawing = Drawing.of(x.dtype, probability, seed=seed, call=call, first=first)
    y = np.empty_like(x)
    flat_y, flat_x = y.reshape(-1), x.reshape(-1)
    if x.size <= SMALL:
        _drop_range(flat_y, flat_x, columns, numbers, drawing, 0, x.size)
    else:
        _drop_all(flat_y, flat_x, columns, numbers, drawing)
    return y
